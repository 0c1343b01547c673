"""The state of one stage's training: model, optimizer, where it stands, and a copy of them on disk.

Randomness is reseeded for every step from (seed, stage, epoch, step), so that a run which was killed and started again
ends with the same bits as one that was not.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from adafocus import checkpoint, distributed
from adafocus.config.schema import Config, TrainingConfig
from adafocus.data.clip_table import evaluation_split
from adafocus.data.loader import ClipLoader
from adafocus.data.training_reader import training_loader
from adafocus.devices import colours_last, pick_device, use_deterministic_kernels
from adafocus.divergence import DivergedError
from adafocus.evaluation.evaluate import PatchSource, evaluate
from adafocus.methods import build_model, method_of
from adafocus.methods.identity import stage_folder
from adafocus.models.adafocus import AdaFocus
from adafocus.stages.stage import Stage
from adafocus.training.loss_watch import LossWatch
from adafocus.training.reports import EpochReport, Options, Report, StepReport, Watch
from adafocus.training.schedules import lr_factor, scaling_line
from adafocus.training.seeding import seed_step
from adafocus.training.update import Updater
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

WHOLE_FRAMES: dict[str, PatchSource] = {"val_glancer": "glancer", "val_focuser": "whole"}
"""What pretraining evaluates: both networks on their own."""


@dataclass
class Progress:
    """Where a run stands; what is saved beside weights and optimizer."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    processor_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class StageTrainer:
    """The state of one stage's training."""

    def __init__(
        self,
        name: str,
        config: Config,
        shards: str,
        runs: Path,
        folder: Path,
        version: str,
        options: Options,
        report: Report,
        watch: Watch | None = None,
    ) -> None:
        self.name, self.config, self.options, self.report, self.watch = name, config, options, report, watch
        self.method = method_of(config)
        self.folder, self.partial = folder, folder.with_suffix(".partial")
        if options.deterministic:
            use_deterministic_kernels()
        self.device = pick_device(options.device)
        self.settings = self.method.settings(config, name)
        workers = distributed.world_size() * self.settings.accumulate
        if self.settings.batch_size % workers:
            raise UserError(
                f"{name}.batch_size is {self.settings.batch_size}, which {distributed.world_size()} workers with "
                f"{name}.accumulate={self.settings.accumulate} cannot share evenly"
            )
        self.shards = shards
        share: dict[str, Any] = dict(seed=config.seed, rank=distributed.rank(), world_size=distributed.world_size())
        share |= dict(batch_size=self.settings.batch_size // workers, num_workers=options.num_workers)
        self.loader = training_loader(shards, config.data, accumulate=self.settings.accumulate, **share)
        self.val_loader = ClipLoader(shards, evaluation_split(shards), config.data, train=False, **share)
        self.info = self.loader.info
        seed_step(config.seed, name, 0, 0)
        before = self.method.before(name)
        model = build_model(config, self.info.num_classes, pretrained=before is None)
        self.before: list[str] = []  # folders of the stages that it starts from
        if before is not None:
            start = stage_folder(before, config, runs, version)
            self.before = distributed.ask_first(lambda: self._start_from(start, model))
        model = model.to(self.device)
        distributed.share(model.state_dict().values())
        colours_last(model)
        self.stage: Stage = self.method.stage(name)(model, config)
        self.stage.global_clips = self.loader.global_clips
        self.stage.check_batch(self.loader.global_clips // workers)
        if isinstance(self.settings, TrainingConfig) and self.settings.logit_adjustment:
            shares = self.loader.class_shares()
            self.stage.class_shares_K = torch.tensor(shares, dtype=torch.float32, device=self.device)
        self.optimizer = self.stage.optimizer()
        if isinstance(self.settings, TrainingConfig) and self.settings.lr_batch_size and distributed.rank() == 0:
            log.info("%s", scaling_line(name, self.settings))
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.settings.precision == "fp16")
        self.progress = Progress()
        self._resume()
        wrapped = distributed.wrap(self.stage)
        self.updater = Updater(self.stage, self.optimizer, self.scaler, self.device, wrapped=wrapped)

    def _start_from(self, start: Path, model: AdaFocus) -> list[str]:
        """Fill `model` with the result of the stage before; the folders of all stages before."""
        if not (start / checkpoint.META).exists():
            raise UserError(f"{start} is missing: stage {self.name} starts from it")
        return checkpoint.load_weights(model, start).stages or [start.name]

    def train(self) -> None:
        """Run the remaining epochs and commit the result. A stage of no epochs is evaluated as it begins, so that every
        finished stage has a score."""
        for past in self.progress.history:
            self.report(EpochReport(**past))
        if not self.settings.epochs and not self.progress.history:
            self._add_row(self._evaluate())
        while self.progress.epoch < self.settings.epochs:
            metrics = self._train_epoch()
            self._save()  # evaluation may be long: a run killed in it need not train this epoch again
            epoch = self.progress.epoch = self.progress.epoch + 1
            self.progress.step, self.progress.sums = 0, {}
            if epoch % self.options.eval_every == 0 or epoch == self.settings.epochs:
                metrics |= self._evaluate()
            self._add_row(metrics)
        self._check_weights()
        if distributed.rank() == 0:
            self._commit()
        distributed.barrier()

    def _add_row(self, metrics: dict[str, float]) -> None:
        """Keep and report the metrics of the epoch that has just ended."""
        row = EpochReport(
            stage=self.name,
            clock=self.method.first_epoch(self.config, self.name) + self.progress.epoch,
            metrics={f"{self.name}/{key}": value for key, value in metrics.items()},
            time_ms=int(time.time() * 1000),
        )
        self.progress.history.append(asdict(row))
        self._save()
        self.report(row)

    def _train_epoch(self) -> dict[str, float]:
        progress, started, processor_started = self.progress, time.monotonic(), time.process_time()
        accumulate = self.settings.accumulate
        self.loader.set_epoch(progress.epoch)
        self.loader.skip(progress.step * accumulate)
        steps = len(self.loader) // accumulate
        watch, saved_at = LossWatch(), time.monotonic()
        sums = {key: torch.tensor(value, device=self.device) for key, value in progress.sums.items()}
        self.stage.train()
        batches = iter(self.loader)
        for step in range(progress.step, steps):
            seed_step(self.config.seed, self.name, progress.epoch, step, self.stage.draws)
            self._set_lr(progress.epoch, step / steps)
            logs = self.updater.step(batches, watch)
            for key, value in logs.items():
                sums[key] = sums[key] + value if key in sums else value
            progress.step = step + 1
            self._tell("training", progress.epoch + 1, step + 1, steps, self.loader.global_clips, logs["loss"])
            # Several workers ask each other only where they have just compared their losses anyway.
            if (distributed.world_size() == 1 or not watch.steps) and distributed.agree(
                time.monotonic() - saved_at > self.options.save_every_s
            ):
                watch.check()
                progress.sums = self._shared(sums)
                self._save()
                saved_at = time.monotonic()
        watch.check()
        progress.sums = self._shared(sums)
        progress.seconds += time.monotonic() - started
        progress.processor_seconds += time.process_time() - processor_started
        return {key: value / steps for key, value in progress.sums.items()} | {
            "seconds": time.monotonic() - started,
            "lr": self.optimizer.param_groups[0]["lr"],
        }

    @staticmethod
    def _shared(sums: dict[str, Tensor]) -> dict[str, float]:
        """Means over the workers, so that each of them may go on from rank 0's state."""
        return {key: (distributed.total(value) / distributed.world_size()).item() for key, value in sums.items()}

    def _set_lr(self, epoch: int, fraction: float) -> None:
        settings = self.settings
        for number, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            if isinstance(settings, TrainingConfig):
                group["lr"] = base * lr_factor(settings, epoch, fraction)
            else:
                group["lr"] = base * self.stage.lr_factor(number, (epoch + fraction) / settings.epochs)

    def _evaluate(self) -> dict[str, float]:
        seed_step(self.config.seed, self.name, self.progress.epoch, -1)
        distributed.share(self.stage.model.buffers())  # of batch norms: each worker's own since the last step
        with self.updater.autocast():
            metrics: dict[str, float] = self.stage.settle(lambda: self.training_clips)
            sources: dict[str, PatchSource] = {"val": self.stage.patches} if self.stage.patches else WHOLE_FRAMES
            for prefix, source in sources.items():
                result = evaluate(
                    self.stage.model, self.val_loader, patches=source, seed=self.config.seed, watch=self._evaluated
                )
                metrics |= {f"{prefix}_{key}": value for key, value in result.metrics().items()}
                metric = self.info.metric
                metrics |= {f"{prefix}_{metric}_t{t:02d}": at[metric] for t, at in enumerate(result.online(), start=1)}
        return metrics

    @cached_property
    def training_clips(self) -> ClipLoader:
        """This worker's share of the training split, as an evaluation sees it."""
        batch_size, rank, workers = self.val_loader.batch_size, distributed.rank(), distributed.world_size()
        share: dict[str, Any] = dict(train=False, rank=rank, world_size=workers, num_workers=self.options.num_workers)
        return ClipLoader(self.shards, "train", self.config.data, batch_size=batch_size, **share)

    def _evaluated(self, batch: int, batches: int, clips: int) -> None:
        self._tell("evaluation", self.progress.epoch, batch, batches, clips * distributed.world_size())

    def _tell(
        self,
        doing: Literal["training", "evaluation"],
        epoch: int,
        step: int,
        steps: int,
        clips: int,
        loss: Tensor | None = None,
    ) -> None:
        """Tell whoever watches where the stage stands."""
        if self.watch is not None:
            self.watch(StepReport(self.name, epoch, self.settings.epochs, doing, step, steps, clips, loss))

    def _check_weights(self) -> None:
        """Raise DivergedError, on all workers, if a weight is NaN or infinite: no loss was computed after the last
        step."""
        values = [value for value in self.stage.model.state_dict().values() if value.is_floating_point()]
        finite = torch.stack([value.isfinite().all() for value in values]).all()
        if not distributed.agree(finite.item()):
            raise DivergedError(f"weights are NaN or infinite after the last epoch of stage {self.name}")

    def _save(self) -> None:
        if distributed.rank() == 0:
            checkpoint.save_state(
                self.partial,
                {
                    "model": self.stage.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "progress": asdict(self.progress),
                },
            )

    def _resume(self) -> None:
        state = distributed.ask_first(lambda: checkpoint.load_state(self.partial))
        if state:
            self.stage.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.progress = Progress(**state["progress"])
            log.info("%s goes on from epoch %d, step %d", self.name, self.progress.epoch, self.progress.step)

    def _commit(self) -> None:
        meta = checkpoint.Meta.describe(
            self.config,
            stage=self.name,
            key=self.folder.name.removeprefix(f"{self.name}-"),
            digest=self.loader.digest,
            stages=[*self.before, self.folder.name],
            info=self.info,
            extraction=self.loader.spec,
            history=self.progress.history,
            seconds=self.progress.seconds,
            processor_seconds=self.progress.processor_seconds,
        )
        checkpoint.save(self.folder, self.stage.model, meta)
        shutil.rmtree(self.partial, ignore_errors=True)
