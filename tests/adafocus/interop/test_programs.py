"""What is exported computes what the model computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adafocus.checkpoint import load_model
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.inference.prediction import ClipFrames
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.interop import export
from adafocus.interop.export import export_programs
from adafocus.interop.program import Program
from adafocus.interop.programs import programs_of
from adafocus.methods import build_model
from preprocessing.media.extraction import Extraction

Videos = Callable[..., Path]


@pytest.mark.parametrize(
    "changes",
    [{}, {"model.reuse_glance": False}, {"model.classifier": "linear"}, {"model.classifier": "average"}],
    ids=str,
)
def test_step_by_step_they_are_the_model(
    changes: dict[str, object], checkpoints: dict[str, Path], make_video: Videos, tmp_path: Path
) -> None:
    predictor = AdaFocusPredictor.from_folder(checkpoints["frame"])
    clip = predictor.read(make_video(tmp_path / "a.mp4"))
    torch.manual_seed(3)
    first, second, third = "adafocus", "adafocus-v2", "uni-adafocus"
    for regime, action, method in (
        ("frame", "grid", first),
        ("frame", "gaussian", first),
        ("clip", "gaussian", first),
        ("frame", "grid", second),
        ("clip", "grid", second),
        ("uni", "grid", third),
        ("uni per clip", "grid", third),
    ):
        base = load_model(checkpoints[regime])[0].config
        model = build_model(override(base, {"model.action": action, "method": method, **changes}), 10).eval()
        clip = AdaFocusPredictor.from_folder(checkpoints[regime]).read(clip.name)
        programs = programs_of(model)
        modules = {program.name: program.module for program in programs.take_apart()}

        def run(name: str, *given: torch.Tensor, modules: dict[str, torch.nn.Module] = modules) -> list[torch.Tensor]:
            found = modules[name](*given)
            return list(found) if isinstance(found, tuple) else [found]

        with torch.no_grad():
            whole = model(clip.glance_TCHW[None], clip.focus_TCHW[None]).logits_BTK[0]
            torch.testing.assert_close(programs.run_clip(clip, run), whole, rtol=1e-4, atol=1e-5)


def test_a_file_that_computes_something_else_is_an_error(
    checkpoints: dict[str, Path], make_video: Videos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = AdaFocusPredictor.from_folder(checkpoints["frame"])
    clip = predictor.read(make_video(tmp_path / "a.mp4"))
    factor = {"focuser.onnx": 1.001}

    def load(path: Path, program: Program) -> Callable[..., list[torch.Tensor]]:
        def run(*given: torch.Tensor) -> list[torch.Tensor]:
            found = program.module(*given)
            found = found if isinstance(found, tuple) else (found,)
            return [v * factor.get(path.name, 1.0) if v.is_floating_point() else v for v in found]

        return run

    monkeypatch.setattr(export, "write", lambda program, out: None)
    monkeypatch.setattr(export, "load_pt2", load)
    monkeypatch.setattr(export, "load_onnx", load)
    with pytest.raises(RuntimeError, match=r"focuser.onnx is off by 1.0e-03 on .*a.mp4"):
        export_programs(load_model(checkpoints["frame"])[0], [clip], tmp_path)
    factor.clear()
    told = export_programs(load_model(checkpoints["frame"])[0], [clip], tmp_path)
    assert list(told) == ["glancer", "policy", "focuser", "classifier"]


@pytest.mark.slow
def test_networks_of_timm_can_be_exported(tiny_config: Config, tmp_path: Path) -> None:
    """Padding by the size of the input, pixels of another spread, position embeddings that are resampled."""
    torch.manual_seed(0)
    networks = {"model.glancer": "timm/tf_efficientnet_lite0", "model.focuser": "timm/test_vit"}
    sizes = {"data.crop": 64, "data.resize": 64, "model.glance_size": 40, "model.patch_size": 32}
    model = build_model(override(tiny_config, {**networks, **sizes}), 3).eval()
    frames_TCHW = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    clip = ClipFrames("noise", frames_TCHW, frames_TCHW, np.arange(4), Extraction("ok"), 0.0)
    told = export_programs(model, [clip], tmp_path)
    assert list(told) == ["glancer", "policy", "focuser", "classifier"]
