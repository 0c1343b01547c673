"""What a method is: how its model is built, and the stages that train it, in order.

Which parts are frozen, which results a stage starts from, what names a result and what may be predicted after which
stage all follow from what the stages say of themselves (`Stage.trains`, `Stage.reads`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adafocus.config.schema import Config, ReinforcementConfig, TrainingConfig
from adafocus.models.adafocus import AdaFocus
from adafocus.stages.stage import Stage
from preprocessing.schema import UserError

READY = ("glancer", "focuser", "gate")
"""Parts that are of use before any stage has trained them: networks start from weights of another task, and a gate
that has learnt nothing skips nothing."""


@dataclass(frozen=True, slots=True)
class Method:
    """One line of `adafocus.methods.METHODS`."""

    title: str
    """As people write it."""
    build: Callable[..., AdaFocus]
    """`build(config, num_classes, pretrained=True)` makes the model."""
    parts: tuple[str, ...]
    """Names of the model's parts, in the order in which they run."""
    stages: tuple[type[Stage], ...]
    """In the order in which they run; each starts from the result of the one before."""
    chooses_frames: bool = False
    """Does it choose the focuser's frames among `data.num_candidates`?"""

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return tuple(stage.name for stage in self.stages)

    @property
    def last(self) -> str:
        """The stage whose result is the finished model."""
        return self.stages[-1].name

    def stage(self, name: str) -> type[Stage]:
        """The stage of this name. Raises UserError for one that the method has not."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise UserError(f"{name!r} is none of the stages {', '.join(self.stage_names)}")

    def through(self, name: str) -> tuple[type[Stage], ...]:
        """The stages up to this one, with it."""
        return self.stages[: self.stages.index(self.stage(name)) + 1]

    def before(self, name: str) -> str | None:
        """The stage whose result this one starts from; None for the first."""
        earlier = self.through(name)[:-1]
        return earlier[-1].name if earlier else None

    def trained(self, name: str) -> tuple[str, ...]:
        """Parts that have been trained once this stage has finished."""
        learnt = {part for stage in self.through(name) for part in stage.trains}
        return tuple(part for part in self.parts if part in learnt)

    def untrained(self, name: str) -> tuple[str, ...]:
        """Parts that still hold initial weights then."""
        return tuple(part for part in self.parts if part not in self.trained(name))

    def needs(self, patches: str) -> tuple[str, ...]:
        """Parts that have to be trained for a prediction with these patches."""
        if patches not in ("policy", "random", "centre", "oracle"):
            return ()  # a network alone
        return tuple(part for part in self.parts if part not in READY and (part != "policy" or patches == "policy"))

    def lacking(self, name: str, patches: str) -> list[str]:
        """Parts that such a prediction needs and that are not trained once this stage has finished."""
        return [part for part in self.needs(patches) if part in self.untrained(name)]

    def suited(self, patches: str) -> list[str]:
        """Stages after which such a prediction is possible."""
        return [name for name in self.stage_names if not self.lacking(name, patches)]

    def settings(self, config: Config, name: str) -> TrainingConfig | ReinforcementConfig:
        """A stage's own part of the configuration."""
        settings: TrainingConfig | ReinforcementConfig = getattr(config, self.stage(name).name)
        return settings

    def first_epoch(self, config: Config, name: str) -> int:
        """Epochs of the stages before this one: the clock that every report carries runs through all stages."""
        return sum(self.settings(config, stage.name).epochs for stage in self.through(name)[:-1])
