from __future__ import annotations

import torch

from adafocus.training.seeding import seed_step


def test_seeds_differ_by_step_stage_and_epoch() -> None:
    draws = set()
    for step in ((0, "ppo", 0, 0), (0, "ppo", 0, 1), (0, "ppo", 1, 0), (0, "warmup", 0, 0), (1, "ppo", 0, 0)):
        seed_step(*step)
        draws.add(torch.rand(1).item())
    assert len(draws) == 5
