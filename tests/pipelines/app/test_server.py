"""The page in a real browser: a video is dropped on it, an example chosen, a budget set; nothing else gets in."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from adafocus.training.calibrate import calibrate
from adafocus.training.reports import Options
from helpers.browser import browser_page
from pipelines.app.answer import ShownModel
from pipelines.app.examples import find_examples
from pipelines.app.server import MOST_UPLOADS, serving
from pipelines.serving.predict import AdaFocusPredictor
from preprocessing.schema import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def models(checkpoints: dict[str, Path], synthetic_shards: str, tmp_path: Path) -> list[ShownModel]:
    folder = tmp_path / "joint-copy"
    shutil.copytree(checkpoints["second"], folder)
    calibrate(folder, synthetic_shards, Options(device="cpu"))
    return [
        ShownModel(name, AdaFocusPredictor(place, device="cpu", shards=synthetic_shards))
        for name, place in (("second <b>", folder), ("first", checkpoints["frame"]))
    ]


def test_in_a_browser(
    models: list[ShownModel], synthetic_shards: str, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="no Gradio: `make test-browser` installs it")
    video, script, large = make_video(tmp_path / "video.mp4", count=20), tmp_path / "run.sh", tmp_path / "large.mp4"
    script.write_text("#!/bin/sh\n")
    large.write_bytes(bytes(3_000_000))
    examples = find_examples(synthetic_shards)
    stops = ["stopped after" in models[0].answer(each, 5).summary for each in examples].index(True)
    with (
        serving(models, examples, host="127.0.0.1", port=7893, max_mb=2) as address,
        browser_page(1400, 1400) as page,
    ):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        frames = page.locator("iframe")
        page.set_input_files("input[type=file]", video)
        frames.nth(1).wait_for()
        first = page.frame_locator("iframe >> nth=0")
        assert "video.mp4" in first.locator(".name").inner_text()
        assert first.locator("input[type=range]").get_attribute("max") == "3"  # four frames
        before = first.locator(".views rect[stroke='#40de6a']").get_attribute("x")
        first.locator("input[type=range]").fill("0")
        assert "after 1 of 4" in first.locator(".view.first p").inner_text()
        assert first.locator(".parts span").count() >= 3 and before is not None
        heading = page.locator("h3").first
        assert heading.inner_text() == "second <b>"
        page.wait_for_function("document.querySelector('.answer iframe').style.height != ''")

        page.get_by_role("listbox").or_(page.get_by_label("or an example")).first.click()
        page.get_by_role("option").nth(stops).click()
        page.wait_for_function(
            "truth => [...document.querySelectorAll('iframe')].every(each => each.srcdoc.includes(truth))",
            arg=Path(examples[stops].title.rstrip(")")).name,
        )
        page.locator("#budget input[type=number]").fill("5")
        page.get_by_role("button", name="Predict").click()
        page.locator(".cost", has_text="stopped after").first.wait_for()
        assert int(str(page.frame_locator("iframe >> nth=0").locator("input[type=range]").get_attribute("max"))) < 3

        page.set_input_files("input[type=file]", script)
        page.get_by_text("Invalid file type").first.wait_for()
        page.set_input_files("input[type=file]", large)
        page.get_by_text("exceed the maximum").first.wait_for()
        assert all(url.startswith((address, "data:", "blob:", "about:")) for url in asked), "it asks somebody else"


def test_without_a_browser_and_so_without_its_checks(models: list[ShownModel]) -> None:
    pytest.importorskip("gradio", reason="no Gradio: `make test-browser` installs it")
    where = {"host": "127.0.0.1", "port": 7894, "max_mb": 1}
    with serving(models, [], **where) as address:

        def post(size: int) -> int:
            files = {"files": ("clip.mp4", random.randbytes(size))}  # equal ones are kept once
            return requests.post(f"{address}gradio_api/upload", files=files).status_code

        assert post(1_500_000) == 413
        assert requests.get(f"{address}gradio_api/file=/etc/hostname").status_code == 403
        statuses = [post(900_000) for _ in range(MOST_UPLOADS + 3)]
        assert statuses[:MOST_UPLOADS] == [200] * MOST_UPLOADS and statuses[-1] == 507, "there is room for so many"
        with pytest.raises(UserError, match="port 7894"), serving(models, [], **where):
            pass
