"""Data sets packed by a plain loop in one process: what the distributed run has to agree with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preprocessing.datasets import find_dataset, synthetic
from preprocessing.schema import Clip, ExtractionSpec
from preprocessing.shards.build_index import build_index
from preprocessing.shards.index import Index
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import plan_shards
from preprocessing.shards.planning.worklist import Worklist, open_worklist
from preprocessing.shards.record import finished_record
from preprocessing.shards.storage import Store
from preprocessing.shards.writer import write_shard
from preprocessing.sources import measure_sources

SPEC = ExtractionSpec(height=48)
"""As high as the small videos that tests make."""


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


Started = tuple[Job, list[Clip], Worklist]


def start(
    root: Path, out: Path | str, spec: ExtractionSpec = SPEC, *, retry_failed: bool = False, **options: object
) -> Started:
    """Start to pack a folder of videos, or go on with it: what `finish` takes."""
    info, clips = find_dataset("folder").read_clips(root)
    job = Job(Store(out), root, info, spec, clips_per_shard=4, **options)
    job.store.create()
    return job, clips, open_worklist(job, clips, measure_sources(root, clips), retry_failed=retry_failed)


def finish(job: Job, clips: list[Clip], work: Worklist) -> Index:
    """Write the shards that are not finished, then the index."""
    records = {record.name: record for record in work.finished}
    records |= {plan.name: finished_record(job, plan) or write_shard(job, plan) for plan in work.open_plans}
    return build_index(job, clips, [records[plan.name] for plan in work.plans])
