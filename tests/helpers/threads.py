"""What GNU's OpenMP says of itself when a process loads it: with OMP_DISPLAY_ENV it writes its settings to stderr."""

from __future__ import annotations

import os
import re

SLEEP = 0
"""How often a thread that waits looks again before it sleeps, with OMP_WAIT_POLICY=PASSIVE (without: 300,000 times)."""


def spin_counts(text: str) -> list[int]:
    """Of every process that wrote into `text`: how often a thread that waits looks again before it sleeps."""
    return [int(count) for count in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", text)]


def bare_environment(**more: str) -> dict[str, str]:
    """This environment without a policy, and with OpenMP's settings shown."""
    bare = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    return bare | {"OMP_DISPLAY_ENV": "VERBOSE"} | more
