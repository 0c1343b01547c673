"""What the speed benchmarks share: fair timing on a machine that others use too. Importing it makes `helpers` known."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adafocus.devices import keep_freed_memory

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers, but behind this checkout's packages
sys.path.insert(0, str(Path(__file__).parents[2]))

CLIPS = 2


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options that both benchmarks have; sets the number of threads, and for all that is timed alike what a process
    of ours does with freed memory."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.cpu_time else 2)
    keep_freed_memory()
    return options


@dataclass(frozen=True, slots=True)
class Times:
    """Of one entry, in seconds."""

    first: float
    """Of the first run: compiling is in it."""
    best: float


def race(runs: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, Times]:
    """Times of each, taking turns: a busy moment of the machine then meets all of them alike."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: Times(first, min(others)) for name, (first, *others) in seconds.items()}


def report(title: str, times: dict[str, Times], targets: dict[str, float]) -> bool:
    """Print times and ratios to the first run; are all targets reached?

    A target named `a or b` is one for the faster of the two, of which `b` need not have run.
    """
    plain = next(iter(times.values())).best
    ratios = {name: plain / each.best for name, each in times.items()}
    print(f"\n{title}\n{'':28}{'seconds':>9}{'first':>9}{'ratio':>8}")
    for name, each in times.items():
        print(f"{name:28}{each.best:9.3f}{each.first:9.3f}{ratios[name]:8.2f}")
    ok = True
    for target, wanted in targets.items():
        reached = {name: ratios[name] for name in target.split(" or ") if name in ratios}
        name = max(reached, key=reached.__getitem__)
        met = reached[name] >= wanted
        print(f"target {wanted:g} for {target}: {reached[name]:.2f} ({name}), {'reached' if met else 'missed'}")
        if not met and "bf16" in target and not torch.cpu._is_amx_tile_supported():
            print("(it is meant for CPUs with matrix units, AMX; this one has none and does not fail for it)")
            met = True
        ok &= met
    return ok
