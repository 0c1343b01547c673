"""A data set made on the spot: real .mp4 files in which one small handwritten digit drifts over moving clutter.

The class is the digit (scikit-learn's bundled scans; training and validation use different scans). At a small glance
the coloured digit can be found but hardly read; inside a well-placed patch it can be read. Fragments of other digits in
grey are distractors. The same seed gives the same files, byte for byte, and the digit's place is known in every frame.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from preprocessing.datasets.annotations import read_json
from preprocessing.ffmpeg.encode import encode_video
from preprocessing.files import write_file
from preprocessing.processors import usable_cores
from preprocessing.schema import Clip, DatasetInfo, UserError

log = logging.getLogger(__name__)

NAMES = ("synthetic",)
_MANIFEST = "synthetic.json"
_STARTED = "synthetic.started.json"
"""Lies beside the videos while they are made: what is there is by the settings in it."""


@dataclass(frozen=True, slots=True)
class SyntheticSpec:
    """Settings of the data set: number, length and size of the videos, and what is in them."""

    num_train: int = 1200
    num_val: int = 300
    num_frames: int = 24
    size: int = 112
    """Side of the square frame in pixels."""
    digit: int = 28
    """Side of the digit in pixels."""
    fragments: int = 6
    """Distractors: halves of other digits, in grey."""
    contrast: float = 0.3
    """Range of the clutter's grey values, 0 to 1."""
    fps: int = 12
    crf: int = 20
    seed: int = 0


def make(root: Path, spec: SyntheticSpec | None = None) -> None:
    """Write the videos and their manifest below `root`. What is there already is kept, also if it is by other settings
    and `spec` is None.

    Raises UserError if it is not what `spec` asks for, or no video of this data set: nothing is written over.
    """
    manifest, started = root / _MANIFEST, root / _STARTED
    if manifest.exists():
        _check_same(manifest, spec)
        return
    spec = spec or SyntheticSpec()
    jobs = [("train", i) for i in range(spec.num_train)] + [("val", i) for i in range(spec.num_val)]
    if started.exists():
        _check_same(started, spec)
    elif there := next((path for job in jobs if (path := _path(root, *job)).exists()), None):
        raise UserError(f"{there} is no synthetic video, and one would be written over it: give another folder")
    for split in ("train", "val"):
        (root / split).mkdir(parents=True, exist_ok=True)
    write_file(started, json.dumps({"spec": asdict(spec)}).encode())
    with ProcessPoolExecutor(usable_cores()) as pool:
        rows = list(pool.map(_make_clip, [root] * len(jobs), [spec] * len(jobs), *zip(*jobs, strict=True), chunksize=8))
    # Last: its presence says that every video is there.
    write_file(manifest, json.dumps({"spec": asdict(spec), "clips": rows}).encode())
    started.unlink()


def read_clips(root: Path) -> tuple[DatasetInfo, list[Clip]]:
    """Read the manifest that `make` wrote. The digit's box stands in each clip's `boxes`."""
    rows = _read(root / _MANIFEST)["clips"]
    info = DatasetInfo(
        name="synthetic",
        class_names=tuple(str(digit) for digit in range(10)),
        metric="top1",
        flip=False,  # a mirrored 2 is no 2
        annotations=_MANIFEST,
    )
    clips = [
        Clip(
            dataset="synthetic",
            split=row["split"],
            clip_id=row["clip_id"],
            source=f"{row['clip_id']}.mp4",
            labels=(row["label"],),
            boxes=tuple(tuple(box) for box in row["boxes"]),
        )
        for row in rows
    ]
    return info, clips


def _check_same(path: Path, spec: SyntheticSpec | None) -> None:
    """Raise UserError unless the videos that a file tells of are those of `spec`; None: it is said if they are not the
    usual ones."""
    wanted, there = asdict(spec or SyntheticSpec()), _read(path)["spec"]
    differing = ", ".join(f"{name} = {there.get(name)}" for name in wanted if there.get(name) != wanted[name])
    if differing and spec is None:
        log.info("%s: these videos were made with %s, and are used as they are", path.parent, differing)
    elif differing:
        raise UserError(f"{path}: the videos there were made with {differing}: give another folder, or remove that one")


def _read(path: Path) -> dict[str, Any]:
    """What a file says that `make` wrote. Raises UserError if it is none."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("spec"), dict):
        raise UserError(f"{path}: this is no list of synthetic videos: give another folder, or remove that one")
    return content


def _path(root: Path, split: str, number: int) -> Path:
    return root / split / f"{number:05d}.mp4"


def _make_clip(root: Path, spec: SyntheticSpec, split: str, number: int) -> dict[str, object]:
    rng = np.random.default_rng([spec.seed, ("train", "val").index(split), number])
    scans, targets = _scans(split)
    label = int(_labels(spec, split)[number])
    scan = scans[rng.choice(np.flatnonzero(targets == label))]
    path_TX = _drift(rng, spec)
    path = _path(root, split, number)
    if not path.exists():
        encode_video(path, _render(rng, spec, scan, scans, path_TX), fps=spec.fps, crf=spec.crf)
    boxes = [
        [top / spec.size, left / spec.size, (top + spec.digit) / spec.size, (left + spec.digit) / spec.size]
        for top, left in path_TX.tolist()
    ]
    return {"split": split, "clip_id": f"{split}/{number:05d}", "label": label, "boxes": boxes}


def _labels(spec: SyntheticSpec, split: str) -> np.ndarray:
    """Digits of a split's clips: all ten equally often, in random order."""
    count = spec.num_train if split == "train" else spec.num_val
    return np.random.default_rng([spec.seed, count]).permutation(np.arange(count) % 10)


def _scans(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Scans (N, 8, 8) in [0, 1] and their digits; every fourth scan belongs to validation."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    held_out = np.arange(len(digits.target)) % 4 == 0
    mask = held_out if split == "val" else ~held_out
    return digits.images[mask] / 16.0, digits.target[mask]


def _drift(rng: np.random.Generator, spec: SyntheticSpec) -> np.ndarray:
    """Whole-pixel top-left corners (T, 2) of a slow, smooth path that stays inside the frame."""
    free = spec.size - spec.digit
    time = np.linspace(0, 1, spec.num_frames)[:, None]
    start, end = rng.uniform(0, free, 2), rng.uniform(0, free, 2)
    sway = rng.uniform(-0.15, 0.15, 2) * free * np.sin(np.pi * time * rng.uniform(1, 2, 2))
    return np.clip(start + (end - start) * time + sway, 0, free).round().astype(int)


def _render(
    rng: np.random.Generator, spec: SyntheticSpec, scan: np.ndarray, scans: np.ndarray, path_TX: np.ndarray
) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8."""
    size, margin = spec.size, 24
    clutter = _clutter(rng, size + 2 * margin, spec.contrast)
    for _ in range(spec.fragments):
        _stamp_fragment(rng, clutter, scans, spec.digit)
    ink = _enlarge(scan, spec.digit)[..., None]
    hue = np.array([rng.uniform(0.8, 1.0), rng.uniform(0.0, 0.7), rng.uniform(0.0, 0.2)])  # red to yellow
    pan_from, pan_to = rng.uniform(0, 2 * margin, 2), rng.uniform(0, 2 * margin, 2)
    for step, (top, left) in enumerate(path_TX):
        row, column = (pan_from + (pan_to - pan_from) * step / spec.num_frames).astype(int)
        frame = np.repeat(clutter[row : row + size, column : column + size, None], 3, axis=2)
        place = (slice(top, top + spec.digit), slice(left, left + spec.digit))
        frame[place] = frame[place] * (1 - ink) + hue * ink
        frame = frame + rng.normal(0, 0.02, frame.shape)
        yield (frame.clip(0, 1) * 255).astype(np.uint8)


def _clutter(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Grey texture (size, size) around 0.5: noise at three scales."""
    layers = [_enlarge(rng.uniform(0, 1, (cells, cells)), size) for cells in (5, 16, 48)]
    mixed = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]
    return 0.5 + contrast * ((mixed - mixed.min()) / (mixed.max() - mixed.min()) - 0.5)


def _stamp_fragment(rng: np.random.Generator, canvas: np.ndarray, scans: np.ndarray, digit: int) -> None:
    """Blend half of a random digit, in grey, into a random place of `canvas`."""
    ink = _enlarge(scans[rng.integers(len(scans))], digit)
    half = digit // 2
    piece = [ink[:half], ink[half:], ink[:, :half], ink[:, half:]][rng.integers(4)]
    top, left = (int(rng.integers(0, canvas.shape[0] - side)) for side in piece.shape)
    place = (slice(top, top + piece.shape[0]), slice(left, left + piece.shape[1]))
    canvas[place] = canvas[place] * (1 - piece) + rng.choice([0.2, 0.8]) * piece


def _enlarge(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)).clip(
        0, 1
    )
