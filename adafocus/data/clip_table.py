"""Clips of a finished data set by number. Goes in: the index and the shards; comes out: JPEG bytes of single frames.

The index is memory-mapped: all workers of a machine share one copy. Frames are read by their byte offsets, and hardly
anything else of a shard is read.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from operator import eq
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adafocus.data.far_frames import FarFrames, FramePlace
from preprocessing.addresses import without_secrets
from preprocessing.frame_choice import EVALUATED, evaluation_frames, packed_frames
from preprocessing.media.jpeg import SOI
from preprocessing.schema import USABLE, UserError
from preprocessing.shards.archive import BLOCK
from preprocessing.shards.index import Index, read_index
from preprocessing.shards.mapped_index import map_index, open_mapped
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import check_rows

_OPEN_SHARDS = 128
_AT_ONCE = 10_000


class ShardError(UserError):
    """Frames that are not where the index says: their shard is cut, changed or gone."""


class ClipIds(Sequence[str]):
    """Ids of clips, read from the memory-mapped index when they are asked for: there may be millions."""

    def __init__(self, column: pa.StringArray, rows: np.ndarray) -> None:
        self._column, self._rows = column, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[str]: ...
    def __getitem__(self, number: int | slice) -> str | Sequence[str]:
        if isinstance(number, slice):
            return ClipIds(self._column, self._rows[number])
        return str(self._column[int(self._rows[number])].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self._column.take(pa.array(self._rows[start : start + _AT_ONCE])).to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none; mypy knows no such class


class ClipTable:
    """Rows of one split that have frames, numbered from 0 in the order of the index. Picklable and cheap to fork."""

    def __init__(
        self,
        shards: str | Path,
        split: str,
        limit: int | None = None,
        part: Callable[[str], bool] | None = None,
    ) -> None:
        """`part` says of a clip id whether it is of the split's part that is meant; None: all of it. `limit` keeps so
        many clips, evenly spread. Raises UserError if there are no clips, and for an index that makes no sense."""
        self.store = Store(shards)
        index, self._path = map_index(self.store)
        if not index.table.num_rows:
            raise UserError(f"{self.store.shown} has no clips in its index; `adafocus verify` says more")
        check_rows(index, self.store.shown)
        self._open(index)
        usable = pc.and_(
            pc.equal(index.table["split"], split), pc.is_in(index.table["status"], value_set=pa.array(USABLE))
        )
        rows = np.flatnonzero(usable.to_numpy())
        if not len(rows):
            present = sorted(set(index.table["split"].to_pylist()))
            raise UserError(
                f"{self.store.shown} has no usable clips in split {split!r}; its splits are {', '.join(present)}"
            )
        if part is not None:
            ids = index.table["clip_id"].take(pa.array(rows)).to_pylist()
            rows = rows[np.fromiter(map(part, ids), bool, len(rows))]
            if not len(rows):
                raise UserError(
                    f"data.held_out leaves no clip of split {split!r} of {self.store.shown} on one side: it has "
                    f"{len(ids)}; choose another share"
                )
        if limit is not None and limit < len(rows):
            rows = rows[np.arange(limit) * len(rows) // limit]
        self.rows = rows

    def _open(self, index: Index) -> None:
        self.info, self.digest, self.spec = index.info, index.digest, index.spec
        columns = {name: index.table[name].chunk(0) for name in index.table.column_names}
        self._ids, self._shard, self._key = columns["clip_id"], columns["shard"], columns["key"]
        self._labels, self._boxes = columns["labels"], columns["boxes"]
        self._first_offset = columns["first_offset"].fill_null(-1).to_numpy()
        self._size_bounds = columns["frame_sizes"].offsets.to_numpy()
        self._sizes = columns["frame_sizes"].values.to_numpy()
        self._source_frames = columns["source_frames"].fill_null(0).to_numpy()
        self._packed_bounds = columns["frame_indices"].offsets.to_numpy()
        self._packed = columns["frame_indices"].values.to_numpy()
        self._files: OrderedDict[str, IO[bytes]] = OrderedDict()
        self._far = None if self.store.local is not None else FarFrames(self.store)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("store", "rows", "_path")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open(open_mapped(self._path))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def clip_ids(self) -> ClipIds:
        """Ids of all clips."""
        return ClipIds(self._ids, self.rows)

    @property
    def max_labels(self) -> int:
        """The most labels that any clip of the data set has."""
        return int(np.diff(self._labels.offsets.to_numpy()).max())

    def places(self) -> tuple[list[str], list[str]]:
        """Shard and key of every clip."""
        rows = pa.array(self.rows)
        return self._shard.take(rows).to_pylist(), self._key.take(rows).to_pylist()

    def num_frames(self, number: int) -> int:
        """Frames of the clip, those included that were not packed."""
        row = self.rows[number]
        return int(self._source_frames[row]) or int(self._size_bounds[row + 1] - self._size_bounds[row])

    def packed(self, number: int) -> np.ndarray | None:
        """Which frames of the clip were packed, int32 ascending; None for all of them."""
        row = self.rows[number]
        first, end = self._packed_bounds[row : row + 2]
        return self._packed[first:end] if end > first else None

    def positions(self, number: int, frames: np.ndarray) -> np.ndarray:
        """Where the frames with these indices (T,) stand among the clip's packed ones. Raises ShardError for one that
        was not packed."""
        packed = self.packed(number)
        if packed is None:
            return frames
        places = np.searchsorted(packed, frames)
        if len(missing := frames[packed.take(places, mode="clip") != frames]):
            raise self.error(number, f"frame {missing[0]} was not packed")
        return places

    def check_packed(self, *counts: int, train: bool, spread: bool = False) -> None:
        """Raise UserError where frames were left out that clips of so many frames need. `spread`: these are candidates,
        which are spread over short clips in every data set."""
        candidates = self.spec.frames_per_clip
        if candidates is None:
            return
        kept = f"{self.store.shown} was packed with --frames-per-clip {candidates}"
        lengths = [length for length in np.unique(self._source_frames[self.rows]).tolist() if length]
        for count in counts:
            if train and count > max(candidates, *EVALUATED):
                raise UserError(f"{kept}, of which {count} frames a clip cannot be drawn: take fewer, or pack it anew")
            for length in [] if train or count in EVALUATED else lengths:
                wanted = evaluation_frames(length, count, "last" if spread else self.info.pad)
                if not np.isin(wanted, packed_frames(length, candidates)).all():
                    there = ", ".join(map(str, (*EVALUATED, candidates)))
                    raise UserError(
                        f"{kept}: the evaluation frames of {there} frames a clip are there, those of {count} are not; "
                        "take one of these numbers, or pack it anew"
                    )

    def frame_sizes(self, number: int) -> np.ndarray:
        """Bytes of each of the clip's JPEGs, int32 (N,), a view of the mapped index."""
        row = self.rows[number]
        return self._sizes[self._size_bounds[row] : self._size_bounds[row + 1]]

    def labels(self, number: int) -> list[int]:
        labels: list[int] = self._labels[int(self.rows[number])].as_py()
        return labels

    def class_shares(self) -> np.ndarray:
        """Share of the clips that each class has, float64 (K,) of sum 1: a clip of several labels counts for each by
        its part, a class of less than one clip as of one, for nothing can be said of a class that never comes."""
        bounds, rows = self._labels.offsets.to_numpy(), self.rows
        lengths = np.diff(bounds)[rows]
        places = np.arange(lengths.sum()) + np.repeat(bounds[rows] - (np.cumsum(lengths) - lengths), lengths)
        labels = self._labels.values.to_numpy()[places]
        counts = np.bincount(labels, np.repeat(1 / lengths, lengths), self.info.num_classes).clip(1)
        return counts / counts.sum()

    @property
    def has_boxes(self) -> bool:
        """Has any clip of this split boxes of its object?"""
        return self._boxes.take(pa.array(self.rows)).null_count < len(self.rows)

    def boxes(self, number: int) -> np.ndarray | None:
        """Object boxes of all packed frames, fractions (top, left, bottom, right), float32 (N, 4), where the clip has
        them; NaN in frames without the object."""
        boxes = self._boxes[int(self.rows[number])]
        if not boxes.is_valid:
            return None
        return np.asarray(boxes.values.values.to_numpy()[boxes.values.offset * 4 :][: len(boxes) * 4]).reshape(-1, 4)

    def read(self, number: int, frames: np.ndarray) -> list[np.ndarray]:
        """JPEG bytes, uint8 (n,), of the frames with these indices (T,). Raises ShardError if they are not there."""
        return self.read_clips([(number, frames)])[0]

    def read_clips(self, wanted: Sequence[tuple[int, np.ndarray]]) -> list[list[np.ndarray]]:
        """The same of several clips, given as their numbers and frames: side by side if they are far away."""
        places = [self._places(number, frames) for number, frames in wanted]
        shards = [self._shard[int(self.rows[number])].as_py() for number, _ in wanted]
        clips = list(zip(shards, places, strict=True))
        read = map(self._read_near, clips) if self._far is None else self._far.read(clips)
        found: list[list[np.ndarray]] = []
        try:
            for jpegs in read:
                for place, jpeg in zip(places[len(found)], jpegs, strict=True):
                    _check_jpeg(place, jpeg)
                found.append(jpegs)
        except FileNotFoundError:
            raise self.error(wanted[len(found)][0], "the shard is gone") from None
        except (ValueError, OSError) as error:
            raise self.error(wanted[len(found)][0], without_secrets(str(error))) from None
        return found

    def _places(self, number: int, frames: np.ndarray) -> list[FramePlace]:
        """Where the JPEGs of a clip's frames lie in its shard."""
        row, sizes = self.rows[number], self.frame_sizes(number)
        frames = self.positions(number, frames)
        # A frame's data is padded to whole blocks and followed by the next member's header.
        ends = np.cumsum((sizes[: int(frames.max()) + 1].astype(np.int64) + BLOCK - 1) // BLOCK * BLOCK + BLOCK)
        first, places = int(self._first_offset[row]), []
        for frame in frames.tolist():
            place = FramePlace(first + (int(ends[frame - 1]) if frame else 0), int(sizes[frame]))
            if place.size < len(SOI) or place.offset < 0:
                raise self.error(number, f"a frame of {place.size} bytes at byte {place.offset}")
            places.append(place)
        return places

    def _read_near(self, clip: tuple[str, Sequence[FramePlace]]) -> list[np.ndarray]:
        """The bytes of a clip's frames in a shard on this machine."""
        fd, found = self._file(clip[0]).fileno(), list[np.ndarray]()
        for place in clip[1]:
            data = np.empty(place.size, np.uint8)
            found.append(data[: os.preadv(fd, [data.data], place.offset)])
        return found

    def error(self, number: int, what: str) -> ShardError:
        """The error for a clip that cannot be read."""
        shard = self._shard[int(self.rows[number])].as_py()
        return ShardError(f"{shard}, clip {self.clip_ids[number]!r}: {what}: run `adafocus verify {self.store.shown}`")

    def _file(self, shard: str) -> IO[bytes]:
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        self._files[shard] = open(self.store.path(shard), "rb", buffering=0)  # noqa: SIM115  (for the next frames too)
        if len(self._files) > _OPEN_SHARDS:
            self._files.popitem(last=False)  # closed when nobody reads from it any more
        return self._files[shard]


def _check_jpeg(place: FramePlace, jpeg: np.ndarray) -> None:
    """Raise ValueError unless these are the bytes of one JPEG."""
    if len(jpeg) != place.size:
        raise ValueError(f"the shard ends before byte {place.offset + place.size}")
    if jpeg[: len(SOI)].tobytes() != SOI:
        raise ValueError(f"there is no frame at byte {place.offset}")


def is_held_out(clip_id: str, share: float) -> bool:
    """Is this one of the clips that training leaves out, about `share` of all? Its name alone decides."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:4]) < share * 2**32


def training_part(share: float) -> Callable[[str], bool] | None:
    """The part of the training split that is trained on where about `share` of it is left out."""
    return (lambda clip_id: not is_held_out(clip_id, share)) if share else None


def evaluation_split(shards: str | Path) -> str:
    """The split that a data set is evaluated on: `val`, else `test`. Raises UserError if it has neither."""
    store = Store(shards)
    splits = set(read_index(store, columns=["split"]).table["split"].unique().to_pylist())
    for split in ("val", "test"):
        if split in splits:
            return split
    raise UserError(
        f"{store.shown} has no split val or test to evaluate on; its splits are {', '.join(sorted(splits))}"
    )
