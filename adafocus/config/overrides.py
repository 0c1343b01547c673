"""Changes of a configuration by dotted names: what `--set`, search spaces and a meta.json read back have in common."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adafocus.config.legacy import translated
from adafocus.config.schema import Config
from preprocessing.schema import UserError

OUTSIDE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
"""What pydantic calls a number that is out of bounds."""
TYPES = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names and values of a (nested) dataclass, in the order of its fields."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        name = f"{prefix}{item.name}"
        flat.update(flatten(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value})
    return flat


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy of `config` with dotted keys changed: `override(config, {"ppo.lr": 1e-4})`.

    Values may be strings, as a command line gives them. Raises UserError for an unknown key, naming the nearest known
    one, and for a value that does not fit the setting's type or bounds.
    """
    for key, value in changes.items():
        config = _replace(config, key, key.split("."), value)
    return config


def from_flat(flat: Mapping[str, Any]) -> Config:
    """The inverse of `flatten`, for a meta.json read back, one of an earlier version too. Raises UserError for unknown
    keys."""
    return override(Config(), translated(flat))


@functools.cache
def schema_of(key: str) -> Mapping[str, Any]:
    """A setting's type and bounds as JSON Schema."""
    *parts, name = key.split(".")
    node: Any = Config()
    for part in parts:
        node = getattr(node, part)
    return TypeAdapter(typing.get_type_hints(type(node), include_extras=True)[name]).json_schema()


def requirement(key: str) -> str:
    """In words, what a setting has to be: `a number, at least 0 and below 1`."""
    return _words(schema_of(key))


def _replace(node: Any, key: str, parts: list[str], value: Any) -> Any:
    names = [item.name for item in dataclasses.fields(node)]
    child = getattr(node, parts[0], None)
    if parts[0] not in names or (len(parts) > 1) != dataclasses.is_dataclass(child):
        near = difflib.get_close_matches(key, flatten(Config()), n=1, cutoff=0.0)[0]
        raise UserError(f"unknown setting {key!r}; the nearest known one is {near!r}")
    if len(parts) > 1:
        return dataclasses.replace(node, **{parts[0]: _replace(child, key, parts[1:], value)})
    try:
        return dataclasses.replace(node, **{parts[0]: value})
    except ValidationError as error:
        kind = error.errors()[0]["type"]
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        shown = shown if kind in OUTSIDE else repr(shown)
        raise UserError(f"{key} is {shown[:100]}, but has to be {requirement(key)}") from None


def _words(schema: Mapping[str, Any]) -> str:
    """What a JSON Schema asks for, in words."""
    if "anyOf" in schema:
        return " or ".join("none" if each.get("type") == "null" else _words(each) for each in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema.get("type") == "array":
        least = "one or more" if schema.get("minItems") else "any number of"
        return f"{least} values, separated by commas, each {_words(schema['items'])}"
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = " and ".join(f"{word} {schema[name]:g}" for name, word in bounds.items() if name in schema)
    return TYPES[schema["type"]] + (f", {limits}" if limits else "")
