"""The programs and services that work depends on: which they are, and whether they can be used."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from pipelines.machine.checks import Finding
from pipelines.paths import SQLITE, Places
from pipelines.ray_runtime.session import check_address
from pipelines.tracking.client import Tracker
from preprocessing.ffmpeg.filters import TONE_MAP_FILTERS
from preprocessing.ffmpeg.program import ffmpeg_version, find_ffmpeg, has_filters, lacking_codecs
from preprocessing.schema import UserError


def check_ffmpeg() -> Finding:
    """Which ffmpeg is used, and can it do all that may be asked of it?"""
    try:
        value = f"{ffmpeg_version()} ({find_ffmpeg()})"
    except UserError as error:
        return Finding("ffmpeg", "none", str(error))
    lacking = [f"it {words}" for words in [lacking_codecs(find_ffmpeg())] if words]
    if not has_filters(*TONE_MAP_FILTERS):
        lacking.append("it has no zscale filter, so that clips in HDR are refused")
    return Finding("ffmpeg", value, "; ".join(lacking))


def check_torch() -> Finding:
    """Which PyTorch, for how many threads."""
    return Finding(
        "torch", f"{torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads"
    )


def check_gpu() -> Finding:
    """The GPUs that torch sees."""
    count = torch.cuda.device_count()
    if not count:
        built = "" if torch.version.cuda else ": this torch is built without CUDA"
        return Finding("GPU", f"none{built}")
    names = [torch.cuda.get_device_properties(number) for number in range(count)]
    return Finding("GPU", ", ".join(f"{each.name} ({each.total_memory / 2**30:.0f} GiB)" for each in names))


def check_ray() -> Finding:
    """Which Ray, and can the cluster that RAY_ADDRESS names be joined?"""
    address = os.environ.get("RAY_ADDRESS")
    value = f"{version('ray')}, {f'joins {address}' if address else 'started here when needed'}"
    try:
        check_address(address)
    except UserError as error:
        return Finding("Ray", value, str(error))
    return Finding("Ray", value)


def check_store(runs: Path) -> Finding:
    """Can the MLflow store be used?"""
    places = Places.of("", runs)
    value = f"{places.store}, MLflow {version('mlflow')}"
    if places.tracking_uri.startswith(SQLITE) and not Path(places.tracking_uri.removeprefix(SQLITE)).exists():
        return Finding("MLflow store", f"{value}, made when needed")
    try:
        Tracker.at(places)
    except (UserError, OSError) as error:
        return Finding("MLflow store", value, str(error))
    return Finding("MLflow store", value)
