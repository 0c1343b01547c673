"""Places that a process with another working folder finds too."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.cli.values import read_config
from pipelines.paths import Places
from pipelines.recipes.cpu import demo
from pipelines.sweeps.search.space_text import parse_space


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        (None, "sqlite:///{}/runs/mlflow.db"),
        ("sqlite:///own/mlflow.db", "sqlite:///{}/own/mlflow.db"),
        ("sqlite:////own/mlflow.db", "sqlite:////own/mlflow.db"),
        ("sqlite:///file:/own/mlflow.db?uri=true", "sqlite:///file:/own/mlflow.db?uri=true"),
        ("mlruns", "{}/mlruns"),
        ("http://host:5000", "http://host:5000"),
        ("databricks", "databricks"),
    ],
)
def test_all_paths_become_absolute(
    uri: str | None, absolute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = Places.of("shards", Path("runs"), uri)
    assert (places.shards, places.runs) == (str(tmp_path / "shards"), tmp_path / "runs")
    assert places.tracking_uri == absolute.format(tmp_path)
    assert Places.of("s3://bucket/a", Path("runs")).shards == "s3://bucket/a"
    assert Places.of("", Path("runs")).shards == ""


def test_files_of_weights_become_absolute_wherever_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key, path = "model.glancer_weights", str(tmp_path / "w.pth")
    assert read_config("demo", [f"{key}=w.pth"], scale_lr=False).model.glancer_weights == path
    assert read_config("demo", [f"{key}=none"], scale_lr=False).model.glancer_weights == "none"
    space = parse_space(demo(), [f"{key}=none,w.pth"], ["model.focuser_weights=choice:imagenet:w.pth"])
    assert space.grid == {key: ["none", path]}
    assert space.sample == {"model.focuser_weights": ("choice", ["imagenet", path])}
    file = tmp_path / "space.yaml"
    file.write_text(f"grid:\n  {key}: [none, w.pth]\n  ppo.gamma: [0.5]\n")
    assert parse_space(demo(), [], [], file).grid == {key: ["none", path], "ppo.gamma": [0.5]}
