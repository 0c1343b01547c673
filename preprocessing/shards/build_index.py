"""Write the index of a data set. Goes in: a job and the records of its shards; comes out: index.parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocessing.schema import METADATA_KEY, SCHEMA_VERSION, Clip, with_all_columns
from preprocessing.shards.index import INDEX, Index, boxes_digest, content_digest
from preprocessing.shards.mapped_index import MAPPED, write_mapped
from preprocessing.shards.object_boxes import with_boxes
from preprocessing.shards.planning.job import Job
from preprocessing.shards.record import ShardRecord
from preprocessing.shards.storage import Store


def build_index(job: Job, clips: Sequence[Clip], records: Sequence[ShardRecord]) -> Index:
    """Merge the rows of all shards, one per clip, and write index.parquet: from then on the data set is complete.

    Where a clip has been tried more than once the last shard's row holds. Raises UserError for boxes that no frame of
    their clip can have.
    """
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda record: _read_rows(job.store, record.name), records))
    rows = pa.concat_tables(with_all_columns(table) for table in tables).combine_chunks()
    rows = rows.take(_places(rows["clip_id"].chunk(0), clips)).replace_schema_metadata(None)
    rows = with_boxes(rows, clips, job.spec)
    metadata = {
        "info": job.info.to_dict(),
        "schema": SCHEMA_VERSION,
        "spec": job.spec.to_dict(),
        "versions": _versions([json.loads(table.schema.metadata[METADATA_KEY]) for table in tables]),
        "shards": [asdict(record) for record in records],
        "digest": content_digest(job.info.to_dict(), job.spec.to_dict(), rows, records),
    }
    if boxes := boxes_digest(rows):
        metadata["boxes"] = boxes
    rows = rows.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    with job.store.atomic_write(INDEX) as partial:
        pq.write_table(rows, partial, compression="zstd", row_group_size=16_384)
    index = Index.of_table(rows)
    if job.store.local is not None:
        write_mapped(index, job.store.local / MAPPED)
    return index


def _places(ids: pa.StringArray, clips: Sequence[Clip]) -> pa.Array:
    """For each clip, which of these rows is the last of its id. Raises ValueError if there is none, or one of another
    clip."""
    wanted = pa.array([clip.clip_id for clip in clips], pa.string())
    if len(ids) == len(wanted):  # each was tried once
        places, others = pc.index_in(wanted, ids), 0
    else:
        last = {clip_id: row for row, clip_id in enumerate(ids.to_pylist())}
        places, others = pa.array(map(last.get, wanted.to_pylist()), pa.int64()), len(last) - len(wanted)
    if places.null_count or others:
        lost = wanted.filter(places.is_null())[:1].to_pylist()
        raise ValueError(
            f"{len(wanted)} clips went in, {len(wanted) - places.null_count + others} came out; lost: {lost}"
        )
    return places


def _read_rows(store: Store, name: str) -> pa.Table:
    with store.open(f"{name}.parquet") as file:
        return pq.read_table(file)


def _versions(shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the shards were made with: ffmpeg's versions (more than one on a mixed cluster) and its arguments."""
    ffmpeg = sorted({metadata["versions"]["ffmpeg"] for metadata in shards})
    return {"ffmpeg": ffmpeg, "argv": shards[0]["argv"] if shards else []}
