"""Checkpoints of the authors' AdaFocusV2 and Uni-AdaFocus code: their file in, our model out, and back, key for key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adafocus.config.schema import Config
from adafocus.interop.v2_names import tensor_places, unused_shapes
from adafocus.methods import build_model, method_of
from adafocus.models.adafocus import AdaFocus
from adafocus.models.backbones import describe
from preprocessing.files import atomic_write
from preprocessing.schema import UserError

State = dict[str, Tensor]
WRAPPER = "module."


def check_networks(config: Config) -> None:
    """Raises UserError unless the configuration has the networks of the authors' files."""
    model = config.model
    if model.glance_stride:
        raise UserError("the authors' files hold a whole glancer, but the recipe sets model.glance_stride")
    resnet_glances = model.action_per == "frame" and config.method == "adafocus-v2"
    glancers = ("mobilenet_v2", "resnet50") if resnet_glances else ("mobilenet_v2",)
    if model.glancer not in glancers or model.focuser != "resnet50":
        raise UserError(
            f"the authors' files hold {' (or '.join(glancers)}{')' if resnet_glances else ''} and resnet50, but the "
            f"recipe has {model.glancer} and {model.focuser}"
        )


def model_from_table(path: Path, table: Mapping[str, Any], config: Config) -> AdaFocus:
    """A model of `config`, filled with a file's `state_dict`; its number of classes follows the file.

    Raises UserError if tensors are missing, surplus or misshapen, which the message lists.
    """
    check_networks(config)
    state = {name.removeprefix(WRAPPER): value for name, value in table.items()}
    last = "global_CNN_fc.1.bias" if config.model.action_per == "frame" else "global_CNN.new_fc.bias"
    if last not in state:
        title = method_of(config).title
        raise UserError(f"{path} is no checkpoint of {title} for this recipe: its state_dict has no {last}")
    model = build_model(config, len(state[last]), pretrained=False)
    places, own = tensor_places(model), model.state_dict()
    unused = unused_shapes(model)
    wanted = {
        **{name: own[place.name].shape[int(place.row is not None) :] for name, place in places.items()},
        **{name: torch.Size(shape) for name, shape in unused.items()},
    }
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    missing, surplus = sorted(wanted.keys() - unused.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or surplus or shapes:
        raise UserError(f"{path} does not fit the recipe: {describe(missing=missing, surplus=surplus, shapes=shapes)}")
    filled = {name: value.clone() for name, value in own.items()}
    for name, place in places.items():
        target = filled[place.name] if place.row is None else filled[place.name][place.row]
        target.copy_(state[name])
    model.load_state_dict(filled)
    return model


def table_of(model: AdaFocus) -> State:
    """A model's `state_dict` as the authors' code names it. What nothing uses is zeros."""
    check_networks(model.config)
    own = model.state_dict()
    table = {
        name: own[place.name] if place.row is None else own[place.name][place.row]
        for name, place in tensor_places(model).items()
    }
    table |= {name: torch.zeros(shape) for name, shape in unused_shapes(model).items()}
    return {f"{WRAPPER}{name}": value.detach().cpu().contiguous() for name, value in table.items()}


def export_v2_checkpoint(model: AdaFocus, path: Path, info: Mapping[str, float] | None = None) -> list[Path]:
    """Write `model` as the authors' code writes it; the files. Raises UserError for other networks than theirs."""
    content: dict[str, Any] = {"state_dict": table_of(model)}
    if not model.acts_per_frame:
        known = info or {}
        content |= {"epoch": int(known.get("epoch", 0)), "arch": model.config.model.focuser}
        content |= {"optimizer": None, "best_prec1": known.get("best_prec1", known.get("best_acc", 0.0))}
    elif method_of(model.config).chooses_frames:
        known = info or {}
        content |= {"epoch": int(known.get("epoch", 0)), "optimizer": None, "best_acc1": known.get("best_acc1", 0.0)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        torch.save(content, partial)
    return [path]
