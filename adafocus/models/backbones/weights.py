"""Initial weights: a file goes in, a checked state dict comes out, and fills a network."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from preprocessing.schema import UserError

State = dict[str, Tensor]


def read_weights(path: Path) -> State:
    """A state dict from a file, nothing unpickled but tensors. Raises UserError if there is none."""
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"weights file {path} cannot be read: {str(error).splitlines()[0]}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights file {path} holds no state dict (a table of names and tensors)")
    return {name.removeprefix("module."): value for name, value in state.items()}


def fill(net: nn.Module, state: State, what: str) -> None:
    """Load `state`; the very last layer stays fresh if it was made for another number of classes. Raises UserError,
    with the names, for a state of another network."""
    own = net.state_dict()
    last = next(reversed([key for key, module in net.named_modules() if isinstance(module, nn.Linear)]))
    keys = {f"{last}.weight", f"{last}.bias"}
    if keys <= state.keys() and any(state[key].shape != own[key].shape for key in keys):
        state = {key: own[key] if key in keys else value for key, value in state.items()}
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # absent from old files
    missing = sorted(own.keys() - state.keys() - counters)
    surplus = sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    if missing or surplus or shapes:
        raise UserError(f"weights do not fit {what}: {describe(missing=missing, surplus=surplus, shapes=shapes)}")
    net.load_state_dict(state, strict=False)


def describe(**lists: list[str]) -> str:
    """`missing: a, b; surplus: c` for an error message; empty lists are left out."""
    return "; ".join(f"{name}: {', '.join(sorted(items))}" for name, items in lists.items() if items)
