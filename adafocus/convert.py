"""Checkpoints of the authors' code: their `.pth.tar` in, our model out, and back, key for key.

Two layouts, one per family. A file of stage 1 to 3 has the tables `glancer`, `focuser`, `fc` and, once there is one,
`policy`; a file of stage 0 for untrimmed videos has some of them. Networks pretrained for Something-Something come as
files of the Temporal Shift Module, with one table `state_dict`. Names are translated one by one and nothing may be
left over; nothing is unpickled but tensors and plain values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adafocus.config import Config
from adafocus.models.adafocus import AdaFocus, build_model
from adafocus.models.backbones import describe
from preprocessing.schema import UserError

State = dict[str, Tensor]
Rename = Callable[[str], str | None]
"""Our name of a tensor -> theirs; None where they keep none."""

THEIR_PART = {"glancer": "glancer", "focuser": "focuser", "policy": "policy", "classifier": "fc"}
POLICY_COPIES = ("policy.policy.", "policy.policy_old.")
"""In the untrimmed layout the focuser's table holds the policy twice more."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file held."""

    model: AdaFocus
    parts: tuple[str, ...]
    """Parts that the file filled; the others are fresh."""
    stage: str
    """The stage of ours that such a file stands for."""
    info: dict[str, float]
    """Epoch and accuracies, as far as they are recorded."""


def _glancer_untrimmed(name: str) -> str:
    return "net." + name.replace("body.", "features.", 1).replace("last.", "classifier.", 1)


def _focuser_untrimmed(name: str) -> str:
    return "net." + name.replace("body.", "", 1).replace("last.1.", "fc.", 1)


_FIRST_BLOCK = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"}
_BLOCK = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}


def _glancer_trimmed(name: str) -> str:
    """Their MobileNetV2 numbers the layers of a block straight through; ours nests convolution, norm, activation."""
    name = name.replace("last.1.", "classifier.", 1).replace(".layer.", ".net.").replace("body.", "features.", 1)
    match = re.fullmatch(r"(features\.(\d+)\.conv)\.([01]\.[01]|[123])(?=\.[a-z])(.*)", name)
    if match:
        table = _FIRST_BLOCK if match[2] == "1" else _BLOCK
        name = f"{match[1]}.{table[match[3]]}{match[4]}"
    return f"net.{name}"


_RESNET_POSITIONS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def _focuser_trimmed(name: str) -> str | None:
    """Their focuser is a list of ResNet's children without the last layer."""
    if name.startswith("last."):
        return None
    first, rest = name.removeprefix("body.").replace(".layer.", ".net.").split(".", 1)
    return f"net.base_model.{_RESNET_POSITIONS[first]}.{rest}"


def _policy(name: str) -> str:
    return re.sub(r"^(actor|critic)\.", r"\1.0.", name.replace("encoder.", "state_encoder.", 1))


def _classifier_untrimmed(name: str) -> str:
    return name.replace("last.", "fc.", 1)


def _classifier_trimmed(name: str) -> str:
    return name.removeprefix("last.")


def _pretrained(name: str) -> str:
    """A ResNet in a Temporal Shift Module's file."""
    name = name.replace(".layer.", ".net.")
    return name.replace("last.1.", "module.new_fc.", 1).replace("body.", "module.base_model.", 1)


def _pretrained_glancer(name: str) -> str:
    return (
        _glancer_trimmed(name)
        .replace("net.classifier.", "module.new_fc.")
        .replace("net.features.", "module.base_model.features.", 1)
    )


LAYOUTS: dict[str, dict[str, Rename]] = {
    "untrimmed": {
        "glancer": _glancer_untrimmed,
        "focuser": _focuser_untrimmed,
        "policy": _policy,
        "classifier": _classifier_untrimmed,
    },
    "trimmed": {
        "glancer": _glancer_trimmed,
        "focuser": _focuser_trimmed,
        "policy": _policy,
        "classifier": _classifier_trimmed,
    },
}
PRETRAINED: dict[str, Rename] = {"glancer": _pretrained_glancer, "focuser": _pretrained}


def theirs(model: AdaFocus, part: str) -> dict[str, str]:
    """Their name -> ours for every tensor of a part that their layout keeps."""
    rename = LAYOUTS[model.config.model.family][part]
    return _renamed(model.get_submodule(part), rename)


def _renamed(module: torch.nn.Module, rename: Rename) -> dict[str, str]:
    pairs = {rename(ours): ours for ours in module.state_dict()}
    return {name: ours for name, ours in pairs.items() if name is not None}


def import_checkpoint(path: Path, config: Config, *, into: AdaFocus | None = None) -> Imported:
    """Read a released file into a model of `config`, whose number of classes follows the file.

    `into` fills a model that another file has begun: glancer and focuser are released apart. Raises UserError if it
    is no such file, does not belong to the configuration's family, or has missing, surplus or misshapen tensors (which
    the message lists).
    """
    check_networks(config)
    checkpoint = read_checkpoint(path)
    tables = {part: checkpoint[name] for part, name in THEIR_PART.items() if checkpoint.get(name) is not None}
    if not tables and isinstance(checkpoint.get("state_dict"), Mapping):
        return _import_pretrained(path, config, checkpoint, into)
    if not tables or not all(isinstance(table, Mapping) for table in tables.values()):
        names = ", ".join(map(str, list(checkpoint)[:12]))
        raise UserError(f"{path} is no checkpoint of the reference: it has {names}")
    model = into or build_model(config, _num_classes(path, tables), pretrained=False)
    if "focuser" in tables:
        tables = _split_policy(path, tables)
    problems: dict[str, list[str]] = {"missing": [], "surplus": [], "shapes": []}
    for part, table in tables.items():
        _compare(THEIR_PART[part], theirs(model, part), table, model.get_submodule(part), problems)
    _raise(path, problems)
    for part, table in tables.items():
        _load(model.get_submodule(part), theirs(model, part), table)
    if config.model.family == "trimmed" and {"focuser", "classifier"} <= tables.keys():
        # Their focuser has lost its own last layer; its classifier, which reads the same features, stands in.
        model.focuser.last[1].load_state_dict(model.classifier.last.state_dict())
    stage = "finetune" if "policy" in tables else "warmup" if "classifier" in tables else "pretrain"
    return Imported(model, tuple(tables), stage, _info(checkpoint))


def _import_pretrained(path: Path, config: Config, checkpoint: dict[str, Any], into: AdaFocus | None) -> Imported:
    table = checkpoint["state_dict"]
    part = "glancer" if any(name.startswith("module.base_model.features.") for name in table) else "focuser"
    last = table.get("module.new_fc.weight")
    if last is None or config.model.family != "trimmed":
        raise UserError(f"{path} is no checkpoint of the {config.model.family} family: its state_dict has no new_fc")
    model = into or build_model(config, len(last), pretrained=False)
    module = model.get_submodule(part)
    names = _renamed(module, PRETRAINED[part])
    problems: dict[str, list[str]] = {"missing": [], "surplus": [], "shapes": []}
    _compare("state_dict", names, table, module, problems)
    _raise(path, problems)
    _load(module, names, table)
    return Imported(model, (part,), "pretrain", _info(checkpoint))


def check_networks(config: Config) -> None:
    """Raises UserError unless the configuration has the reference's networks, the only ones its files can fill."""
    wanted = ("mobilenet_v2", "resnet50", "gru" if config.model.family == "untrimmed" else "average")
    found = (config.model.glancer, config.model.focuser, config.model.classifier)
    if found != wanted:
        raise UserError(f"a reference checkpoint holds {', '.join(wanted)}, but the recipe has {', '.join(found)}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The table in a `.pth.tar`, with tensors on the CPU and nothing unpickled but plain data. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):  # accuracies may be numpy's
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint's table")
    return checkpoint


def _numpy_scalars() -> list[Any]:
    scalar = np.float64(0).__reduce__()[0]
    return [
        np.dtype,
        (scalar, "numpy.core.multiarray.scalar"),  # the name in files of numpy 1
        (scalar, "numpy._core.multiarray.scalar"),
        *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
    ]


def _num_classes(path: Path, tables: Mapping[str, Mapping[str, Tensor]]) -> int:
    for part, name in (
        ("classifier", "fc.bias"),
        ("classifier", "bias"),
        ("glancer", "net.classifier.1.bias"),
        ("glancer", "net.classifier.bias"),
        ("focuser", "net.fc.bias"),
    ):
        if name in tables.get(part, {}):
            return len(tables[part][name])
    raise UserError(f"{path}: no last layer tells the number of classes (missing: fc.fc.bias)")


def _split_policy(path: Path, tables: dict[str, Mapping[str, Tensor]]) -> dict[str, Mapping[str, Tensor]]:
    """Take the policy's copies out of the focuser's table; the first serves where the policy's own is absent."""
    focuser = {name: value for name, value in tables["focuser"].items() if not name.startswith(POLICY_COPIES)}
    copies = [_below(tables["focuser"], prefix) for prefix in POLICY_COPIES]
    present = [copy for copy in copies if copy]
    policy = tables.get("policy", present[0] if present else None)
    wrong = [
        f"focuser.{prefix}{name}"
        for prefix, table in zip(POLICY_COPIES, copies, strict=True)
        if table and policy is not None
        for name in sorted(table.keys() ^ policy.keys())
    ]
    if wrong:
        raise UserError(f"{path}: the focuser's copies of the policy differ from it in {', '.join(wrong)}")
    return {**tables, "focuser": focuser, **({} if policy is None else {"policy": policy})}


def _below(table: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in table.items() if name.startswith(prefix)}


def _compare(
    label: str,
    names: Mapping[str, str],
    table: Mapping[str, Tensor],
    module: torch.nn.Module,
    problems: dict[str, list[str]],
) -> None:
    own = module.state_dict()
    problems["missing"] += [f"{label}.{name}" for name in names.keys() - table.keys()]
    problems["surplus"] += [f"{label}.{name}" for name in table.keys() - names.keys()]
    for name in names.keys() & table.keys():
        found, wanted = getattr(table[name], "shape", None), own[names[name]].shape
        if found != wanted:
            problems["shapes"].append(f"{label}.{name} {found and tuple(found)} instead of {tuple(wanted)}")


def _raise(path: Path, problems: dict[str, list[str]]) -> None:
    if any(problems.values()):
        raise UserError(f"{path} does not fit the recipe: {describe(**problems)}")


def _load(module: torch.nn.Module, names: Mapping[str, str], table: Mapping[str, Tensor]) -> None:
    module.load_state_dict({ours: table[name] for name, ours in names.items()}, strict=False)


def _info(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    found = {name: checkpoint.get(name) for name in ("epoch", "acc", "best_acc", "best_prec1")}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float | Tensor | np.number)}


def export_checkpoint(
    model: AdaFocus, path: Path, *, stage: str = "finetune", info: Mapping[str, float] | None = None
) -> None:
    """Write `model` as the reference would after `stage`: after warmup there is no policy yet.

    Raises UserError for networks that the reference does not have.
    """
    check_networks(model.config)
    tables: dict[str, State | None] = {}
    for part, name in THEIR_PART.items():
        state = model.get_submodule(part).state_dict()
        tables[name] = {their: state[ours].detach().cpu().contiguous() for their, ours in theirs(model, part).items()}
    if stage in ("pretrain", "warmup"):
        tables["policy"] = None
    elif model.config.model.family == "untrimmed":
        policy = tables["policy"] or {}
        copies = {f"{prefix}{name}": value for prefix in POLICY_COPIES for name, value in policy.items()}
        tables["focuser"] = {**(tables["focuser"] or {}), **copies}
    whole = {
        f"{prefix}.{name}": value
        for part, prefix in (("glancer", "glancer"), ("focuser", "focuser"), ("fc", "classifier"))
        for name, value in (tables[part] or {}).items()
    }
    record = {"epoch": 0, "acc": 0.0, "best_acc": 0.0, **(info or {}), "scaler": None, "optimizer": None}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.save({"model_state_dict": whole, **tables, **record}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
