"""Ray Tune's callback that shows a row for every trial that is running, on a terminal."""

from __future__ import annotations

from typing import Any

from ray import tune

from adafocus.config.overrides import override
from pipelines.progress import Rows
from pipelines.sweeps.outcome_callback import point_of
from pipelines.sweeps.search.space import show_point
from pipelines.sweeps.sweep import Sweep


class ProgressCallback(tune.Callback):
    """Shows how far each trial is, and its newest score. In a log the trials say so themselves."""

    def __init__(self, sweep: Sweep, rows: Rows) -> None:
        self.sweep, self.rows = sweep, rows

    def __getstate__(self) -> dict[str, Any]:
        """What Tune keeps of it on disk: all but the terminal."""
        return {"sweep": self.sweep, "rows": Rows(None)}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Add the trial's row."""
        self._show(trial, {})

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show the epoch that has ended."""
        self._show(trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remove the row."""
        self.rows.remove(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remove the row."""
        self.rows.remove(trial.trial_id)

    def _show(self, trial: Any, result: dict[str, Any]) -> None:
        point, clock = point_of(trial.config), int(result.get("clock", 0))
        config, method = override(self.sweep.config, point), self.sweep.method
        total = method.first_epoch(config, method.last) + method.settings(config, method.last).epochs
        stages = [name for name in method.stage_names if method.first_epoch(config, name) < max(clock, 1)]
        score = f", score {result['score']:.1f}" if result.get("evaluated") else ""
        where = f"{stages[-1] if stages else method.last}, epoch {clock} of {total}{score}"
        self.rows.show(trial.trial_id, clock, total, f"{show_point(point) or 'trial'}: {where}")
