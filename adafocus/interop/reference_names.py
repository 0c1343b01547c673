"""Names of tensors in the authors' files: ours in, theirs out, and tables of both for every part of a model.

Two layouts, one for long videos and one for networks with temporal shift (Something-Something), and that of the
Temporal Shift Module, whose networks the latter start from.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from adafocus.config.schema import Config
from adafocus.methods import method_of
from adafocus.models.adafocus import AdaFocus
from preprocessing.schema import UserError

Rename = Callable[[str], str | None]
"""Our name of a tensor -> theirs; None where they keep none."""

THEIR_PART = {"glancer": "glancer", "focuser": "focuser", "policy": "policy", "classifier": "fc"}
POLICY_COPIES = ("policy.policy.", "policy.policy_old.")
"""In the layout for long videos the focuser's table holds the policy twice more."""


def _glancer_plain(name: str) -> str:
    return "net." + name.replace("body.", "features.", 1).replace("last.", "classifier.", 1)


def _focuser_plain(name: str) -> str:
    return "net." + name.replace("body.", "", 1).replace("last.1.", "fc.", 1)


_FIRST_BLOCK = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"}
_BLOCK = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}


def _glancer_shifted(name: str) -> str:
    """Their MobileNetV2 numbers the layers of a block straight through; ours nests convolution, norm, activation."""
    name = name.replace("last.1.", "classifier.", 1).replace(".layer.", ".net.").replace("body.", "features.", 1)
    match = re.fullmatch(r"(features\.(\d+)\.conv)\.([01]\.[01]|[123])(?=\.[a-z])(.*)", name)
    if match:
        table = _FIRST_BLOCK if match[2] == "1" else _BLOCK
        name = f"{match[1]}.{table[match[3]]}{match[4]}"
    return f"net.{name}"


_RESNET_POSITIONS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def _focuser_shifted(name: str) -> str | None:
    """Their focuser is a list of ResNet's children without the last layer."""
    if name.startswith("last."):
        return None
    first, rest = name.removeprefix("body.").replace(".layer.", ".net.").split(".", 1)
    return f"net.base_model.{_RESNET_POSITIONS[first]}.{rest}"


def _policy(name: str) -> str:
    return re.sub(r"^(actor|critic)\.", r"\1.0.", name.replace("encoder.", "state_encoder.", 1))


def _classifier_plain(name: str) -> str:
    return name.replace("last.", "fc.", 1)


def _classifier_shifted(name: str) -> str:
    return name.removeprefix("last.")


def _pretrained(name: str) -> str:
    """A ResNet in a Temporal Shift Module's file."""
    name = name.replace(".layer.", ".net.")
    return name.replace("last.1.", "module.new_fc.", 1).replace("body.", "module.base_model.", 1)


def _pretrained_glancer(name: str) -> str:
    return (
        _glancer_shifted(name)
        .replace("net.classifier.", "module.new_fc.")
        .replace("net.features.", "module.base_model.features.", 1)
    )


LAYOUTS: dict[str, dict[str, Rename]] = {
    "plain": {
        "glancer": _glancer_plain,
        "focuser": _focuser_plain,
        "policy": _policy,
        "classifier": _classifier_plain,
    },
    "shifted": {
        "glancer": _glancer_shifted,
        "focuser": _focuser_shifted,
        "policy": _policy,
        "classifier": _classifier_shifted,
    },
}
PRETRAINED: dict[str, Rename] = {"glancer": _pretrained_glancer, "focuser": _pretrained}


def layout_of(config: Config) -> str:
    """Which layout a configuration's checkpoints have: theirs differ where features shift in time."""
    return "shifted" if config.model.temporal_shift else "plain"


def theirs(model: AdaFocus, part: str) -> dict[str, str]:
    """Their name -> ours for every tensor of a part that their layout keeps."""
    rename = LAYOUTS[layout_of(model.config)][part]
    return renamed(model.get_submodule(part), rename)


def renamed(module: nn.Module, rename: Rename) -> dict[str, str]:
    """Their name -> ours for every tensor of a module that has a name there."""
    pairs = {rename(ours): ours for ours in module.state_dict()}
    return {name: ours for name, ours in pairs.items() if name is not None}


def parts_of(config: Config, stage: str) -> tuple[str, ...]:
    """Parts that a stage's result has, in the order of their files."""
    trained = method_of(config).trained(stage)
    return tuple(part for part in THEIR_PART if part in trained)


def check_networks(config: Config) -> None:
    """Raises UserError unless the configuration has the reference's networks, the only ones its files can fill."""
    expected = ("mobilenet_v2", "resnet50", "gru" if layout_of(config) == "plain" else "average")
    networks = (config.model.glancer, config.model.focuser, config.model.classifier)
    if config.model.glance_stride:
        raise UserError("a reference checkpoint holds a whole glancer, but the recipe sets model.glance_stride")
    if networks != expected:
        raise UserError(f"a reference checkpoint holds {', '.join(expected)}, but the recipe has {', '.join(networks)}")
