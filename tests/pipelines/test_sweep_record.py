"""What a sweep is: its record on disk, what makes it the same one, and which combinations make no sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adafocus.config import override
from adafocus.stages.trainer import Options
from pipelines.recipes import activitynet_128, demo
from pipelines.space import Space
from pipelines.sweep import Machines, Sweep, continued, default_name, load_sweep
from pipelines.train import Places
from preprocessing.schema import UserError

GRID = Space({"ppo.gamma": [0.5, 0.7]})
DRAWN = Space({}, {"ppo.lr": ("loguniform", [1e-5, 1e-3]), "model.patch_size": ("choice", ["32", "44"])})


def make(runs: Path, space: Space = GRID, **changes: Any) -> Sweep:
    return replace(Sweep("s", demo(), "demo", space, Places.of("/shards", runs)), **changes)


@pytest.mark.parametrize("space", [GRID, DRAWN])
def test_a_record_is_read_back_as_it_was(space: Space, tmp_path: Path) -> None:
    sweep = make(
        tmp_path,
        space,
        config=override(activitynet_128(), {"data.crop_scales": (1.0, 0.9), "seed": 3}),
        scheduler="asha",
        num_samples=7,
        machines=Machines(workers_per_trial=2, gpus_per_worker=0.5, ray_address="auto"),
        options=Options(device="cpu", num_workers=2),
    )
    sweep.save()
    assert load_sweep(tmp_path, "s") == sweep


def test_the_record_holds_no_tracking_server(tmp_path: Path) -> None:
    """Its address may hold a password."""
    sweep = make(tmp_path, places=Places.of("/shards", tmp_path, "postgresql://user:secret@host/db"))
    sweep.save()
    assert "secret" not in sweep.path.read_text()


def test_the_same_command_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    first = make(tmp_path)
    assert continued(first) is first
    first.save()
    later = make(tmp_path, started_ms=first.started_ms + 1000, num_samples=1, machines=Machines(max_concurrent=3))
    assert continued(later) == replace(later, started_ms=first.started_ms)
    with pytest.raises(UserError, match=r"there is another sweep 's' \(its space differ\)"):
        continued(make(tmp_path, DRAWN))
    with pytest.raises(UserError, match=r"\(its config, scheduler differ\)"):
        continued(make(tmp_path, config=activitynet_128(), scheduler="asha"))


def test_a_name_is_made_of_what_is_tried(tmp_path: Path) -> None:
    names = {default_name(make(tmp_path, space)) for space in (GRID, DRAWN, GRID)}
    assert len(names) == 2 and all(name.startswith("demo-") for name in names)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "/abs"])
def test_a_name_that_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no name for a sweep"):
        load_sweep(tmp_path, name)


def test_a_sweep_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    make(tmp_path).save()
    with pytest.raises(UserError, match=r"there is no sweep 'x' in .*; known: s"):
        load_sweep(tmp_path, "x")
    (tmp_path / "sweeps" / "x.json").write_text('{"name": 3}')
    with pytest.raises(UserError, match="is no sweep's record"):
        load_sweep(tmp_path, "x")


def test_stages_that_are_shared_and_the_one_in_which_trials_are_compared(tmp_path: Path) -> None:
    def stages(*keys: str) -> tuple[tuple[str, ...], str]:
        sweep = make(tmp_path, Space({key: [0] for key in keys}))
        return sweep.shared, sweep.judged

    assert stages("ppo.gamma") == (("pretrain", "warmup"), "ppo")
    assert stages("finetune.head_lr", "ppo.lr") == (("pretrain", "warmup"), "ppo")
    assert stages("finetune.head_lr") == (("pretrain", "warmup", "ppo"), "finetune")
    assert stages("seed") == ((), "pretrain")
    assert stages() == (("pretrain", "warmup", "ppo", "finetune"), "finetune")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": GRID, "search": "optuna"}, "use --sample ppo.gamma=choice:0.5:0.7"),
        ({"space": Space(), "search": "optuna"}, "has nothing to draw"),
        ({"space": GRID, "num_samples": 2}, "without --sample would repeat the same trials"),
        ({"space": Space(), "scheduler": "asha"}, "compares trials, and there is only one"),
        ({"num_samples": 0}, "have to be 1 or more"),
        ({"machines": Machines(workers_per_trial=0)}, "have to be 1 or more"),
        ({"space": Space({"ppo.lr": [1]}, {"ppo.lr": ("uniform", [0, 1])})}, "in the grid and drawn too"),
    ],
)
def test_combinations_that_make_no_sense(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        make(tmp_path, **changes).check()
    assert "\n" not in str(raised.value)
