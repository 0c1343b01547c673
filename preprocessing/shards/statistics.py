"""Statistics of a data set. Goes in: an index; comes out: plain dictionaries and their text."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.ffmpeg.video_stream import HDR_TRANSFERS, WIDE_PRIMARIES, is_square
from preprocessing.schema import USABLE
from preprocessing.shards.index import Index


def summarise(index: Index) -> dict[str, Any]:
    """Number of clips by status and split, of frames and of bytes, and of clips that have as many frames as listed."""
    table = index.table
    usable = _usable(index)
    listed, counted = _numbers(table["listed_frames"]), _numbers(table["num_frames"])
    whole, num_bytes = _numbers(pc.coalesce(table["source_frames"], table["num_frames"])), _numbers(table["num_bytes"])
    is_listed = ~np.isnan(listed) & usable
    gap = np.abs(listed[is_listed] - whole[is_listed])
    return {
        "dataset": index.info.name,
        "annotations": index.info.annotations,
        "digest": index.digest,
        "num_classes": index.info.num_classes,
        "clips": table.num_rows,
        "usable": int(usable.sum()),
        "failed": int((~usable).sum()),
        "splits": _counts(table["split"]),
        "statuses": _counts(table["status"]),
        "num_frames": int(counted.sum()),
        "num_bytes": int(num_bytes.sum()),
        "left_out_frames": int((whole - counted).sum()),
        "left_out_bytes": round(float((num_bytes * (whole - counted) / np.maximum(counted, 1)).sum())),
        "cpu_seconds": round(float(_numbers(table["seconds"]).sum()), 1),
        "shards": len(index.shards),
        "listed": int(is_listed.sum()),
        "listed_match": int((gap == 0).sum()),
        "listed_within_1pc": int((gap <= 0.01 * whole[is_listed]).sum()),
        "sources": _peculiar_sources(table),
        "versions": index.versions,
        "spec": asdict(index.spec),
    }


def statistics(index: Index) -> dict[str, Any]:
    """All of `summarise`, the spread of lengths and sizes over clips with frames, and the number of clips by class."""
    table, usable = index.table, _usable(index)
    columns = ("num_frames", "duration_s", "fps", "height", "width", "num_bytes")
    quantiles = {}
    for name in columns:
        values = _numbers(table[name])[usable]
        values = values[~np.isnan(values)]
        points = np.quantile(values, [0, 0.5, 1]) if len(values) else [float("nan")] * 3
        quantiles[name] = dict(zip(("min", "median", "max"), (float(point) for point in points), strict=True))
    classes: dict[str, dict[str, int]] = {name: {} for name in index.info.class_names}
    for labels, split in zip(table["labels"].to_pylist(), table["split"].to_pylist(), strict=True):
        for label in dict.fromkeys(labels):
            counts = classes[index.info.class_names[label]]
            counts[split] = counts.get(split, 0) + 1
    return summarise(index) | {"quantiles": quantiles, "classes": classes}


def left_out_text(numbers: dict[str, Any]) -> str:
    """How many frames were not packed, and about how many bytes that saves; empty if all were."""
    if not (frames := numbers["left_out_frames"]):
        return ""
    share = numbers["left_out_bytes"] / (numbers["left_out_bytes"] + numbers["num_bytes"])
    return (
        f"{frames} more frames were left out (--frames-per-clip {numbers['spec']['frames_per_clip']}), which saves "
        f"about {numbers['left_out_bytes'] / 1e9:.2f} GB, {share:.0%}"
    )


def sources_text(numbers: dict[str, Any]) -> str:
    """How many sources are of each peculiar kind, and what was done about it; empty if there is none."""
    spec = numbers["spec"]
    is_mapped = spec["tone_map"] and spec["profile"] == "clean"
    done = {
        "interlaced": "made whole pictures" if spec["deinterlace"] else "packed as they are: --deinterlace mends them",
        "HDR or wide colours": "tone-mapped" if is_mapped else "packed as they are",
        "with pixels that are not square": "squeezed" if spec["profile"] == "paper" else "made square",
        "rotated": "turned upright",
    }
    found = [f"{number} {kind} ({done[kind]})" for kind, number in numbers["sources"].items() if number]
    return ", ".join(found)


def statistics_text(numbers: dict[str, Any], url: str) -> str:
    """The result of `statistics` as lines for people to read; `url` is where the data set lies."""
    lines = [
        f"{numbers['dataset']} in {url}, digest {numbers['digest']}, annotations: {numbers['annotations']}",
        f"{numbers['clips']} clips, {numbers['num_classes']} classes, {numbers['num_frames']} frames, "
        f"{numbers['num_bytes'] / 1e9:.2f} GB in {numbers['shards']} shards",
        "by split:  " + ", ".join(f"{number} {name}" for name, number in numbers["splits"].items()),
        "by status: " + ", ".join(f"{number} {name}" for name, number in numbers["statuses"].items()),
        f"ffmpeg {', '.join(numbers['versions']['ffmpeg'])}: {' '.join(numbers['versions']['argv'])}",
        f"{'':>12} {'min':>12} {'median':>12} {'max':>12}",
    ]
    if left_out := left_out_text(numbers):
        lines.insert(2, left_out)
    if sources := sources_text(numbers):
        lines.insert(-1, f"sources:   {sources}")
    for name, row in numbers["quantiles"].items():
        lines.append(f"{name:>12} {row['min']:>12.6g} {row['median']:>12.6g} {row['max']:>12.6g}")
    if numbers["listed"]:
        matching = f"{numbers['listed_match']} of {numbers['listed']} clips"
        lines.append(f"{matching} have the number of frames that the list states")
    lines.append("by class:")
    for name, counts in numbers["classes"].items():
        lines.append(f"  {name}: " + (", ".join(f"{number} {split}" for split, number in counts.items()) or "none"))
    return "\n".join(lines)


def clip_rows(index: Index, *, failed: bool, damaged: bool) -> list[dict[str, str]]:
    """Rows of the clips that failed or are damaged, with the reason."""
    names = ["status", "split", "clip_id", "source", "error"]
    rows: list[dict[str, str]] = index.table.select(names).to_pylist()
    return [row for row in rows if (failed and row["status"] not in USABLE) or (damaged and row["status"] == "damaged")]


def _peculiar_sources(table: pa.Table) -> dict[str, int]:
    """Number of clips by what their source says of itself."""
    is_hdr = pc.is_in(table["transfer"], pa.array(HDR_TRANSFERS))
    not_square = pa.array([each for each in table["sample_aspect"].unique().to_pylist() if not is_square(each)])
    kinds = {
        "interlaced": table["interlaced"],
        "HDR or wide colours": pc.or_kleene(is_hdr, pc.equal(table["primaries"], WIDE_PRIMARIES)),
        "with pixels that are not square": pc.is_in(table["sample_aspect"], not_square.cast(pa.string())),
        "rotated": pc.is_valid(table["rotation"]),
    }
    return {name: pc.sum(column).as_py() or 0 for name, column in kinds.items()}


def _usable(index: Index) -> np.ndarray:
    return np.asarray(pc.is_in(index.table["status"], pa.array(USABLE)))


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Values as float64, NaN where there is none."""
    return np.asarray(column.cast(pa.float64()).fill_null(float("nan")))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts: Counter[str] = Counter(column.to_pylist())
    return dict(sorted(counts.items()))
