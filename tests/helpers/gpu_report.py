"""What a check of a GPU found: rows with a number and perhaps a goal, as one table and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
import torchvision

from preprocessing.files import write_file


@dataclass(frozen=True, slots=True)
class Row:
    """One number."""

    part: str
    what: str
    value: float
    unit: str
    note: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def goal(self) -> str:
        """What was hoped for, in words."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"

    @property
    def missed(self) -> bool:
        """Is there a goal that the number does not keep?"""
        low, high = self.at_least, self.at_most
        return (low is not None and not self.value >= low) or (high is not None and not self.value <= high)


@dataclass
class Report:
    """All rows of a run, and what was left out."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Taken so far, by part."""

    def table(self) -> str:
        """Aligned columns; a missed goal is marked."""
        cells = [("part", "what", "value", "goal", "")]
        for row in self.rows:
            mark = ("MISSED " if row.missed else "reached " if row.goal else "") + row.note
            cells.append((row.part, row.what, f"{row.value:.4g} {row.unit}", row.goal, mark))
        widths = [max(len(line[column]) for line in cells) for column in range(4)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]).rstrip()
            for line in cells
        ]
        return "\n".join([*lines, *(f"left out: {each}" for each in self.left_out)])

    def write(self, path: Path, device: torch.device) -> None:
        """The same as JSON, with what it was measured on."""
        content = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(device),
            "seconds": {part: round(value, 1) for part, value in self.seconds.items()},
            "rows": [{**asdict(row), "missed": row.missed} for row in self.rows],
            "left_out": self.left_out,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(content, indent=1).encode())


def machine(device: torch.device) -> Mapping[str, str | int | None]:
    """The card, and the versions that decide how fast it is."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "memory": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
    }
