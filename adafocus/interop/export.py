"""A model as files for other programs: in goes a model and real clips, out come `torch.export` and ONNX files, checked.

Each file is read back as it was written and run on the clips; what it says is compared with the model itself.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adafocus.checkpoint import Meta
from adafocus.data.sampling import glance_places, spread_order
from adafocus.inference.prediction import ClipFrames
from adafocus.interop.program import Program, Programs
from adafocus.interop.programs import programs_of
from adafocus.models.adafocus import IMAGENET_MEAN, IMAGENET_STD, AdaFocus
from preprocessing.schema import ExtractionSpec

TOLERANCE = 1e-4
"""Largest error of an output, as a share of its largest value."""
Run = Callable[..., list[Tensor]]
Watch = Callable[[float, str], None]
"""watch(share, text): such a share of the work has been done since the call before, and what is done next, in words."""


def export_programs(
    model: AdaFocus, clips: Sequence[ClipFrames], out: Path, watch: Watch = lambda share, text: None
) -> dict[str, Any]:
    """Write `<part>.pt2` and `<part>.onnx` of a model (float32, on the CPU) into the folder `out`.

    Returns inputs and outputs of each part, and the largest errors found on the clips. Raises RuntimeError if a file
    does not compute what the model does.
    """
    described: dict[str, Any] = {}
    taken = programs_of(model)
    programs = taken.take_apart()
    share = 1 / (len(programs) + 2 * len(clips))
    for program in programs:
        watch(0, f"writing the {program.name}")
        write(program, out)
        watch(share, f"wrote the {program.name}")
        described[program.name] = {
            "inputs": {name: _shape(value, program.any_number) for name, value in program.inputs.items()},
            "outputs": list(program.outputs),
        }
    for kind, load in (("pt2", load_pt2), ("onnx", load_onnx)):
        runs = {program.name: load(out / f"{program.name}.{kind}", program) for program in programs}
        for number, clip in enumerate(clips, start=1):
            watch(share, f"comparing .{kind} with the model: clip {number} of {len(clips)}")
            for name, error in _errors(model, clip, taken, programs, runs).items():
                key = f"{kind}_error"
                described[name][key] = max(described[name].get(key, 0.0), error)
                if error > TOLERANCE:
                    raise RuntimeError(f"{name}.{kind} is off by {error:.1e} on {clip.name}")
    return described


def write(program: Program, out: Path) -> None:
    """Both files of one part."""
    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)  # not a line per simplified node
    axis = torch.export.Dim("N") if program.any_number else None
    shapes = tuple({0: axis} if axis is not None else None for _ in program.inputs)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        exported = torch.export.export(program.module, tuple(program.inputs.values()), dynamic_shapes=shapes)
        torch.export.save(exported, out / f"{program.name}.pt2")
        onnx = torch.onnx.export(
            exported,
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            dynamo=True,
            verbose=False,
        )
    assert onnx is not None
    onnx.save(out / f"{program.name}.onnx", external_data=False)


def load_pt2(path: Path, program: Program) -> Run:
    """A `torch.export` file as a function."""
    module = torch.export.load(path).module()

    def run(*inputs: Tensor) -> list[Tensor]:
        outputs = module(*inputs)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    return run


def load_onnx(path: Path, program: Program) -> Run:
    """An ONNX file as a function, run on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch's threads work in between
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(*given: Tensor) -> list[Tensor]:
        feed = {name: value.numpy() for name, value in zip(program.inputs, given, strict=True)}
        return [torch.from_numpy(value) for value in session.run(list(program.outputs), feed)]

    return run


@torch.no_grad()
def _errors(
    model: AdaFocus, clip: ClipFrames, taken: Programs, programs: Sequence[Program], runs: dict[str, Run]
) -> dict[str, float]:
    """Run a clip through the files, part by part as another program would; each part's largest relative error.

    A part gets what the files before it made, and so does its own module: the errors do not add up. The end is compared
    with the model as a whole.
    """
    errors = dict.fromkeys(runs, 0.0)

    def run(name: str, *inputs: Tensor) -> list[Tensor]:
        program = next(each for each in programs if each.name == name)
        expected = program.module(*inputs)
        outputs = runs[name](*inputs)
        for left, right in zip(outputs, expected if isinstance(expected, tuple) else (expected,), strict=True):
            errors[name] = max(errors[name], _error(left, right))
        return outputs

    logits_TK = taken.run_clip(clip, run)
    whole = model(clip.glance_TCHW[None], clip.focus_TCHW[None])
    errors["classifier"] = max(errors["classifier"], _error(logits_TK, whole.logits_BTK[0]))
    return errors


def facts(model: AdaFocus, meta: Meta, spec: ExtractionSpec, programs: dict[str, Any]) -> dict[str, Any]:
    """All that a program has to know to use the files: plain values."""
    config, taken = model.config, programs_of(model)
    among = config.data.num_candidates and config.data.focus_frames == "shared"  # are glances some of the candidates?
    return {
        "method": config.method,
        "by": taken.by,
        "class_names": list(meta.class_names),
        "preprocessing": {
            "extraction": asdict(spec),
            "num_frames": config.data.num_frames,
            "num_focus_frames": config.data.num_focus_frames,
            "num_candidates": config.data.num_candidates,
            "glance_places": glance_places(config.data).tolist() if among else None,
            "pad": meta.info["pad"],
            "order": None if config.data.frame_order == "time" else spread_order(config.data.num_frames).tolist(),
            "resize_short_side": config.data.resize,
            "crop": config.data.crop,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        },
        "patch_size": config.model.patch_size,
        "patches": "whole pixels" if model.whole_pixels else "between pixels",
        "action": config.model.action,
        "grid_size": config.model.grid_size,
        "glance_input": taken.glance_input,
        "states": {name: list(value.shape) for name, value in taken.start_states().items()},
        "programs": programs,
        "metrics": meta.metrics,
        "versions": meta.versions,
    }


def _error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    largest = max(float(expected.abs().max()), 1e-6)
    return float((actual.double() - expected.double()).abs().max()) / largest


def _shape(value: Tensor, any_number: bool) -> dict[str, Any]:
    shape: list[Any] = list(value.shape)
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": ["N", *shape[1:]] if any_number else shape}
