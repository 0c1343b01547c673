"""The model registry: one model per recipe, a version per measured checkpoint, an alias on the best.

A score is only comparable on the same clips, so the alias `best` stands for one index digest, the first that the recipe
was measured on (the model's tag `adafocus.best_on`); the best on any other has `best-<first 8 digits of its digest>`.
"""

from __future__ import annotations

from dataclasses import dataclass

from filelock import FileLock

from pipelines.tracking.client import Tracker
from pipelines.tracking.models.logged_model import link_version
from pipelines.tracking.tag_names import LOGGED_MODEL, PREFIX

BEST = "best"
BEST_ON = f"{PREFIX}best_on"
"""Tag of a registered model: digest of the index that `best` stands for."""


def model_name(recipe: str) -> str:
    """Name of a recipe's model in the registry."""
    return f"adafocus-{recipe}"


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A measured checkpoint."""

    recipe: str
    run_id: str
    """Id of the run that holds it among its artifacts."""
    folder: str
    """Where in them."""
    digest: str
    """Of the index it was measured on."""
    metric: str
    score: float
    """Of `metric` on the evaluation split, in percent."""
    about: str
    """Markdown for the version's page."""
    logged_model: str = ""
    """Id of the logged model that it is; empty if it is none."""


def register(tracker: Tracker, model: MeasuredModel) -> str:
    """Register a checkpoint, unless it is registered already, with its score; the best on these clips gets the alias.

    Returns the version's URI, `models:/<name>/<version>`.
    """
    client, name = tracker.client, model_name(model.recipe)
    source = f"{client.get_run(model.run_id).info.artifact_uri}/{model.folder}"
    score_tag = f"{PREFIX}score.{model.digest}"
    with FileLock(tracker.runs / ".mlflow.lock"):  # one at a time looks which version is the best
        if not client.search_registered_models(f"name = '{name}'"):
            tags = {f"{PREFIX}recipe": model.recipe, BEST_ON: model.digest}
            client.create_registered_model(name, tags, f"AdaFocus, recipe `{model.recipe}`: measured checkpoints.")
        versions = list(client.search_model_versions(f"name = '{name}'", max_results=10_000))
        mine = next((each for each in versions if each.run_id == model.run_id and each.source == source), None)
        if mine is None:
            mine = client.create_model_version(name, source, model.run_id, description=model.about)
        if model.logged_model:
            client.set_model_version_tag(name, mine.version, LOGGED_MODEL, model.logged_model)
            link_version(client, model.logged_model, name, int(mine.version))
        client.set_model_version_tag(name, mine.version, f"{PREFIX}metric", model.metric)
        client.set_model_version_tag(name, mine.version, score_tag, repr(model.score))
        scores = {each.version: float(each.tags[score_tag]) for each in versions if score_tag in each.tags}
        scores[mine.version] = model.score
        best = min(scores, key=lambda version: (-scores[version], int(version)))  # of equals the older one keeps it
        first = client.get_registered_model(name).tags[BEST_ON]
        client.set_registered_model_alias(name, BEST if first == model.digest else f"{BEST}-{model.digest[:8]}", best)
    return f"models:/{name}/{mine.version}"
