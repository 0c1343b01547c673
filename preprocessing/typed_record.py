"""Records read from files that anybody may have written: plain values go in, a record of the right types comes out."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from pydantic import TypeAdapter

Record = TypeVar("Record")


def typed_record(kind: type[Record], values: dict[str, Any]) -> Record:
    """A record of this kind, a data class. Raises TypeError or ValueError for values that do not fit its types, and for
    names that it does not know."""
    kind(**values)  # pydantic would leave out a name that it does not know
    adapter: Any = _adapter  # mypy does not see that a class can be hashed
    record: Record = adapter(kind).validate_python(values)
    return record


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
