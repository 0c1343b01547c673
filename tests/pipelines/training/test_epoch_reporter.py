"""Reports leave the training loop at once and arrive in order, whatever the sinks do."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from adafocus.training.reports import EpochReport
from pipelines.training.epoch_reporter import EpochReporter


def row(clock: int) -> EpochReport:
    return EpochReport("ppo", clock, {"ppo/loss": 0.0}, 0)


def test_a_slow_sink_costs_the_loop_nothing_and_loses_nothing() -> None:
    seen: list[list[int]] = []

    def slow(rows: Sequence[EpochReport]) -> None:
        time.sleep(0.3)
        seen.append([row.clock for row in rows])

    with EpochReporter(slow) as reporter:
        started = time.monotonic()
        for clock in range(20):
            reporter(row(clock))
        assert time.monotonic() - started < 0.1
    assert [clock for rows in seen for clock in rows] == list(range(20))
    assert len(seen) <= 3, "what gathers while a request is under way goes with the next one"


def test_the_loop_may_be_kept_from_running_ahead() -> None:
    """Of ten rows at most one waits in the queue while another is passed on."""
    arrived, most = [], 0

    def slow(rows: Sequence[EpochReport]) -> None:
        time.sleep(0.05)
        arrived.extend(row.clock for row in rows)

    with EpochReporter(slow, ahead=1) as reporter:
        for clock in range(10):
            reporter(row(clock))
            most = max(most, clock + 1 - len(arrived))
    assert arrived == list(range(10))
    assert most <= 3, "the row just put, and two that are being passed on at once"


def test_a_loop_that_waits_hears_of_a_broken_sink() -> None:
    def broken(rows: Sequence[EpochReport]) -> None:
        time.sleep(0.2)
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"), EpochReporter(broken, ahead=1) as reporter:
        for clock in range(10):
            reporter(row(clock))


def test_rows_arrive_although_the_training_raises() -> None:
    seen: list[int] = []
    with (
        pytest.raises(ValueError, match="diverged"),
        EpochReporter(lambda rows: seen.extend(r.clock for r in rows)) as report,
    ):
        report(row(1))
        raise ValueError("diverged")
    assert seen == [1]


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_what_a_sink_raises_ends_the_training_at_its_next_report(kind: type[BaseException]) -> None:
    raised = threading.Event()

    def broken(rows: Sequence[EpochReport]) -> None:
        raised.set()
        raise kind("the store is gone")

    reports = 0
    with pytest.raises(kind, match="the store is gone"), EpochReporter(broken) as reporter:
        reporter(row(1))
        raised.wait()
        time.sleep(0.05)
        for clock in range(2, 10):
            reporter(row(clock))
            reports += 1
    assert reports == 0


def test_a_sink_that_fails_at_the_end_is_not_passed_over() -> None:
    def broken(rows: Sequence[EpochReport]) -> None:
        time.sleep(0.1)
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"), EpochReporter(broken) as reporter:
        reporter(row(1))


def test_the_training_error_is_the_one_that_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    def broken(rows: Sequence[EpochReport]) -> None:
        time.sleep(0.1)
        raise RuntimeError("the store is gone")

    with pytest.raises(ValueError, match="diverged"), EpochReporter(broken) as reporter:
        reporter(row(1))
        raise ValueError("diverged")
    assert "the last reports were lost: RuntimeError('the store is gone')" in caplog.text
