"""Locks on a stage: one process has it, the others wait, and one that died does not block them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch.multiprocessing as mp

from adafocus import distributed
from adafocus.config.schema import Config
from adafocus.training import stage_lock as locks
from adafocus.training import stage_runner
from adafocus.training.reports import EpochReport, Options
from adafocus.training.stage_lock import StageLock, StageLockLostError, holding


def hold(runs: Path, seconds: float) -> None:
    with holding(StageLock(runs, "s")):
        (runs / f"{os.getpid()}.in").touch()
        time.sleep(seconds)


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_holder_that_is_killed_makes_room_at_once(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, 600))
    process.start()
    wait_for(lambda: list(tmp_path.glob("*.in")))
    lock = StageLock(tmp_path, "s")
    assert lock.holder.startswith(f"process {process.pid} on ")
    assert not lock.acquire(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    started = time.monotonic()
    assert lock.acquire(5) and time.monotonic() - started < 2
    lock.release()
    assert lock.holder == ""


def foreign(path: Path, duration: float) -> None:
    """What a process of another machine would have written."""
    text = f"filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken={'0' * 32}\nduration={duration!r}\n"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_a_machine_that_died_blocks_for_the_length_of_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if its clock was a day ahead: only the waiting machine's clock counts."""
    monkeypatch.setattr(locks, "LEASE_S", 1.5)
    marker = tmp_path / ".locks" / "s.lock"
    foreign(marker, 1.5)
    os.utime(marker, (time.time() + 86400,) * 2)
    lock, started = StageLock(tmp_path, "s"), time.monotonic()
    assert lock.holder == "process 1 on elsewhere"
    assert not lock.acquire(0.5)
    assert lock.acquire(10)
    assert 1.4 < time.monotonic() - started < 6
    lock.release()


def test_a_lock_is_taken_from_the_dead_and_left_to_the_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 1.5)
    foreign(tmp_path / ".locks" / "s.lock", 1.5)
    mine = StageLock(tmp_path, "s")
    assert mine.take(), "the other machine was silent for the length of a lease"
    started = time.monotonic()
    assert not StageLock(tmp_path, "s").take() and time.monotonic() - started < 1.4, (
        "this process lives, as is plain at once"
    )
    mine.release()


def test_a_machine_that_lives_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 1.0)
    marker = tmp_path / ".locks" / "s.lock"
    foreign(marker, 1.0)
    alive = threading.Event()

    def beat() -> None:
        while not alive.wait(0.2):
            os.utime(marker)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert not StageLock(tmp_path, "s").acquire(3)
    finally:
        alive.set()
        thread.join()


def test_a_holder_whose_lock_was_taken_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 0.6)
    lock = StageLock(tmp_path, "s")
    assert lock.acquire()
    lock.check()
    marker = tmp_path / ".locks" / "s.lock"
    marker.unlink()
    foreign(marker, 0.6)
    wait_for(lambda: lock._lease.compromise is not None, 10)
    with pytest.raises(StageLockLostError, match="s was taken over by another process"):
        lock.check()
    lock.release()
    assert marker.exists(), "the other one's lock is not ours to end"


def train_noting(runs: Path, config: Config, shards: str, name: str) -> None:
    """Bring a stage to its end, and note whether this process has trained it."""

    class Noting(stage_runner.StageTrainer):
        def train(self) -> None:
            (runs / f"{os.getpid()}.trained").touch()
            super().train()

    (runs / f"{os.getpid()}.begun").touch()
    rows: list[EpochReport] = []
    with mock.patch.object(stage_runner, "StageTrainer", Noting):
        where = {"shards": shards, "runs": runs}
        stage_runner.run_stage(name, config, **where, options=Options(device="cpu"), report=rows.append)
    assert [row.clock for row in rows] == [1, 2]


def test_two_processes_that_need_a_stage_train_it_once(
    tiny_config: Config, synthetic_shards: str, tmp_path: Path
) -> None:
    """Another one and this one, which begin together."""
    arguments = (tmp_path, tiny_config, synthetic_shards, "pretrain")
    process = multiprocessing.get_context("spawn").Process(target=train_noting, args=arguments)
    process.start()
    wait_for(lambda: list(tmp_path.glob("*.begun")))
    train_noting(*arguments)
    process.join()
    assert process.exitcode == 0
    assert len(list(tmp_path.glob("*.trained"))) == 1
    assert not list((tmp_path / ".locks").iterdir())


def worker(rank: int, port: int, runs: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    locks.POLL_S = 0.5
    with holding(StageLock(runs, "s")):
        seen = distributed.gather((runs / "freed").exists())
    (runs / f"rank{rank}").write_text(str(seen))
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_group_waits_together(tmp_path: Path, free_port: int) -> None:
    """Longer than a turn, so that the workers ask each other again and again."""
    lock = StageLock(tmp_path, "s")
    assert lock.acquire()

    def free() -> None:
        time.sleep(8)
        (tmp_path / "freed").touch()
        lock.release()

    thread = threading.Thread(target=free)
    thread.start()
    mp.spawn(worker, (free_port, tmp_path), nprocs=2)
    thread.join()
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text() == "[True, True]"
