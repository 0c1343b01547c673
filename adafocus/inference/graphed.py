"""A model's whole pass as a CUDA graph: recorded once, then launched as one piece instead of as hundreds of kernels.

For few clips at a time, where a GPU is done with a kernel before the next one has been launched.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.outputs import Output
from preprocessing.schema import UserError

WARM_UP = 3
"""Passes before recording, in which kernels are chosen and workspaces made."""


class GraphedModel:
    """Inference of batches of one size. The graph holds the weights' places: what is loaded into them later is used."""

    def __init__(self, model: AdaFocus, glance_BTCHW: Tensor, focus_BTCHW: Tensor, patches: Patches = "policy") -> None:
        """Record the pass over frames like these; where the networks share frames pass them twice. Random patches
        would be the same in every pass. Raises UserError for a model that is not on a CUDA device, and for one whose
        sizes depend on what it sees."""
        if model.export_obstacle:
            raise UserError(f"method {model.config.method} cannot be a CUDA graph: {model.export_obstacle}")
        device = model.mean.device
        if device.type != "cuda":
            raise UserError(f"a CUDA graph needs a CUDA device, and the model is on {device}")
        self._glance = glance_BTCHW.to(device, copy=True)
        shared = focus_BTCHW is glance_BTCHW
        self._focus = self._glance if shared else focus_BTCHW.to(device, copy=True)
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.no_grad(), torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                model(self._glance, self._focus, patches)
        torch.cuda.current_stream(device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._graph):
            self._output = model(self._glance, self._focus, patches)

    def __call__(self, glance_BTCHW: Tensor, focus_BTCHW: Tensor) -> Output:
        """The pass over other frames of the same size. The next call overwrites what this one returns."""
        self._glance.copy_(glance_BTCHW, non_blocking=True)
        if self._focus is not self._glance:
            self._focus.copy_(focus_BTCHW, non_blocking=True)
        self._graph.replay()
        return self._output
