"""A look at the sources of clips with boxes, before the work: boxes that no frame can have are named at once.

Headers and lists of packets are read; nothing is decoded but where these speak against a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from preprocessing.media.extraction import Extraction
from preprocessing.media.frames import open_frames
from preprocessing.media.seeking.packets import read_packets
from preprocessing.processors import usable_cores
from preprocessing.schema import Clip, UserError
from preprocessing.shards.object_boxes import is_whole, place_in_frames, upright_size
from preprocessing.shards.planning.job import Job
from preprocessing.shards.planning.plan import ShardPlan

MOST = 500
"""So many clips are looked at, evenly spread: each costs the start of a process. The index is where all are checked."""


def probe_boxes(job: Job, plans: Sequence[ShardPlan]) -> None:
    """Raise UserError, with file and line, for a box of these shards' clips that no frame of its source can have.

    Sources far away are not fetched for that.
    """
    clips = [clip for plan in plans for clip in plan.clips if clip.source_boxes]
    if job.far is not None or not clips:
        return
    chosen = clips[:: -(-len(clips) // MOST)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        for fault in pool.map(lambda clip: _fault(job, clip), chosen):
            if fault:
                pool.shutdown(wait=False, cancel_futures=True)
                raise UserError(fault)


def _fault(job: Job, clip: Clip) -> str:
    """What is wrong with the boxes of a clip, empty if nothing is."""
    try:
        with job.source(clip) as path:
            if not path.exists():
                return ""
            if not path.is_dir():
                packets = read_packets(str(path), limits=job.limits)
                count = min(len(packets.stamps), job.spec.max_frames or len(packets.stamps))
                if not _reason(job, clip, Extraction("ok", num_frames=count, video=packets.log.video)):
                    return ""
            # A packet need not be a frame, so that frames are counted where it matters.
            spec = replace(job.spec, frames_per_clip=None)
            with open_frames(path, spec, end_s=clip.end_s, limits=job.limits) as stream:
                for _ in stream:
                    pass
            return _reason(job, clip, stream.result)
    except ValueError:  # it does not lie below the data root
        return ""


def _reason(job: Job, clip: Clip, result: Extraction) -> str:
    """Why no frame of the source can have one of the boxes, by what is known of it; empty if they can."""
    size = upright_size(result)
    if result.status != "ok" or size is None or not clip.source_boxes or not result.num_frames:
        return ""
    whole = is_whole(clip, job.spec, result.num_frames)
    try:
        place_in_frames(clip.source_boxes, *size, result.num_frames, is_whole=whole)
    except UserError as error:
        return str(error)
    return ""
