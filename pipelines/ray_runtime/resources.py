"""What a sweep asks of a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resources:
    """Workers, processors and limits of a sweep; nothing here changes a result."""

    workers_per_trial: int = 1
    """Processes that share a trial's batches and average their gradients."""
    cpus_per_worker: float = 0
    """0: the cluster's CPUs shared by the workers that run at once."""
    gpus_per_worker: float = 0
    max_concurrent: int = 0
    """Trials at once; 0: as many as fit."""
    max_failures: int = 3
    """Times that a trial whose worker died is started again, from its last state."""
    time_budget_h: float = 0
    """Hours after which a sweep stops; 0: never."""
    ray_address: str | None = None

    @property
    def starts_ray(self) -> bool:
        """Is Ray started on this machine, rather than a cluster joined?"""
        return not self.ray_address and not os.environ.get("RAY_ADDRESS")
