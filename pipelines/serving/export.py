"""Exports a checkpoint as a folder for other programs: torch.export and ONNX files, each checked on real clips."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from adafocus import checkpoint
from adafocus.data.clip_table import ClipTable, evaluation_split
from adafocus.inference.packed_clips import packed_clip
from adafocus.inference.prediction import ClipFrames, VideoError
from adafocus.inference.predictor import AdaFocusPredictor
from adafocus.interop.export import export_programs
from adafocus.interop.export import facts as collect_facts
from pipelines.progress import progress
from preprocessing.ffmpeg.arguments import extraction_argv
from preprocessing.files import atomic_write
from preprocessing.schema import UserError

NUM_CLIPS = 2
"""Real clips on which the files are compared with the model."""
CENTRES = "the centres of equal parts of the clip (`predict_onnx.py: sample`)"
POLICY = """3. `policy(map, policy_state)` gives the `corner` of a patch of $patch x $patch pixels, and the next state.
   States begin as zeros.
"""
STEPS = {
    "frame": POLICY
    + """4. `focuser(patches)` gives `focus`; `classifier(focus, classifier_state$glance)` gives the
   prediction after this frame, and the next state. Steps 3 and 4 are repeated for every frame: a video can be followed
   while it arrives.""",
    "clip": POLICY
    + """4. `focuser(patches)`, of the same place in $focus frames, gives `focus`; `classifier(focus$glance)`
   gives the prediction after 1, 2, ... frames. One patch position serves the whole clip.""",
    "choice": """3. `policy(map, feature)` gives the `places` of $focus frames among the clip's $candidates candidates
   (`predict_onnx.py: candidates`), and `boxes` (top, left, height, width in pixels): one for each, or one for all.
4. `focuser(frames, boxes)`, of these frames with a box each, cuts the boxes out, resizes them to patches of
   $patch x $patch pixels, and gives `focus`; `classifier(focus$glance)` gives the prediction of every exit: after all
   glances, then behind the frames.""",
}
"""How the parts are put together, for the README: with a patch per frame, one per clip, or a choice of frames."""


def export(
    folder: Path, out: Path, *, shards: str | None, videos: Sequence[Path] = (), title: str = ""
) -> dict[str, Any]:
    """Export the checkpoint in `folder` to a new folder `out`, which appears when it is complete; returns its facts.

    The files are compared with the model on `videos`, or else on clips of the data set at `shards`. Raises UserError if
    `out` exists, if the method cannot be exported, if there are neither, or if none of the videos can be read.
    """
    if out.exists():
        raise UserError(f"{out} exists: choose another --out, or remove it")
    model, meta = checkpoint.load_model(folder)
    if model.export_obstacle:  # before videos are read
        raise UserError(
            f"{folder} is of method {model.config.method}, which cannot be exported: {model.export_obstacle}"
        )
    predictor = AdaFocusPredictor(folder, device="cpu", shards=shards)
    clips = _read_videos(predictor, videos) if videos else packed_clips(predictor, shards, NUM_CLIPS)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        partial.mkdir()
        with progress(1) as report:
            programs = export_programs(model, clips, partial, report)
        facts = collect_facts(model, meta, predictor.spec, programs)
        checkpoint.save(partial, model, replace(meta, extraction=asdict(predictor.spec)))
        (partial / "facts.json").write_text(json.dumps(facts, indent=1), "utf-8")
        (partial / "README.md").write_text(_readme(facts, title or folder.name, len(clips), predictor), "utf-8")
        script = files("pipelines.serving").joinpath("templates", "predict_onnx.py")
        (partial / "predict_onnx.py").write_text(script.read_text("utf-8"), "utf-8")
    return facts


def packed_clips(predictor: AdaFocusPredictor, shards: str | None, count: int) -> list[ClipFrames]:
    """Clips spread over the evaluation split of a data set. Raises UserError without a data set."""
    if shards is None:
        raise UserError("give --shards or --video: real frames to compare the exported files on")
    table = ClipTable(shards, evaluation_split(shards), count)
    return [packed_clip(predictor, table, number) for number in range(len(table))]


def _read_videos(predictor: AdaFocusPredictor, videos: Sequence[Path]) -> list[ClipFrames]:
    try:
        return [predictor.read(video) for video in videos]
    except VideoError as error:
        raise UserError(f"--video cannot be read: {error}") from error


def _listed(data: dict[str, Any]) -> str:
    """Places of the glancer's frames among the candidates; empty where they are not among them."""
    return ", ".join(map(str, data["glance_places"] or ()))


def _readme(facts: dict[str, Any], title: str, num_clips: int, predictor: AdaFocusPredictor) -> str:
    """The folder's README.md."""
    data = facts["preprocessing"]
    chooses = facts["by"] == "choice"
    taken = list(facts["programs"]["classifier"]["inputs"])[1:] if chooses else [facts["glance_input"]]
    steps = Template(STEPS[facts["by"]]).substitute(
        glance="".join(f", {name}" for name in taken if name),
        focus=data["num_focus_frames"],
        candidates=data["num_candidates"],
        patch=facts["patch_size"],
    )
    rows = [
        f"| {name} | {part['pt2_error']:.1e} | {part['onnx_error']:.1e} |" for name, part in facts["programs"].items()
    ]
    argv = extraction_argv("VIDEO", predictor.spec)
    flags = ("-fps_mode", "-enc_time_base", "-q:v", "-vf", "-r", "-frames:v")
    arguments = [f"{flag} {shlex.quote(argv[argv.index(flag) + 1])}" for flag in flags if flag in argv]
    return Template(files("pipelines.serving").joinpath("templates", "export.md").read_text("utf-8")).substitute(
        title=title,
        method=facts["method"],
        num_classes=len(facts["class_names"]),
        num_clips=num_clips,
        ffmpeg=" ".join(arguments),
        num_frames=data["num_frames"],
        glances=f"numbers {places} of the clip's candidates, from 0" if (places := _listed(data)) else CENTRES,
        resize=data["resize_short_side"],
        crop=data["crop"],
        sizes=" and its size" if chooses else "",
        steps=steps,
        errors="\n".join(rows),
    )
