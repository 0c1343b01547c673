"""What a user asks to be extracted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from preprocessing.addresses import is_url
from preprocessing.clips import select_clips
from preprocessing.datasets import find_dataset
from preprocessing.media.extraction import DEFAULT_LIMITS, Limits
from preprocessing.schema import Clip, ExtractionSpec, UserError
from preprocessing.shards.far_root import FarRoot
from preprocessing.shards.object_boxes import check_boxes
from preprocessing.shards.planning.job import Job
from preprocessing.shards.storage import Store


@dataclass(frozen=True, slots=True)
class Request:
    """Which clips of a data set, from where, where to, and how."""

    dataset: str
    data_root: Path | str
    """Folder or URL of the videos and annotations."""
    out: str
    """Folder or URL for the shards."""
    spec: ExtractionSpec
    splits: tuple[str, ...] | None = None
    """None: all."""
    limit: int | None = None
    """Only so many clips of each split, the first ones."""
    clips_per_shard: int | None = None
    shard_bytes: int | None = None
    """See `Job`."""
    limits: Limits = DEFAULT_LIMITS
    """Of time and size, for each clip."""
    drop_damaged: bool = False
    """Leave out clips whose decoder reports errors."""

    @contextmanager
    def opened(self) -> Iterator[tuple[Job, list[Clip]]]:
        """The settings of the extraction, and its clips in their order. Raises UserError if there are none.

        A data root on object storage is mirrored on this machine until the block ends.
        """
        dataset = find_dataset(self.dataset)
        with tempfile.TemporaryDirectory(prefix="adafocus-") as mirror:
            root, far = Path(self.data_root).absolute(), None
            if is_url(str(self.data_root)):
                if dataset.maker:
                    raise UserError(f"{dataset.name} makes its videos itself: give a folder on this machine")
                root, far = Path(mirror), FarRoot(str(self.data_root))
                far.mirror(root)
            dataset.make(root)
            if not root.is_dir():
                what = "is no folder" if root.exists() else "does not exist"
                raise UserError(f"the data root {self.data_root} {what}; give the folder of the videos as --data-root")
            try:
                info, clips = dataset.read_clips(root)
                job = Job(Store(self.out), root, info, self.spec, self.clips_per_shard, self.shard_bytes)
                selected = select_clips(clips, self.splits, self.limit)
                check_boxes(selected, self.spec)
                yield replace(job, limits=self.limits, drop_damaged=self.drop_damaged, far=far), selected
            except UserError as error:  # of what is done in the block too: the mirror will be gone
                raise UserError(str(error).replace(mirror, far.shown)) if far else error from None
