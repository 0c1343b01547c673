"""What a check of a GPU found: rows with a number and perhaps a goal, what failed and what was left out, as one table
and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

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
    """All rows of a run, and what has no row."""

    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Tests that failed, each with its reason in a line."""
    left_out: list[str] = field(default_factory=list)
    """What there was no time for."""
    passed: int = 0
    """How many tests passed."""
    done: list[str] = field(default_factory=list)
    """Names of the tests that have run."""
    running: str = ""
    """Name of the test that runs now; what stays here has ended its process."""
    broken: str = ""
    """Why nothing more can run on the card in this process; empty while something can."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Taken, by part."""
    machine: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """Aligned columns; a missed goal is marked. Below it a line for all that failed or was left out."""
        cells = [("part", "what", "value", "goal", "")]
        for row in self.rows:
            mark = ("MISSED " if row.missed else "reached " if row.goal else "") + row.note
            cells.append((row.part, row.what, f"{row.value:.4g} {row.unit}", row.goal, mark))
        widths = [max(len(line[column]) for line in cells) for column in range(4)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]).rstrip()
            for line in cells
        ]
        return "\n".join(
            [*lines, *(f"FAILED {each}" for each in self.failed), *map("left out: {}".format, self.left_out)]
        )

    @property
    def good(self) -> bool:
        """Did all that ran pass and reach its goal, and was there anything that ran?"""
        return bool(self.passed) and not self.failed and not any(row.missed for row in self.rows)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        content = asdict(self) | {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {part: round(value, 1) for part, value in self.seconds.items()},
            "rows": [{**asdict(row), "missed": row.missed} for row in self.rows],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """What was written there; an empty report if there is none."""
        if not path.exists():
            return cls()
        content = json.loads(path.read_text())
        rows = [Row(**{name: value for name, value in row.items() if name != "missed"}) for row in content["rows"]]
        return cls(**{each.name: content[each.name] for each in fields(cls)} | {"rows": rows})

    @classmethod
    def joined(cls, reports: Iterable[Self]) -> Self:
        """One report of several."""
        whole = cls()
        for each in reports:
            whole.rows += each.rows
            whole.failed += each.failed
            whole.left_out += each.left_out
            whole.passed += each.passed
            for part, value in each.seconds.items():
                whole.seconds[part] = whole.seconds.get(part, 0.0) + value
            whole.machine = whole.machine or each.machine
        return whole


def machine(on_gpu: bool) -> Mapping[str, str | int | None]:
    """The card, and the versions that decide how fast it is."""
    import torch  # here, for the program that starts the checks needs neither
    import torchvision

    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "memory": torch.cuda.get_device_properties().total_memory if on_gpu else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
    }
