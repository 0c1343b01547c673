"""The check that a network takes images of the configured sizes: settings in, an error in one line out."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from adafocus.models.backbones.backbone import Backbone
from preprocessing.schema import UserError


def check_sides(name: str, network: Backbone, sides: Mapping[str, int]) -> None:
    """Raise UserError unless the network takes square images of these sides, in pixels, by the names of the settings.

    One that cuts images into pieces takes multiples of a piece's side.
    """
    step = network.step
    for setting, side in sides.items():
        if side % step:
            below = side // step * step
            fitting = [f"{setting}={value}" for value in (below, below + step) if value]
            raise UserError(
                f"{setting} is {side}, but {name} cuts images into pieces of {step}x{step} pixels: set "
                f"{' or '.join(fitting)}"
            )
    if not name.startswith("timm/"):  # those of the table take any size
        return
    shadow = copy.deepcopy(network).to("meta").eval()
    for setting, side in sides.items():
        try:
            shadow.pool(shadow.body(torch.empty(1, 3, side, side, device="meta")))
        except Exception as error:  # of whatever kind it raises for a size that it was not made for
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{setting} is {side}, a size that {name} does not take ({reason})") from error
