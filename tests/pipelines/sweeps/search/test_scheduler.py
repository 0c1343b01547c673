"""Which trials go on, by Ray Tune's own scheduler but without running any trial."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from adafocus.config.overrides import override
from pipelines.paths import Places
from pipelines.recipes.cpu import demo
from pipelines.sweeps.plan import make_scheduler
from pipelines.sweeps.search.scheduler import Asha
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep

STOP, GO_ON = TrialScheduler.STOP, TrialScheduler.CONTINUE


def tell(scheduler: Asha, name: str, **result: Any) -> str:
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id=name), result)


def begin(scheduler: Asha, *names: str) -> None:
    for name in names:
        scheduler.on_trial_add(None, SimpleNamespace(trial_id=name))


def test_trials_are_compared_in_one_stage_only() -> None:
    """The third trial is bad outside the judged stage, where it goes on, and then bad inside, where it is stopped."""
    scheduler = Asha(max_epochs=9)
    begin(scheduler, "a", "b", "c")
    for name, score in (("a", 50.0), ("b", 60.0)):
        assert tell(scheduler, name, clock=5, judged_epoch=1, judged_score=score) == GO_ON
    assert tell(scheduler, "c", clock=3, score=0.0) == GO_ON
    assert tell(scheduler, "c", clock=5, judged_epoch=1, judged_score=10.0, score=10.0) == STOP
    assert scheduler.pruned == {"c": 1}
    # Reaching the stage's last epoch is not the end: the next stage follows.
    for epoch in range(2, 10):
        assert tell(scheduler, "b", clock=4 + epoch, judged_epoch=epoch, judged_score=61.0) == GO_ON
    assert tell(scheduler, "b", clock=14, score=1.0) == GO_ON
    scheduler.on_trial_complete(None, SimpleNamespace(trial_id="b"), {"score": 70.0})


def test_rungs_are_at_a_ninth_and_a_third_of_the_stage() -> None:
    scheduler = Asha(max_epochs=50)
    begin(scheduler, "a", "b")
    for epoch in range(1, 51):
        assert tell(scheduler, "a", judged_epoch=epoch, judged_score=90.0) == GO_ON
    decisions = [tell(scheduler, "b", judged_epoch=epoch, judged_score=1.0) for epoch in range(1, 6)]
    assert decisions == [GO_ON] * 4 + [STOP]


def test_what_earlier_trials_reached_is_known_after_a_restart() -> None:
    scheduler = Asha(max_epochs=9)
    scheduler.add_past_trial("x", [(1, 80.0), (2, 81.0), (3, 82.0)])
    scheduler.add_past_trial("pruned", [(1, 2.0)])
    begin(scheduler, "new")
    assert tell(scheduler, "new", judged_epoch=1, judged_score=40.0) == STOP


def sweep(tmp_path: Path, space: Space, **changes: Any) -> Sweep:
    config = override(demo(), {"ppo.epochs": 18})
    return Sweep("s", config, "demo", space, Places.of("/shards", tmp_path), **changes)


def test_the_scheduler_knows_how_long_the_judged_stage_is(tmp_path: Path) -> None:
    assert isinstance(make_scheduler(sweep(tmp_path, Space({"ppo.gamma": [1]}))), FIFOScheduler)
    scheduler = make_scheduler(sweep(tmp_path, Space({"ppo.gamma": [1]}), scheduler="asha"))
    assert isinstance(scheduler, Asha) and scheduler._max_t == 18
    longer = make_scheduler(sweep(tmp_path, Space({"ppo.epochs": [9, 30]}), scheduler="asha"))
    assert isinstance(longer, Asha) and longer._max_t == 30
