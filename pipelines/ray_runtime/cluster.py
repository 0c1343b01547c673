"""The Ray cluster that this process is connected to: its machines and what they have."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import ray
from ray.util.state import list_nodes

log = logging.getLogger(__name__)

Node = Mapping[str, float]
"""What one machine has: `CPU`, `GPU`."""


def nodes() -> list[Node]:
    """The machines of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def largest(kind: str) -> int:
    """The most that one machine has of a resource, `CPU` or `GPU`: a worker cannot have more."""
    return max((int(node.get(kind, 0)) for node in nodes()), default=0)


def total_of(kind: str) -> int:
    """What all machines together have of a resource."""
    return int(ray.cluster_resources().get(kind, 0))


def has_dashboard(patience_s: float = 20) -> bool:
    """Does the cluster answer State API calls, as its dashboard does? One that has just started is given time."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            list_nodes(address=ray.get_runtime_context().gcs_address, timeout=5)  # there may be other clusters here
            return True
        except Exception as error:  # of many kinds, by what is missing
            if time.monotonic() > deadline:
                log.info("%s", error)
                return False
            time.sleep(0.5)
