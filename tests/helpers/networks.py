"""Networks as tests want them."""

from __future__ import annotations

import torch
from torch import nn


def settle(module: nn.Module) -> nn.Module:
    """Batch norms with statistics and factors that matter."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.uniform_(part.bias, -0.2, 0.2)
    return module.eval()
