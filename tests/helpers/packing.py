"""Data sets packed by a plain loop in one process: what the distributed run has to agree with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preprocessing.datasets import synthetic
from preprocessing.schema import Clip, ExtractionSpec
from preprocessing.shards.build_index import build_index
from preprocessing.shards.index import Index
from preprocessing.shards.job import Job
from preprocessing.shards.plan import plan_shards
from preprocessing.shards.storage import Store
from preprocessing.shards.writer import write_shard


def pack(job: Job, clips: Sequence[Clip], sizes: Sequence[int] | None = None) -> Index:
    """Write the shards one after the other, then the index."""
    job.store.create()
    plans = plan_shards(clips, sizes or [1] * len(clips), job.clips_per_shard)
    return build_index(job, clips, [write_shard(job, plan) for plan in plans])


def pack_synthetic(root: Path, out: Path, height: int) -> str:
    """Pack the synthetic videos below `root`; where the data set is."""
    info, clips = synthetic.read_clips(root)
    job = Job(Store(out), root, info, ExtractionSpec(height=height), clips_per_shard=12)
    pack(job, clips)
    return job.store.url
