"""The page of a sweep: in a browser its lines can be read and chosen, and its table sorts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.browser import browser_page
from pipelines.visualize.sweep_page import Importance, PlottedTrial, SweepData, sweep_page

NASTY = "</script><script>document.title='taken over'</script>"


def trial(number: int, lr: float, patch: int, score: float | None, outcome: str = "finished") -> PlottedTrial:
    values = {"ppo.lr": lr, "model.patch_size": patch, "model.action": "grid", "seed": 1}
    return PlottedTrial(f"trial {number}", outcome, "", score, values, float(number), 1.0, f"http://127.0.0.1/{number}")


TRIALS = [
    trial(1, 1e-4, 64, 40.0),
    trial(2, 1e-3, 96, 80.0),
    trial(3, 1e-2, 96, 60.0, "pruned"),
    trial(4, 1e-1, 64, None, "failed"),
    PlottedTrial(NASTY, "running", "", None, {}, None, 0.0, "http://127.0.0.1/5"),
]
DATA = SweepData(
    "mine", "folder", "folder-128", "failed", "top-1", TRIALS, Importance({"ppo.lr": 0.9}, "fANOVA", "few"), False
)


def test_settings_are_those_that_differ() -> None:
    assert DATA.settings == ["ppo.lr", "model.patch_size"]
    assert replace(DATA, trials=TRIALS[:1]).settings == []


def test_names_are_data_and_numbers_are_numbers() -> None:
    text = sweep_page(DATA)
    assert NASTY not in text and "\\u003c/script>" in text
    with pytest.raises(ValueError, match="JSON"):
        sweep_page(replace(DATA, trials=[replace(TRIALS[0], score=math.nan)]))


@pytest.mark.slow
def test_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "sweep.html"
    path.write_text(sweep_page(DATA))
    with browser_page() as page:
        page.goto(path.as_uri())
        assert page.title() == "Sweep mine"
        lines = page.locator(".trial")
        assert lines.count() == 4  # the one that is not known has none
        assert page.locator(".trial.pruned").count() == 1 and page.locator(".trial.unscored").count() == 1
        names = page.locator("tbody tr td:first-child")
        assert names.all_inner_texts()[:3] == ["trial 2", "trial 3", "trial 1"]  # by score, the best first
        page.locator("th", has_text="ppo.lr").click()
        assert names.first.inner_text() == "trial 4"
        assert page.locator("tbody a").nth(0).get_attribute("href") == "http://127.0.0.1/4"

        page.locator("tbody tr", has_text="trial 1").hover()
        assert "top-1 40.0" in page.locator("#tip").inner_text()
        assert page.locator(".trial.hot").count() == 1

        axis = page.locator("[data-axis='model.patch_size']")
        axis.scroll_into_view_if_needed()
        box = axis.bounding_box()
        assert box
        middle = box["x"] + box["width"] / 2
        page.mouse.move(middle, box["y"] + 2)
        page.mouse.down()
        page.mouse.move(middle, box["y"] + box["height"] / 2)  # the upper half: patches of 96
        page.mouse.up()
        assert page.locator(".trial.off").count() == 2
        assert set(page.locator("tbody tr:not(.off) td:first-child").all_inner_texts()) == {"trial 2", "trial 3"}
        page.get_by_role("button", name="Show all again").click()
        assert page.locator(".off").count() == 0
        assert "few" in page.locator(".warn").inner_text()


@pytest.mark.slow
def test_a_sweep_without_anything_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "sweep.html"
    path.write_text(sweep_page(replace(DATA, trials=[], importance=Importance({}, "fANOVA", "no trial"))))
    with browser_page() as page:
        page.goto(path.as_uri())
        assert "No trial has a score yet." in page.locator("main").inner_text()
