"""Verbs of the data half: preprocess, verify, inspect."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add this file's verbs to the command line."""
