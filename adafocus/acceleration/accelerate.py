"""The same model, faster where nothing learns: batch norms folded, kernels fused, channels last, 16 bits, compiled.

`accelerate` is for inference and for the frozen networks of training stages. It needs evaluation mode: folded batch
norms use their running statistics.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adafocus.acceleration import fuse
from adafocus.config.schema import Precision
from adafocus.models.adafocus import AdaFocus
from adafocus.models.adafocus_plus import AdaFocusPlus
from adafocus.models.backbones import Backbone
from adafocus.models.shift import Shifted
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Tracer(fx.Tracer):
    """Keeps whole what cannot be traced: the temporal shift, which writes into slices, and convolutions that pad by the
    size of their input."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, Shifted | nn.Conv2d) or super().is_leaf_module(module, qualified_name)


def fold_batch_norms(body: nn.Module) -> nn.Module:
    """A copy of an image network, in evaluation mode, whose batch norms behind convolutions are gone.

    Equal to the original up to rounding. Batch norms that follow something else stay, and so do those of a network
    whose course depends on its input, as that of a vision transformer does, which has none.
    """
    body = copy.deepcopy(body).eval().requires_grad_(False)
    _divide_norms(body)
    try:
        graph = _Tracer().trace(body)
    except Exception as error:  # of whatever kind a network raises that looks at its input
        log.debug("%s is not traced: %s", type(body).__name__, error)
        return body
    modules = dict(body.named_modules())
    for node in list(graph.nodes):
        if node.op == "call_module" and type(modules[node.target]) is nn.Identity:  # it would part kernels to be fused
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in list(graph.nodes):
        before = node.args[0] if node.args else None
        if not (node.op == "call_module" and isinstance(modules[node.target], nn.BatchNorm2d)):
            continue
        if not (isinstance(before, fx.Node) and before.op == "call_module" and len(before.users) == 1):
            continue
        name = str(before.target)
        name += ".layer" if isinstance(modules[name], Shifted) else ""
        if not isinstance(modules[name], nn.Conv2d):
            continue
        modules[name] = fuse_conv_bn_eval(cast(nn.Conv2d, modules[name]), modules[node.target])
        parent, _, child = name.rpartition(".")
        setattr(body.get_submodule(parent), child, modules[name])
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    return fx.GraphModule(body, graph)


def _divide_norms(body: nn.Module) -> None:
    """Let batch norms that bring an activation along, as timm's, be two layers, in place."""
    for name, module in list(body.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and "act" in module._modules:
            extra = [each for each in map(module._modules.get, ("drop", "act")) if each is not None]
            assert module.running_mean is not None
            plain = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine)
            plain.load_state_dict(module.state_dict(), strict=True)
            parent, _, child = name.rpartition(".")
            parts = nn.Sequential(plain.to(module.running_mean.device), *extra)
            setattr(body.get_submodule(parent), child, parts.eval().requires_grad_(False))


CACHED_PIXELS = 2**18
"""On a CPU, images go through a network in portions of about so many pixels, whose maps then stay in its cache: 1.2 to
1.3 times faster than all at once, measured on 64 patches of 128 pixels and on 32 frames of 224."""


class FastBody(nn.Module):
    """A folded image network in its own precision; maps come out in float32."""

    def __init__(self, body: nn.Module, precision: Precision, *, compile: bool) -> None:
        super().__init__()
        self.dtype = DTYPES[precision]
        folded = fold_batch_norms(body).to(dtype=self.dtype).to(memory_format=torch.channels_last)
        compiled = torch.compile(folded, dynamic=False) if compile else folded  # of each size its own code
        self.body = cast(nn.Module, compiled)
        self.compiled = compile
        self._fused: list[nn.Module] = []  # in a list, so that it is no submodule: it cannot leave the CPU
        self.clip = max([module.num_frames for module in body.modules() if isinstance(module, Shifted)], default=1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> map_NDhw."""
        images_NCHW = images_NCHW.to(self.dtype, memory_format=torch.channels_last)
        with torch.autocast(images_NCHW.device.type, enabled=False):
            if images_NCHW.device.type != "cpu" or self.compiled:
                return self.body(images_NCHW).float()
            clips = CACHED_PIXELS // (images_NCHW.shape[-2] * images_NCHW.shape[-1] * self.clip)
            portions = images_NCHW.split(max(1, clips) * self.clip)  # whole clips, where features shift in time
            body = self._for_this_cpu(portions[0])
            return torch.cat([body(portion) for portion in portions]).float()

    def _for_this_cpu(self, images_NCHW: Tensor) -> nn.Module:
        """The body, fused when first used if this CPU can: weights are laid out for the size of the first images."""
        body = self.body
        if torch.compiler.is_compiling() or not isinstance(body, fx.GraphModule) or not fuse.available(self.dtype):
            return body
        if not self._fused:
            self._fused.append(fuse.fuse(body, images_NCHW))
        return self._fused[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_fused": []}


def accelerate(
    model: AdaFocus,
    *,
    parts: Sequence[str] = ("glancer", "focuser"),
    precision: Precision = "float32",
    compile: bool = False,
) -> AdaFocus:
    """A model that computes the same with faster, frozen image networks.

    The bodies of `parts` are copies of their present state; all else is shared with `model`, so that what trains there
    is seen here. In bf16 or fp16 only the bodies lose precision. Compiling takes about a minute at the first call, and
    again for batches of another size. Raises UserError where it would be at every call.
    """
    if compile and isinstance(model, AdaFocusPlus):
        raise UserError(
            "a model that skips frames cannot be compiled, for its focuser gets batches of ever other sizes: leave "
            "--compile out"
        )
    fast = copy.copy(model)
    fast._modules = dict(model._modules)
    for name in parts:
        slow = cast(Backbone, model.get_submodule(name))
        body = FastBody(slow.body, precision, compile=compile)
        fast._modules[name] = slow.with_parts(body=body)
    return fast
