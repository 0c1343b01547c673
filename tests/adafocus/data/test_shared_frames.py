"""Memory that workers share is used again, but never while anything still shows what is in it."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from adafocus.data.batches import Batch, SentBatch
from adafocus.data.shared_frames import _MOST_KEPT, SharedFrames, receive

NUM_BATCHES, SHAPE = 40, (2, 3, 3, 8, 8)


class Numbered(Dataset[SentBatch]):
    """Batch n is full of the number n; `own`: focus frames of their own, full of n + 100."""

    def __init__(self, own: bool) -> None:
        self.shared, self.own = SharedFrames(), own

    def __getitem__(self, number: int) -> SentBatch:
        glance = self.shared.take(int(np.prod(SHAPE))).view(SHAPE).fill_(number)
        focus = self.shared.take(int(np.prod(SHAPE))).view(SHAPE).fill_(number + 100) if self.own else glance
        boxes = torch.full((2, 3, 4), float(number)) if self.own else None
        return SentBatch(Batch(glance, focus, torch.tensor([[number], [-1]]), [str(number), "x"], boxes))


def loader(own: bool, num_workers: int = 2) -> DataLoader[Batch]:
    numbers = list(range(NUM_BATCHES))
    return DataLoader(Numbered(own), batch_size=None, sampler=numbers, num_workers=num_workers, persistent_workers=True)


def check(batch: Batch, number: int) -> None:
    assert (batch.glance_BTCHW == number).all()
    assert (batch.focus_BTCHW == (number if batch.focus_BTCHW is batch.glance_BTCHW else number + 100)).all()
    assert batch.labels_BL.tolist() == [[number], [-1]] and batch.clip_ids == [str(number), "x"]


@pytest.mark.parametrize("own", [False, True])
def test_a_batch_arrives_as_it_was_sent(own: bool) -> None:
    for number, batch in enumerate(loader(own)):
        check(batch, number)
        assert (batch.focus_BTCHW is batch.glance_BTCHW) == (not own)
        assert batch.boxes_BT4 is None if not own else (batch.boxes_BT4 == number).all()


def test_what_is_still_held_keeps_its_content() -> None:
    """A whole batch, a view, an array, in two epochs, and however many: later batches go elsewhere."""
    batches = loader(own=True)
    whole, views, arrays = [], [], []
    for epoch in range(2):
        for number, batch in enumerate(batches):
            if number % 3 == 0:
                whole.append((number, batch))
            elif number % 3 == 1:
                views.append((number, batch.glance_BTCHW[1, 1:, :, 2]))
            else:
                arrays.append((number, batch.focus_BTCHW.numpy()[0]))
            del batch
        if epoch == 0:
            assert next(iter(batches)).labels_BL[0] == 0  # and one epoch is broken off
    for number, batch in whole:
        check(batch, number)
    assert all((view == number).all() for number, view in views)
    assert all((array == number + 100).all() for number, array in arrays)


def test_memory_is_used_again() -> None:
    """A worker that made 80 batches has mapped the memory of few."""
    batches = loader(own=False, num_workers=1)
    for _ in range(2):
        for number, batch in enumerate(batches):
            check(batch, number)
            del batch
        next(iter(batches))  # broken off: batches that nobody has seen
    worker = psutil.Process(batches._iterator._workers[0].pid)  # other tests may have left processes of their own
    shared = [place for place in worker.memory_maps(grouped=False) if place.path.startswith("/dev/shm/torch_")]
    assert 1 <= len(shared) <= 5


def test_memory_is_free_when_the_last_view_of_it_is_gone() -> None:
    shared = SharedFrames()
    frames = shared.take(12).view(3, 4)
    place = frames.data_ptr()
    frames.copy_(torch.arange(12).view(3, 4))
    received = receive(frames.t())
    assert received.tolist() == frames.t().tolist() and received.data_ptr() == place
    view = received[1:]
    del received
    assert shared.take(12).data_ptr() != place
    del view
    assert shared.take(12).data_ptr() == place
    assert shared.take(12).data_ptr() != place  # nobody has let go of it since


def test_the_smallest_piece_that_fits_is_taken() -> None:
    shared = SharedFrames()
    large, small = shared.take(100), shared.take(10)
    places = large.data_ptr(), small.data_ptr()
    del large, small
    for frames in shared._kept:
        receive(frames[:-1])
    assert shared.take(8).data_ptr() == places[1]
    assert shared.take(11).data_ptr() == places[0]


def test_no_more_is_kept_than_is_of_use() -> None:
    shared = SharedFrames()
    held = [shared.take(10) for _ in range(_MOST_KEPT + 3)]
    assert len({frames.data_ptr() for frames in held}) == len(held)
    assert len(shared._kept) == _MOST_KEPT
    shared.let_go()
    assert not shared._kept and all(len(frames) == 10 for frames in held)


def test_a_sent_batch_becomes_a_batch_where_it_arrives() -> None:
    sent = Numbered(own=False)[7]
    arrived = pickle.loads(bytes(ForkingPickler.dumps(sent)))
    check(arrived, 7)
