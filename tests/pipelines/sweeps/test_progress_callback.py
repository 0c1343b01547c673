"""The rows that a sweep has on a terminal: one for each running trial, gone when it ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from ray import cloudpickle

from adafocus.config.schema import Config
from helpers.terminal import terminal
from pipelines.paths import Places
from pipelines.progress import progress_rows
from pipelines.recipes import find_recipe
from pipelines.sweeps.progress_callback import ProgressCallback
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep


def make_sweep() -> Sweep:
    config: Config = find_recipe("demo")
    return Sweep("s", config, "demo", Space({"ppo.gamma": [0.5, 0.7]}), Places.of("shards", Path("runs")))


def test_rows_on_a_terminal() -> None:
    sweep = make_sweep()
    total = sum(sweep.method.settings(sweep.config, stage).epochs for stage in sweep.method.stage_names)
    trial = SimpleNamespace(trial_id="1", config={"point": {"ppo.gamma": 0.5}})
    with terminal() as shown, progress_rows(stream=shown.stream) as rows:
        callback = ProgressCallback(sweep, rows)
        again = cloudpickle.loads(cloudpickle.dumps(callback))  # as Tune keeps it on disk
        callback.on_trial_start(1, [], trial)
        callback.on_trial_result(1, [], trial, {"clock": total - 1, "score": 81.25, "evaluated": True})
        again.on_trial_result(1, [], trial, {"clock": 1})
        rows.stop()
        callback.on_trial_complete(2, [], trial)
    assert f"gamma=0.5: finetune, epoch {total - 1} of {total}, score 81.2" in shown.text
