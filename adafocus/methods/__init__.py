"""The methods that there are: a name and one line each; `Config.method` chooses."""

from __future__ import annotations

import difflib

from adafocus.config.schema import Config
from adafocus.config.validation import check as check_settings
from adafocus.methods.adafocus import ADAFOCUS
from adafocus.methods.adafocus_plus import ADAFOCUS_PLUS
from adafocus.methods.adafocus_v2 import ADAFOCUS_V2
from adafocus.methods.method import Method
from adafocus.methods.uni_adafocus import UNI_ADAFOCUS
from adafocus.models.adafocus import AdaFocus
from preprocessing.schema import UserError

METHODS: dict[str, Method] = {
    "adafocus": ADAFOCUS,
    "adafocus-plus": ADAFOCUS_PLUS,
    "adafocus-v2": ADAFOCUS_V2,
    "uni-adafocus": UNI_ADAFOCUS,
}


def find_method(name: str) -> Method:
    """The method of this name. Raises UserError for an unknown one, naming the nearest."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.0)[0]
        raise UserError(f"unknown method {name!r}; the nearest known one is {near!r}")
    return METHODS[name]


def method_of(config: Config) -> Method:
    """The method that a configuration is of."""
    return find_method(config.method)


def check(config: Config) -> Config:
    """The same configuration. Raises UserError, one line, for an unknown method and settings that do not fit."""
    _check_candidates(config)
    return check_settings(config)


def build_model(config: Config, num_classes: int, *, pretrained: bool = True) -> AdaFocus:
    """The model of a configuration; `pretrained` False ignores the configured initial weights.

    Raises UserError for settings and weights that do not fit together.
    """
    _check_candidates(config)
    return method_of(config).build(config, num_classes, pretrained=pretrained)


def _check_candidates(config: Config) -> None:
    """Raises UserError unless frames are chosen where the method chooses, and nowhere else."""
    chooses, count = method_of(config).chooses_frames, config.data.num_candidates
    if chooses and not count:
        raise UserError(
            f"method {config.method} chooses frames, but data.num_candidates is 0: set it to how many it chooses among"
        )
    if count and not chooses:
        raise UserError(f"data.num_candidates is {count}, but method {config.method} chooses no frames: set it to 0")


def part_names() -> tuple[str, ...]:
    """Names of the parts of all methods' models, each once, in the order in which they run."""
    longest = max((method.parts for method in METHODS.values()), key=len)
    return tuple(dict.fromkeys([*longest, *(part for method in METHODS.values() for part in method.parts)]))


def stage_names() -> tuple[str, ...]:
    """Names of the stages of all methods, each once, in order."""
    return tuple(dict.fromkeys(name for method in METHODS.values() for name in method.stage_names))
