"""Convolutions fused with what follows them, on CPUs that can: fewer passes over memory, the same arithmetic.

On a CPU a network spends a third of its time on moving maps and weights. oneDNN computes a convolution together with
the addition and the activation behind it, and keeps weights in the order in which it reads them; torch.compile uses
the same kernels (`torch._inductor.fx_passes.mkldnn_fusion`), after a minute of compiling. The operators are private
ones, and which CPU runs them in which precision is for oneDNN to say: `available` asks by trying.
"""

from __future__ import annotations

import functools
import logging
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

log = logging.getLogger(__name__)

ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""What oneDNN can append to a convolution: its name and scalars."""
NOTHING: tuple[str, list[float]] = ("none", [])


@functools.cache
@torch.no_grad()
def available(dtype: torch.dtype) -> bool:
    """Whether this machine runs fused convolutions in `dtype`: tried once a process, on a small network.

    If it does not, the reason is logged.
    """
    with torch.random.fork_rng(devices=[]):  # nobody else's random numbers change
        network = _Trial().to(dtype).to(memory_format=torch.channels_last)
    images_NCHW = torch.ones(1, 8, 8, 8, dtype=dtype).to(memory_format=torch.channels_last)
    try:
        fuse(fx.symbolic_trace(network), images_NCHW)(images_NCHW)
    except (RuntimeError, AttributeError) as error:  # the second where torch has no such operator
        log.info("this CPU runs no fused convolutions in %s, plain ones are used: %s", dtype, str(error).split("\n")[0])
        return False
    return True


class _Trial(nn.Module):
    """One convolution of each kind that is fused: alone, grouped, with an addition, each with another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.relu6, self.relu = nn.ReLU6(), nn.ReLU()

    def forward(self, map_NChw: Tensor) -> Tensor:
        first = self.relu6(self.first(map_NChw))
        return self.relu(self.last(self.grouped(first)) + first)


class FusedConv(nn.Module):
    """A convolution, optionally the addition of another map, and an activation, in one kernel."""

    def __init__(self, conv: nn.Conv2d, shape: torch.Size, activation: tuple[str, list[float]]) -> None:
        """`shape` is that of the maps to come; weights are laid out for it, though others work too."""
        super().__init__()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.name, self.scalars = activation
        self.bias = conv.bias
        weight = conv.weight.detach().to(memory_format=torch.channels_last)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, list(shape))

    def forward(self, map_NChw: Tensor, other_NChw: Tensor | None = None) -> Tensor:
        """The new map. `other_NChw` is added before the activation, and overwritten."""
        if other_NChw is None:
            return torch.ops.mkldnn._convolution_pointwise(
                map_NChw, self.weight, self.bias, *self.geometry, self.name, self.scalars, ""
            )
        name = None if self.name == "none" else self.name
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other_NChw, map_NChw, self.weight, self.bias, *self.geometry, "add", 1.0, name, self.scalars, ""
        )


@torch.no_grad()
def fuse(folded: fx.GraphModule, images_NCHW: Tensor) -> fx.GraphModule:
    """`folded` with every convolution fused with what follows it, for images like these; `folded` is not changed.

    Convolutions inside other leaves (the temporal shift) stay as they are.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(folded.graph, {}))
    fused = fx.GraphModule(folded, graph)
    ShapeProp(fused).propagate(images_NCHW)
    modules = dict(fused.named_modules())
    position = {node: number for number, node in enumerate(graph.nodes)}
    for number, node in enumerate([node for node in graph.nodes if _is_conv(node, modules)]):
        shape = node.args[0].meta["tensor_meta"].shape
        last, other = _addition(node, position)
        activation = NOTHING
        following = list(last.users)
        if len(following) == 1 and following[0].op == "call_module":
            activation = ACTIVATIONS.get(type(modules[following[0].target]), NOTHING)
            last = following[0] if activation is not NOTHING else last
        fused.add_module(f"fused_{number}", FusedConv(modules[node.target], shape, activation))
        arguments = (node.args[0],) if other is None else (node.args[0], other)
        with graph.inserting_after(last):
            new = graph.call_module(f"fused_{number}", arguments)
        new.meta, position[new] = dict(last.meta), position[last]
        last.replace_all_uses_with(new)
        graph.eliminate_dead_code()
    fused.delete_all_unused_submodules()
    fused.recompile()
    return fused


def _is_conv(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    conv = modules[str(node.target)] if node.op == "call_module" else None
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _addition(node: fx.Node, position: dict[fx.Node, int]) -> tuple[fx.Node, fx.Node | None]:
    """The sum that a convolution goes into and its other term, if that is there already and needed no more."""
    (user,) = node.users if len(node.users) == 1 else (None,)
    if user is None or user.op != "call_function" or user.target not in (operator.add, operator.iadd):
        return node, None
    terms: list[Any] = [term for term in user.args if term is not node]
    if len(terms) != 1 or not isinstance(terms[0], fx.Node) or terms[0].op == "placeholder":
        return node, None
    (other,) = terms
    spare = all(each is user or position[each] < position[node] for each in other.users)
    return (user, other) if spare and position[other] < position[node] else (node, None)
