"""How a finished shard is recognised: the record in the metadata of its rows file, and the check of its tar."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.ffmpeg.arguments import extraction_argv
from preprocessing.ffmpeg.program import ffmpeg_version
from preprocessing.schema import INDEX_SCHEMA, METADATA_KEY
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import ShardPlan
from preprocessing.shards.storage import Store


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """Size, hash and counts of a finished shard."""

    name: str
    num_clips: int
    num_bytes: int
    sha256: str
    statuses: dict[str, int]
    """Number of clips by status."""
    num_frames: int


def write_rows(job: Job, plan: ShardPlan, rows: list[dict[str, Any]], num_bytes: int, sha256: str) -> ShardRecord:
    """Write the rows file of a shard whose tar is written: from then on the shard is finished. Returns its record."""
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row["status"]] = statuses.get(row["status"], 0) + 1
    frames = sum(row["num_frames"] for row in rows)
    record = ShardRecord(plan.name, len(rows), num_bytes, sha256, statuses, frames)
    metadata = {
        "shard": asdict(record),
        "spec": job.spec.to_dict(),
        "versions": {"ffmpeg": ffmpeg_version()},
        "argv": ["ffmpeg", *extraction_argv("SOURCE", job.spec)[1:]],
    }
    schema = INDEX_SCHEMA.with_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    job.store.write(buffer.getvalue(), plan.rows)
    return record


def read_record(store: Store, name: str) -> tuple[ShardRecord, dict[str, Any]] | None:
    """Record of a finished shard and all metadata of its rows file; None if that cannot be read."""
    try:
        with store.open(f"{name}.parquet") as file:
            metadata = json.loads(pq.read_schema(file).metadata[METADATA_KEY])
        return ShardRecord(**metadata["shard"]), metadata
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None


def read_rows(store: Store, name: str) -> tuple[ShardRecord, pa.Table] | None:
    """Record and rows of a finished shard; None if they cannot be read."""
    stored = read_record(store, name)
    try:
        if stored is None:
            return None
        with store.open(f"{name}.parquet") as file:
            return stored[0], pq.read_table(file)
    except (OSError, pa.ArrowException):
        return None


def check_tar(file: pa.NativeFile, record: ShardRecord) -> str:
    """Read a shard's tar from front to back; what differs from its record (size or hash), empty if nothing does."""
    if file.size() != record.num_bytes:
        return f"{file.size()} bytes, {record.num_bytes} recorded"
    state = hashlib.sha256()
    while chunk := file.read(8 << 20):
        state.update(chunk)
    return "" if state.hexdigest() == record.sha256 else "its bytes have changed (SHA-256 differs)"


def finished_record(job: Job, plan: ShardPlan) -> ShardRecord | None:
    """Record of a shard that an earlier run finished: with the same settings, and its tar is whole. Else None."""
    stored = read_record(job.store, plan.name)
    if stored is None:
        return None
    record, metadata = stored
    if metadata["spec"] != job.spec.to_dict() or record.num_clips != len(plan.clips):
        return None
    try:
        with job.store.open(plan.tar) as file:
            return None if check_tar(file, record) else record
    except OSError:
        return None
