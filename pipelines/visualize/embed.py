"""Pages that hold their data: a template of HTML and plain values in, one file out that needs nothing else."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def embed(template: str, data: Any) -> str:
    """The template of this name with the data as its script's constant. Names in the data are never markup."""
    text = files("pipelines.visualize").joinpath("templates", template).read_text("utf-8")
    return text.replace("/*DATA*/null", json.dumps(data, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c"))
