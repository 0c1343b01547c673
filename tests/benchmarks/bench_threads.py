"""Inference with OpenMP's own way of waiting and with OMP_WAIT_POLICY=PASSIVE, alone and beside busy neighbours.

Threads that wait for each other spin for a while unless they are told to sleep: nothing lost where the cores are
theirs, but beside other processes a thread that spins keeps the one from running that it waits for. Two processes with
a model each take turns at a pass (activitynet-128, two clips, a thread a core); the neighbours are as many processes as
there are cores, each of which keeps one busy. `--rounds` repeats.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import torch  # before adafocus, which would set the policy
from ratios import CLIPS, options_of, race, report

from adafocus.acceleration.accelerate import accelerate
from helpers.settled import settled_model, video
from pipelines.recipes import find_recipe

POLICY = "OMP_WAIT_POLICY"
DEFAULT, PASSIVE = "as OpenMP waits by itself", "passive"
ALONE, BESIDE = {PASSIVE: 0.95}, {PASSIVE: 1.2}
"""Aims: passive loses nothing alone, and gains beside neighbours."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@torch.inference_mode()
def serve() -> None:
    """Make a pass for every line that is read, and answer each."""
    torch.set_num_threads(CORES)
    model, frames = accelerate(settled_model(find_recipe("activitynet-128"))), video(1, CLIPS, 16)
    for _ in sys.stdin:
        model(frames, frames)
        print("done", flush=True)


class Server:
    """A process that makes passes."""

    def __init__(self, policy: str | None) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in (POLICY, "OMP_NUM_THREADS")}
        environment |= {POLICY: policy} if policy else {}
        argv = [sys.executable, __file__, "--serve"]
        self.process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __call__(self) -> None:
        """One pass."""
        assert self.process.stdin and self.process.stdout
        print(file=self.process.stdin)
        if self.process.stdout.readline() != "done\n":
            raise RuntimeError("the process that makes passes has died")

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def neighbours() -> Iterator[None]:
    """While entered, every core has another process at work."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> bool:
    """Returns whether the aims are reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="make passes for the benchmark (it starts such processes)")
    options = options_of(parser)
    if options.serve:
        serve()
        return True
    options.cpu_time = False  # time passes in other processes
    servers = {DEFAULT: Server(None), PASSIVE: Server("PASSIVE")}
    try:
        where = f"inference, {CLIPS} clips, {CORES} threads"
        ok = report(f"{where}, alone", race(servers, options), ALONE)
        with neighbours():
            ok &= report(f"{where}, beside {CORES} busy processes", race(servers, options), BESIDE)
    finally:
        for server in servers.values():
            server.stop()
    return ok


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
