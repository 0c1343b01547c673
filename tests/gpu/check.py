"""Runs all checks of a GPU, part by part, and prints what they found as one table: `make gpu-check`.

Each part is a process of its own with a limit of time. What crashes, hangs or breaks the card's context ends its own
process: the tests that were left go on in a new one, and all rows found so far stay.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.gpu_report import Report  # noqa: E402


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the checks."""

    name: str
    seconds: float
    """That it may take. What it leaves is for those behind it."""
    files: tuple[str, ...]
    """Patterns below the root."""


PARTS = (
    Part("parity", 40, ("tests/test_parity*.py",)),
    Part("exact", 50, ("tests/gpu/test_exact.py",)),
    Part("no waiting", 40, ("tests/gpu/test_no_waiting.py",)),
    Part("inference", 80, ("tests/gpu/test_inference.py",)),
    Part("training", 60, ("tests/gpu/test_training.py",)),
    Part("fed", 40, ("tests/gpu/test_fed.py",)),
    Part("whole", 50, ("tests/gpu/test_whole.py",)),
    Part("same bits", 60, ("tests/gpu/test_same_bits.py",)),
    Part("compiled", 50, ("tests/gpu/test_compiled.py",)),
)
"""470 seconds in all, in the order in which they run."""
GRACE_S = 8
"""How long a part may go on with a test that it began in time."""
LEAST_S = 6
"""With less it is not begun."""


TIME_IS_OVER = "its time was over"


def run_part(part: Part, until: float, options: Sequence[str], log: IO[str], root: Path = ROOT) -> Report:
    """Run a part, in as many processes as it takes, until a time (in seconds since 1970)."""
    files = [str(path) for pattern in part.files for path in sorted(root.glob(pattern))]
    reports: list[Report] = []
    done: list[str] = []
    while True:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.json"
            how = _run(part, files, until, [*options, *(f"--gpu-done={name}" for name in done)], path, log)
            found = Report.read(path)
        reports.append(found)
        if found.running:
            found.done.append(found.running)
            found.failed.append(f"{part.name}: {_short(found.running)}: {how or 'its process ended'}")
        elif how and not found.failed:
            found.failed.append(f"{part.name}: {how}")
        done += found.done
        if not (found.running or found.broken):
            return Report.joined(reports)
        if how == TIME_IS_OVER or until - time.time() < LEAST_S:
            found.left_out.append(f"{part.name}: what comes behind {_short(done[-1])}")
            return Report.joined(reports)


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _run(part: Part, files: Sequence[str], until: float, options: Sequence[str], report: Path, log: IO[str]) -> str:
    """Run one process; how it ended if not as pytest ends."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    if part.name == "same bits":  # read once, when the card is first used
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    argv = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "pytest",
        "-p",
        "helpers.gpu_recorder",
        "-p",
        "no:cacheprovider",
    ]
    argv += ["--tb=short", "--gpu-report", str(report), "--gpu-part", part.name, "--gpu-until", str(until)]
    process = subprocess.Popen(
        [*argv, *options, *files], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        status = process.wait(max(until + GRACE_S - time.time(), 1))
    except subprocess.TimeoutExpired:
        return TIME_IS_OVER
    finally:
        _end(process)
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    if not report.exists():
        return f"pytest could not start (status {status})"
    return "" if status in (0, 1, 2, 5) else f"pytest ended with status {status}"  # 2: stopped, 5: there was no test


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started, such as a loader's."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_parts(parts: Sequence[Part], out: Path, options: Sequence[str], root: Path = ROOT) -> Report:
    """Run parts, and write what is known so far after each of them, with all that pytest prints beside it (.log). A
    part that fails takes nothing from the others."""
    reports: list[Report] = []
    until = time.time()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".log").open("w") as log:
        for part in parts:
            until += part.seconds
            started = time.time()
            if until - started < LEAST_S:
                reports.append(Report(left_out=[f"{part.name}: all of it"]))
            else:
                reports.append(run_part(part, until, options, log, root))
            Report.joined(reports).write(out)
            passed, failed = reports[-1].passed, len(reports[-1].failed)
            print(f"{part.name}: {passed} passed, {failed} failed, {time.time() - started:.0f} s", flush=True)
    return Report.joined(reports)


def main() -> int:
    """The command line; 1 if anything failed or missed its goal."""
    parser = argparse.ArgumentParser(description="Check and measure a GPU.")
    parser.add_argument("parts", nargs="*", help=f"{', '.join(part.name for part in PARTS)} [all]")
    parser.add_argument(
        "--cpu", action="store_true", help="prove the checks on a CPU, tiny; of parts that are named also slow ones"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - {part.name for part in PARTS})
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}")
    slower = 20 if options.cpu else 1
    parts = [
        replace(part, seconds=slower * part.seconds)
        for part in PARTS
        if part.name in options.parts or not options.parts
    ]
    out = Path(os.environ.get("OUT", ".")) / "gpu-check.json"
    cases = "gpu" if not options.cpu else "not gpu" if options.parts else "not gpu and not slow"
    report = run_parts(parts, out, ["-m", cases])
    name = report.machine.get("device", "unknown: no test could start")
    print(
        f"\n== what was found on {name} ==\n{report.table()}\n{report.passed} tests passed; {out} has the rows, "
        f"{out.with_suffix('.log')} what pytest printed"
    )
    return not report.good


if __name__ == "__main__":
    sys.exit(main())
