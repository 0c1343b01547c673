"""Models of AdaFocusV2 and Uni-AdaFocus whose weights follow the rule of the golden numbers, and checks of what they
learn, by the names of the authors' files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adafocus.config.schema import Config
from adafocus.interop import reference_checkpoints
from adafocus.interop.v2_names import tensor_places, unused_shapes
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from helpers.reference import by_rule


def imported(config: Config, num_classes: int, folder: Path) -> AdaFocus:
    """A model in evaluation whose weights came by the rule, through a file of the authors' layout and the import."""
    shapes = build_model(config, num_classes)
    own = shapes.state_dict()
    table = {
        f"module.{name}": by_rule(name, tuple(own[place.name].shape[int(place.row is not None) :]))
        for name, place in tensor_places(shapes).items()
    }
    table |= {f"module.{name}": torch.zeros(shape) for name, shape in unused_shapes(shapes).items()}
    torch.save({"state_dict": table}, folder / "model.pth.tar")
    return reference_checkpoints.import_checkpoint(folder / "model.pth.tar", config).model.eval()


def check_gradients(
    model: AdaFocus, loss: Tensor, groups: dict[str, float | None], tolerance: dict[str, float]
) -> None:
    """The norm of a loss's gradient over the parameters of each group of theirs; None: it has no path there."""
    theirs = {place.name: name for name, place in tensor_places(model).items()}
    names, parameters = zip(*[(n, p) for n, p in model.named_parameters() if p.requires_grad], strict=True)
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    for group, wanted in groups.items():
        own = [g for name, g in zip(names, gradients, strict=True) if theirs[name].startswith(f"{group}.")]
        assert own, group
        norms = [gradient.norm().item() for gradient in own if gradient is not None]
        if wanted is None:
            assert not norms, group
        else:
            assert math.hypot(*norms) == pytest.approx(wanted, rel=tolerance[group]), group


def check_running_statistics(model: AdaFocus, wanted: dict[str, tuple[float, float, int]]) -> None:
    """Sums of batch norms' running means and variances, and how often they ran."""
    places, state = tensor_places(model), model.state_dict()
    for name, (mean, variance, count) in wanted.items():
        sums = [state[places[f"{name}.running_{kind}"].name].sum().item() for kind in ("mean", "var")]
        assert sums == pytest.approx([mean, variance], abs=1e-3 * max(abs(mean), abs(variance))), name
        assert state[places[f"{name}.num_batches_tracked"].name].item() == count


def fix_batch_norms(module: nn.Module) -> None:
    """Let batch norms use their running statistics, in training too."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.eval()
