"""The page of settings, made of the configuration's own source: names, defaults, allowed values, and docstrings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import types
import typing
from typing import Any, Literal

from adafocus.config import schema

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}
HEAD = """# Settings

Every setting that `--set NAME=VALUE` changes, with the default of its field.
[Recipes](recipes.md) give values of their own. A list is written `1.0,0.875`.
This page is written from `adafocus/config/` by `pytest tests/test_readme.py --record`.
"""


def page() -> str:
    """The page in Markdown."""
    parts = {item.name: typing.get_type_hints(schema.Config)[item.name] for item in dataclasses.fields(schema.Config)}
    groups: dict[type, list[str]] = {}
    for name, part in parts.items():
        if dataclasses.is_dataclass(part):
            groups.setdefault(typing.cast(type, part), []).append(name)
    own = [name for name, part in parts.items() if not dataclasses.is_dataclass(part)]
    sections = [_section("Of the whole experiment", schema.Config, [""], own)]
    for part, names in groups.items():
        title = ", ".join(f"`{name}`" for name in names)
        sections.append(_section(title, part, names, [item.name for item in dataclasses.fields(part)]))
    return "\n".join([HEAD, *sections])


def _section(title: str, part: type, prefixes: list[str], names: list[str]) -> str:
    hints = typing.get_type_hints(part, include_extras=True)
    defaults = {item.name: item.default for item in dataclasses.fields(part)}
    documented = {name: text for base in reversed(part.__mro__) for name, text in _documented(base).items()}
    prefix = "" if prefixes == [""] else f"{prefixes[0]}." if len(prefixes) == 1 else "<stage>."
    rows = [
        f"| `{prefix}{name}` | {_shown(defaults[name])} | {_allowed(hints[name])} | {documented.get(name, '')} |"
        for name in names
    ]
    about = "" if part is schema.Config else f"{(part.__doc__ or '').splitlines()[0]}\n\n"
    return "\n".join(
        [f"## {title}\n\n{about}| setting | default | values | what it is |", "|---|---|---|---|", *rows, ""]
    )


def _documented(part: type) -> dict[str, str]:
    """The string below each field of a class, on one line."""
    if part is object:
        return {}
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(part)).body[0]).body
    pairs = itertools.pairwise(body)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairs
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _shown(default: Any) -> str:
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"`{text.lower() if default in (True, False, None) else text}`" if text else ""


def _allowed(hint: Any) -> str:
    """A type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        bounds = [
            f"{word} {getattr(each, name):g}"
            for each in _metadata(args[1:])
            for name, word in BOUNDS.items()
            if hasattr(each, name)
        ]
        return " ".join([_allowed(args[0]), ", ".join(bounds)]).strip()
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is tuple:
        return f"list: {_allowed(args[0])}"
    if origin in (typing.Union, types.UnionType):
        return f"{_allowed(next(arg for arg in args if arg is not types.NoneType))}, or `none`"
    return KINDS[hint]


def _metadata(annotations: tuple[Any, ...]) -> list[Any]:
    """Bounds that annotations carry: themselves, or those in a pydantic field."""
    return [each for annotation in annotations for each in getattr(annotation, "metadata", [annotation])]
