"""The set-up of a process that Ray has started for a task or a trial."""

from __future__ import annotations

import logging

import ray
import torch

from pipelines.logs import start_logging


def start_worker() -> None:
    """Log to the driver's terminal, and use as many threads as Ray gave this worker CPUs."""
    start_logging(anew=True)
    for name in ("ray", "ray.train"):  # the second has a level of its own; it repeats every report of every worker
        logging.getLogger(name).setLevel(logging.WARNING)
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(cpus)))
