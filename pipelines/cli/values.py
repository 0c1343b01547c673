"""What the values of options stand for: a configuration, the options of a training. Bad values raise UserError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preprocessing.schema import UserError

if TYPE_CHECKING:
    from adafocus.config.schema import Config
    from adafocus.training.reports import Options


def exactly_one(**values: object) -> None:
    """Raise UserError unless exactly one of these options was given."""
    if sum(value is not None for value in values.values()) != 1:
        *names, last = (f"--{name}" for name in values)
        raise UserError(f"give exactly one of {', '.join(names)} and {last}")


def read_config(recipe: str, changes: list[str] | None, scale_lr: bool) -> Config:
    """The configuration of a recipe with the changes of --set."""
    from adafocus.config.overrides import override
    from adafocus.methods import check
    from pipelines.paths import absolute_setting
    from pipelines.recipes import find_recipe
    from pipelines.recipes.learning_rates import scale_rates

    pairs = {}
    for change in changes or []:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--set {change!r} is not of the form key=value")
        pairs[key] = absolute_setting(key, value)
    config = check(override(find_recipe(recipe), pairs))
    return scale_rates(config, find_recipe(recipe)) if scale_lr else config


def training_options(
    device: str, num_workers: int, eval_every: int = 1, save_every: float = 300, deterministic: bool = False
) -> Options:
    """The options of a training that change no result."""
    from adafocus.training.reports import Options

    return Options(device, num_workers, eval_every, save_every_s=save_every, deterministic=deterministic)
