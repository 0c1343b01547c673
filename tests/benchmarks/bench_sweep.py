"""What a sweep costs beside the work: four small trials by `adafocus tune` against the same four runs in a plain loop.

    python tests/benchmarks/bench_sweep.py [--epochs N]

Both train the same stages on the same synthetic clips, one trial after the other, each with all processors. Aims: at
most 15 s of fixed cost and 5 % on top of the loop; at most 5 ms of the training loop's time for reporting a metric.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers, but behind this checkout's packages
sys.path.insert(0, str(Path(__file__).parents[2]))

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import stage_names
from adafocus.training.reports import EpochReport, Options
from helpers.packing import pack_synthetic
from helpers.tiny import SYNTHETIC, TINY
from pipelines.paths import Places
from pipelines.ray_runtime.resources import Resources
from pipelines.recipes.cpu import demo
from pipelines.sweeps.driver import run_sweep
from pipelines.sweeps.search.space import Space
from pipelines.sweeps.sweep import Sweep
from pipelines.tracking.client import Tracker
from pipelines.training.epoch_reporter import EpochReporter
from pipelines.training.train import to_mlflow, train
from preprocessing.datasets import synthetic

GAMMAS = [0.5, 0.6, 0.7, 0.8]
FIXED_S, SHARE, REPORT_MS = 15.0, 0.05, 5.0


def make_shards(folder: Path) -> str:
    """The tests' small synthetic data set, packed."""
    (folder / "videos").mkdir()
    synthetic.make(folder / "videos", SYNTHETIC)
    return pack_synthetic(folder / "videos", folder / "shards", SYNTHETIC.size)


def loop_s(config: Config, shards: str, runs: Path) -> float:
    """Seconds of four runs one after the other in this process; stages that they share are trained once here too."""
    started = time.monotonic()
    places = Places.of(shards, runs)
    for gamma in GAMMAS:
        train(override(config, {"ppo.gamma": gamma}), "demo", places, Options(device="cpu"), f"gamma={gamma}")
    return time.monotonic() - started


def sweep_s(config: Config, shards: str, runs: Path) -> float:
    """Seconds of the same as a sweep, the start and the end of Ray included."""
    started = time.monotonic()
    space, resources = Space({"ppo.gamma": list(GAMMAS)}), Resources(max_concurrent=1)
    outcome = run_sweep(
        Sweep("bench", config, "demo", space, Places.of(shards, runs), Options(device="cpu"), resources)
    )
    assert [result.status for result in outcome.trials] == ["finished"] * len(GAMMAS)
    return time.monotonic() - started


def report_ms(runs: Path) -> list[float]:
    """Milliseconds of the training loop for each of 200 reports of 25 metrics, 20 ms apart, to a real SQLite store."""
    run = Tracker.at(Places.of("", runs)).run("bench", "trial", "reports", sweep="", trial="reports")
    times = []
    with EpochReporter(to_mlflow(run, "top1")) as reporter:
        for clock in range(1, 201):
            row = EpochReport("ppo", clock, {f"ppo/m{n}": float(n) for n in range(25)}, int(time.time() * 1000))
            started = time.perf_counter()
            reporter(row)
            times.append((time.perf_counter() - started) * 1000)
            time.sleep(0.02)
    assert len(run.curve("ppo/m0")) == 200, "a report was lost"
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="of each stage")
    epochs = parser.parse_args().epochs
    config = override(demo(), {**TINY, **{f"{stage}.epochs": epochs for stage in stage_names()}})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = make_shards(folder)
        Tracker.at(Places.of(shards, folder / "first"))  # not to count what a first import costs
        loop, sweep = loop_s(config, shards, folder / "loop"), sweep_s(config, shards, folder / "sweep")
        times = sorted(report_ms(folder / "reports"))
    allowed = FIXED_S + (1 + SHARE) * loop
    slowest = times[int(len(times) * 0.99)]
    print(f"loop {loop:.1f} s, sweep {sweep:.1f} s: {sweep - loop:.1f} s more (allowed {allowed - loop:.1f} s)")
    print(f"report: median {statistics.median(times):.3f} ms, 99 % {slowest:.3f} ms (allowed {REPORT_MS:.0f} ms)")
    return int(sweep > allowed or slowest > REPORT_MS)


if __name__ == "__main__":
    raise SystemExit(main())
