"""A model on disk: a folder with weights (safetensors) and meta.json, which says what made them.

meta.json is written last and by rename, and it names its weights file by content. So a folder with a meta.json is
complete, and a crash while a better checkpoint replaces an older one leaves one of the two.

A stage that runs keeps its state (model, optimizer, progress) apart, in `save_state` and `load_state`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from adafocus.config.overrides import flatten, from_flat
from adafocus.config.schema import Config
from adafocus.methods import Method, build_model, find_method
from adafocus.models.adafocus import AdaFocus
from adafocus.models.backbones import describe
from preprocessing.files import write_file
from preprocessing.schema import DatasetInfo, ExtractionSpec, UserError
from preprocessing.typed_record import typed_record

META = "meta.json"
SHARED = "config.json"
"""The same of a model that is shared (`adafocus.interop.pretrained`): it holds the record under RECORD."""
RECORD = "checkpoint"
STATE = "state.pt"


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "safetensors": safetensors.__version__,
    }


@dataclass(frozen=True, slots=True)
class Meta:
    """What a checkpoint knows of itself: plain values, as in meta.json."""

    config: dict[str, Any]
    """Flattened: `adafocus.config.from_flat` reads it."""
    stage: str
    key: str
    """The stage's key; empty for weights made elsewhere."""
    digest: str
    """Of the index that it was trained on; empty for weights made elsewhere."""
    info: dict[str, Any]
    """The data set's facts (`DatasetInfo`), class names among them."""
    extraction: dict[str, Any] = field(default_factory=dict)
    """How its frames were extracted (`ExtractionSpec`); empty where that was not recorded."""
    stages: list[str] = field(default_factory=list)
    """Folders of the stages that made it, in order, its own last; empty for weights made elsewhere."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch; the last one's `metrics` are the model's."""
    seconds: float = 0.0
    """Time the training took."""
    processor_seconds: float = 0.0
    """Of it, what the first worker's process computed, on all cores; 0 where that was not recorded."""
    versions: dict[str, str] = field(default_factory=versions)
    imported: list[dict[str, Any]] = field(default_factory=list)
    """Where the weights come from files of the authors' code instead of training: a record of each (name, sha256,
    parts, and the epoch and accuracies that it tells of)."""
    exits: dict[str, Any] = field(default_factory=dict)
    """Thresholds of early exit (`adafocus.evaluation.calibration.Calibration`); empty until it is calibrated."""
    weights: str = ""
    """Name of the weights file in the folder, filled in by `save`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names."""
        return tuple(self.info["class_names"])

    @property
    def method(self) -> Method:
        """The method that its configuration is of."""
        return find_method(self.config.get("method", Config().method))

    def lacking(self, patches: str) -> list[str]:
        """Parts that a prediction with these patches needs and that were not trained yet."""
        return self.method.lacking(self.stage, patches)

    @property
    def metrics(self) -> dict[str, float]:
        """Of the last epoch."""
        return dict(self.history[-1]["metrics"]) if self.history else {}

    @classmethod
    def describe(
        cls,
        config: Config,
        *,
        stage: str,
        info: DatasetInfo,
        extraction: ExtractionSpec | None = None,
        key: str = "",
        digest: str = "",
        stages: Sequence[str] = (),
        history: Sequence[dict[str, Any]] = (),
        seconds: float = 0.0,
        processor_seconds: float = 0.0,
        imported: Sequence[dict[str, Any]] = (),
    ) -> Meta:
        """The record of a model of `config`."""
        flat = {name: list(value) if isinstance(value, tuple) else value for name, value in flatten(config).items()}
        facts = _facts(info)
        spec = {} if extraction is None else asdict(extraction)
        return cls(
            flat,
            stage,
            key,
            digest,
            facts,
            spec,
            list(stages),
            list(history),
            seconds,
            processor_seconds,
            imported=list(imported),
        )


def _facts(info: DatasetInfo) -> dict[str, Any]:
    """A data set's facts as JSON gives them back: with lists."""
    return {**info.to_dict(), "class_names": list(info.class_names)}


def save(folder: Path, model: AdaFocus, meta: Meta) -> Meta:
    """Commit a model's weights and record to `folder` (made if need be); the record as written.

    Weights are stored contiguously, whatever device and memory format the model has. An older checkpoint in the
    folder is replaced. Raises ValueError if the class names do not fit the model.
    """
    if len(meta.class_names) != model.num_classes:
        raise ValueError(f"{len(meta.class_names)} class names for a model of {model.num_classes} classes")
    folder.mkdir(parents=True, exist_ok=True)
    data = save_tensors({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})
    meta = dataclasses.replace(meta, weights=f"weights-{hashlib.sha256(data).hexdigest()[:16]}.safetensors")
    write_file(folder / meta.weights, data)
    write_meta(folder, meta)
    for stale in folder.glob("weights-*.safetensors"):
        if stale.name != meta.weights:
            stale.unlink(missing_ok=True)
    return meta


def write_meta(folder: Path, meta: Meta) -> None:
    """Commit a checkpoint's record, by rename."""
    write_file(folder / META, json.dumps(asdict(meta), indent=1).encode())


def read_meta(folder: Path) -> Meta:
    """The record of a checkpoint or of a shared model. Raises UserError if there is none or one that makes no sense."""
    path = folder / META
    try:
        if not path.exists() and (folder / SHARED).exists():
            path = folder / SHARED
        record = json.loads(path.read_text("utf-8"))
        meta = typed_record(Meta, record if path.name == META else record[RECORD])
        if not meta.weights or Path(meta.weights).name != meta.weights:
            raise ValueError(f"weights {meta.weights!r} do not lie in the checkpoint's folder")
        info = typed_record(DatasetInfo, meta.info)
        if meta.extraction:
            typed_record(ExtractionSpec, meta.extraction)
        _ = meta.metrics
        return dataclasses.replace(meta, info=_facts(info))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no finished checkpoint: there is no {META}") from None
    except NotADirectoryError:
        raise UserError(
            f"{folder} is a file, and a checkpoint is a folder; `adafocus import-checkpoint` makes one of the authors' "
            "files"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is no checkpoint's record: {' '.join(repr(error).split())[:300]}") from error


def load_model(folder: Path) -> tuple[AdaFocus, Meta]:
    """The model (on the CPU, in evaluation mode) and its record.

    Raises UserError for an unfinished checkpoint and for weights that do not fit the recorded configuration.
    """
    meta = read_meta(folder)
    config = from_flat(meta.config)
    try:
        model = build_model(config, len(meta.class_names), pretrained=False)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"{folder}: no model can be built of the settings in {META}: {reason}") from error
    load_all(model, _read_tensors(folder / meta.weights), str(folder))
    return model.eval(), meta


def load_weights(model: AdaFocus, folder: Path) -> Meta:
    """Fill `model` with what a checkpoint's stage and those before it trained; its record.

    Parts that were not trained yet keep the model's own initial weights: so trials with different policies, and other
    methods with the same stages, may start from one warm-up, whichever of them made it. Raises UserError for weights
    that do not fit.
    """
    meta = read_meta(folder)
    trained = meta.method.trained(meta.stage)
    state = {name: value for name, value in model.state_dict().items() if name.partition(".")[0] not in trained}
    read = _read_tensors(folder / meta.weights)
    state |= {name: value for name, value in read.items() if name.partition(".")[0] in trained}
    load_all(model, state, str(folder))
    return meta


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise UserError(f"{path} {'is missing' if missing else f'cannot be read: {error.strerror}'}") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def load_all(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load all of `state` into all of `module`. Raises UserError listing whatever does not fit, changing nothing."""
    own = module.state_dict()
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    missing, surplus = [*(own.keys() - state.keys())], [*(state.keys() - own.keys())]
    if missing or surplus or shapes:
        raise UserError(f"{what} does not fit: {describe(missing=missing, surplus=surplus, shapes=shapes)}")
    module.load_state_dict(state)


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Keep the state of a stage that goes on: tensors and plain values, nested as needed; all or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_file(folder / STATE, buffer.getbuffer())


def load_state(folder: Path) -> dict[str, Any] | None:
    """What `save_state` kept, on the CPU; None if nothing. Raises UserError for a file that cannot be read."""
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}); delete it to start the stage anew") from error
