"""Names of tensors in the authors' files of AdaFocusV2 and Uni-AdaFocus: for each of theirs, ours, and where in it.

A file holds one table, `state_dict`, for all parts. Their classifiers are lists of last layers, one for each prefix;
ours hold them in one tensor. Their image networks carry last layers for ImageNet's 1000 classes that nothing uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adafocus.interop.reference_names import LAYOUTS
from adafocus.models.adafocus import AdaFocus

IMAGENET_CLASSES = 1000
UNI_POLICY = {
    "frames.layers.": "temporal_policy.Tconv.",
    "boxes.layers.": "spatial_policy.encoder.",
    "judge.": "aux_fc.",
}
UNI_BRANCHES = {"glances": "global", "looks": "local"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of theirs lies in our model."""

    name: str
    row: int | None = None
    """Of our tensor's first axis; None: it is the whole tensor."""


def tensor_places(model: AdaFocus) -> dict[str, Place]:
    """Their name, without the `module.` in front, -> ours, for every tensor that both have."""
    translate = _per_frame if model.acts_per_frame else _per_clip
    return dict(pair for name in model.state_dict() for pair in translate(model, name))


def unused_shapes(model: AdaFocus) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the layers in their file that nothing uses."""
    if not model.acts_per_frame:
        return {}
    shapes: dict[str, tuple[int, ...]] = {}
    for part, theirs in (("glancer", "global_CNN"), ("focuser", "local_CNN")):
        last = "fc" if getattr(model.config.model, part) == "resnet50" else "classifier"
        features = (model.glancer if part == "glancer" else model.focuser).num_features
        shapes[f"{theirs}.{last}.weight"] = (IMAGENET_CLASSES, features)
        shapes[f"{theirs}.{last}.bias"] = (IMAGENET_CLASSES,)
    return shapes


def _per_frame(model: AdaFocus, name: str) -> Iterator[tuple[str, Place]]:
    part, rest = name.split(".", 1)
    if part in ("glancer", "focuser"):
        theirs = "global_CNN" if part == "glancer" else "local_CNN"
        if rest.startswith("last."):
            yield f"{theirs}_fc.{rest.removeprefix('last.')}", Place(name)
        else:
            yield f"{theirs}.{_body(model, part, rest)}", Place(name)
    elif part == "policy":
        yield _uni_policy(rest) or f"policy_stn.{rest.replace('actor.', 'fc.0.', 1)}", Place(name)
    elif (branch := rest.split(".")[0]) in UNI_BRANCHES:
        yield from _prefixes(model, name, rest.removeprefix(f"{branch}."), f"{UNI_BRANCHES[branch]}_")
    else:
        yield from _prefixes(model, name, rest)


def _prefixes(model: AdaFocus, name: str, rest: str, branch: str = "") -> Iterator[tuple[str, Place]]:
    """Of a classifier with a last layer for every prefix."""
    if rest.startswith("hidden."):
        yield f"classifier.{branch}mlp.layers.{rest.removeprefix('hidden.')}", Place(name)
        return
    for row in range(len(model.state_dict()[name])):
        yield f"classifier.{branch}classifiers.{row}.1.{rest}", Place(name, row)


def _uni_policy(rest: str) -> str | None:
    """Of Uni-AdaFocus's policies; None: the tensor is AdaFocusV2's."""
    ours = next((each for each in UNI_POLICY if rest.startswith(each)), None)
    return UNI_POLICY[ours] + rest.removeprefix(ours) if ours else None


def _per_clip(model: AdaFocus, name: str) -> Iterator[tuple[str, Place]]:
    part, rest = name.split(".", 1)
    heads = {"classifier.glance.": "global_CNN.new_fc.", "classifier.last.": "local_CNN.new_fc."}
    heads |= {"glancer.last.1.": "global_CNN.new_new_fc.", "focuser.last.1.": "local_CNN.new_new_fc."}
    for ours, theirs in heads.items():
        if name.startswith(ours):
            yield theirs + name.removeprefix(ours), Place(name)
            return
    if part == "policy":
        stn = f"policy_stn.{rest.removeprefix('encoder.').replace('actor.', '10.', 1)}"
        yield _uni_policy(rest) or stn, Place(name)
    else:
        theirs = "global_CNN" if part == "glancer" else "local_CNN"
        yield f"{theirs}.base_model.{_body(model, part, rest)}", Place(name)


def _body(model: AdaFocus, part: str, rest: str) -> str:
    """An image network's tensor: MobileNetV2 as in the shifted layout of the first version, ResNet as torchvision."""
    if getattr(model.config.model, part) == "resnet50":
        return rest.removeprefix("body.").replace(".layer.", ".net.")
    theirs = LAYOUTS["shifted"]["glancer"](rest)
    assert theirs is not None
    return theirs.removeprefix("net.")
