"""The model registry: the alias stands for the best on the same clips."""

from __future__ import annotations

from pathlib import Path

from pipelines.tracking.client import Tracker
from pipelines.tracking.models import registry
from pipelines.tracking.models.registry import MeasuredModel


def test_best_is_the_best_on_the_same_clips(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{}")

    def measure(trial: str, digest: str, score: float) -> str:
        run = tracker.run("d", "trial", trial, trial=trial)
        run.log_artifact(tmp_path, "model")
        return registry.register(tracker, MeasuredModel("demo", run.run_id, "model", digest, "top1", score, "about"))

    def aliases() -> dict[str, str]:
        found = tracker.client.get_registered_model("adafocus-demo").aliases
        return {alias: str(version) for alias, version in found.items()}

    assert measure("a", "1" * 16, 70.0) == "models:/adafocus-demo/1" and aliases() == {"best": "1"}
    assert measure("b", "1" * 16, 60.0) == "models:/adafocus-demo/2" and aliases() == {"best": "1"}
    measure("c", "1" * 16, 70.0)
    assert aliases() == {"best": "1"}  # of equals the older one
    measure("d", "2" * 16, 99.0)  # other clips: easier ones, for all we know
    assert aliases() == {"best": "1", "best-22222222": "4"}
    assert measure("b", "1" * 16, 80.0) == "models:/adafocus-demo/2"  # measured again: no new version
    assert aliases() == {"best": "2", "best-22222222": "4"}
    measure("b", "2" * 16, 100.0)  # one version may be measured on several data sets
    assert aliases() == {"best": "2", "best-22222222": "2"}
    measure("b", "1" * 16, 50.0)
    assert aliases() == {"best": "1", "best-22222222": "2"}
    place = tracker.client.get_model_version_download_uri("adafocus-demo", "1")
    assert Path(tracker.client.download_artifacts(tracker.find("trial", trial="a")[0].info.run_id, "model")).exists()
    assert place.endswith("/artifacts/model")
