"""What is logged of a trial beside its metrics: its configuration and data before it starts, its model when it ends."""

from __future__ import annotations

import tempfile
from pathlib import Path

from adafocus import checkpoint
from adafocus.checkpoint import Meta
from adafocus.config.overrides import flatten
from adafocus.config.schema import Config
from adafocus.data.clip_table import evaluation_split
from adafocus.devices import device_name
from adafocus.methods.identity import stage_folders
from pipelines.paths import Places
from pipelines.tracking.metric_names import IN_WORDS, SCORES
from pipelines.tracking.models.logged_model import log_checkpoint, log_scores
from pipelines.tracking.run import Run
from preprocessing.shards.index import read_metadata

MODEL = "model"
"""Folder of a run's artifacts that holds weights and meta.json."""


def log_setup(run: Run, config: Config, places: Places, recipe: str, device: str = "auto") -> None:
    """Log configuration, device, data set and the folders of the stages, before a trial starts."""
    dataset = read_metadata(places.shards)
    run.log_params({**flatten(config), "recipe": recipe, "device": device_name(device)})
    run.set_stages(stage_folders(config, places.runs, dataset.version))
    run.log_dataset(dataset.info.name, dataset.digest, places.shards)


def log_result(run: Run, folder: Path, places: Places) -> None:
    """Log the model of a finished trial, with a chart of the reward and a picture of where the model looks."""
    from pipelines.visualize.patch_strips import save_strips  # here, for Matplotlib would delay the first epoch

    run.log_artifact(folder, MODEL)
    with tempfile.TemporaryDirectory() as temporary:
        strips = Path(temporary) / "patches.png"
        save_strips(folder, places.shards, strips)
        run.log_artifact(strips)
    _log_rewards(run)
    meta = checkpoint.read_meta(folder)
    run.set_result(folder, meta.digest, meta.info["metric"])
    run.add_to_description(trial_note(meta, run.param("recipe"), evaluation_split(places.shards)))
    _log_model(run, folder, meta, places)


def trial_note(meta: Meta, recipe: str, split: str) -> str:
    """The description of a finished trial's run, as Markdown."""
    stages = ", ".join(meta.method.stage_names[: meta.method.stage_names.index(meta.stage) + 1])
    metric = meta.info["metric"]
    score = meta.metrics.get(f"{meta.stage}/val_{metric}")
    reached = "" if score is None else f" It reached {IN_WORDS[metric]} {score:.1f} on split {split}."
    return f"Recipe `{recipe}` ({meta.method.title}) on {meta.info['name']}, trained through {stages}.{reached}"


def _log_model(run: Run, folder: Path, meta: Meta, places: Places) -> None:
    """Log the checkpoint as a model of MLflow, with what it reached in the last evaluation of its training."""
    params = {"method": meta.method.title, "stage": meta.stage, "classes": str(len(meta.class_names)), "key": meta.key}
    model = log_checkpoint(run, run.param("recipe"), folder / checkpoint.META, params, MODEL)
    split, last = evaluation_split(places.shards), f"{meta.stage}/val_"
    shown = {f"{last}{name}": f"{split}_{name}" for name in SCORES}
    reached = {shown[name]: value for name, value in meta.metrics.items() if name in shown}
    log_scores(run, model, reached, meta.info["name"], meta.digest)


def _log_rewards(run: Run) -> None:
    """Log a chart of the policy's reward, if the trial has logged any."""
    rewards = run.curve("ppo/reward")
    if rewards:
        from pipelines.visualize.charts.result_charts import reward_chart

        by_time: dict[int, list[float]] = {step: [] for step in rewards}
        for name in sorted(name for name in run.metric_names() if name.startswith("ppo/reward_t")):
            for step, value in run.curve(name).items():
                by_time[step].append(value)
        chart = reward_chart(list(rewards), list(rewards.values()), by_time)
        run.client.log_figure(run.run_id, chart, "reward.png")
