"""Both networks of activitynet-128 on 32 images, with convolutions fused with what follows them and without.

Batch norms are folded and channels last in both: the ratios say what `adafocus/acceleration/fuse.py` is there for.

Options as in bench_inference.py. A precision in which this CPU runs no fused convolutions is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

import torch
from ratios import options_of, race, report
from torch import Tensor

from adafocus.acceleration import fuse
from adafocus.acceleration.accelerate import DTYPES, FastBody
from adafocus.config.schema import Precision
from adafocus.models.adafocus import AdaFocus
from helpers.settled import settled_model
from pipelines.recipes import find_recipe

SIDES = {"glancer": 224, "focuser": 128}
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
TARGETS = {"both, fused": 1.1}
"""Below it the file is not worth its lines."""


def passes(model: AdaFocus, precision: Precision, *, fused: bool) -> dict[str, Callable[[], Tensor]]:
    """A pass of each network over its images, as inference makes it."""
    runs = {}
    for part, side in SIDES.items():
        body = FastBody(model.get_submodule(f"{part}.body"), precision, compile=False)
        if not fused:
            body._fused.append(body.body)  # in place of the fused one
        runs[part] = partial(body, torch.randn(32, 3, side, side))
    return runs


@torch.inference_mode()
def main() -> bool:
    """Returns whether the targets are reached."""
    options = options_of(argparse.ArgumentParser(description=__doc__))
    model, ok = settled_model(find_recipe("activitynet-128")), True
    for precision in PRECISIONS:
        if not fuse.available(DTYPES[precision]):
            continue
        forms = {name: passes(model, precision, fused=name == "fused") for name in ("folded", "fused")}
        for parts in (tuple(SIDES), *((part,) for part in SIDES)):
            what = parts[0] if len(parts) == 1 else "both"
            runs = {f"{what}, {name}": partial(_call, [form[part] for part in parts]) for name, form in forms.items()}
            title = f"networks in {precision}, {torch.get_num_threads()} threads"
            ok &= report(title, race(runs, options), TARGETS if what == "both" else {})
    return ok


def _call(runs: list[Callable[[], Tensor]]) -> None:
    for run in runs:
        run()


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
