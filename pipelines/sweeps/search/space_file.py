"""Files of search spaces: YAML goes in; its maps `grid` and `sample` come out, as plain text values.

Scalars stay the texts that somebody wrote, for the settings decide what these are: YAML itself would read 010 as 8 and
1:30 as 90.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from preprocessing.schema import UserError

MAPS = ("grid", "sample")
_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_RESOLVERS = {
    letter: [each for each in resolvers if each[0] in _KEPT]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Texts(yaml.SafeLoader):
    """A loader that makes texts of scalars and refuses a key that stands twice in one map."""

    yaml_implicit_resolvers = _RESOLVERS

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for at, key in enumerate(keys) if key in keys[:at]]:
            raise yaml.constructor.ConstructorError(problem=f"{twice[0]} stands there twice: remove one of them")
        return super().construct_mapping(node, deep)


def read_space(file: Path) -> dict[str, dict[str, Any]]:
    """The maps of a file. Raises UserError, with the file, for all that cannot be one."""
    try:
        if not file.is_file():
            raise TypeError("it is no file" if file.exists() else "there is no such file")
        document = yaml.load(file.read_text("utf-8-sig"), _Texts) or {}
        if not isinstance(document, dict) or not set(document) <= set(MAPS):
            others = [repr(key) for key in document if key not in MAPS] if isinstance(document, dict) else []
            raise TypeError(f"{others[0] if others else 'what it holds'} is neither `grid` nor `sample`")
        for name, values in document.items():
            if not isinstance(values, dict | None) or not all(isinstance(key, str) for key in values or ()):
                raise TypeError(f"`{name}` is no map: write the name of a setting, a colon and its values in each line")
        maps = {name: document.get(name) or {} for name in MAPS}
        if not any(maps.values()):
            raise TypeError("it names no setting")
        return maps
    except UnicodeError:
        raise UserError(f"the space file {file} cannot be read: it is no UTF-8 text") from None
    except RecursionError:
        raise UserError(f"the space file {file} cannot be read: its brackets lie in one another too deep") from None
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise UserError(f"the space file {file} cannot be read: {' '.join(str(error).split())}") from None
