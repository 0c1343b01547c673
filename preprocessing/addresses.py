"""Addresses of folders and servers: absolute where a process in another folder has to reach them, and without
passwords where somebody reads them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

HARMLESS = ("region", "scheme", "endpoint_override")
"""Parameters of a URL that hold no secret and without which a bucket cannot be reached."""
_URL = re.compile(r"\b([a-zA-Z][\w+.-]*://)((?:\S*@)?[^\s'\"<>]*)")


def is_url(address: str) -> bool:
    """Is it a URL, and not a path on this machine?"""
    return "://" in address


def absolute(address: str) -> str:
    """A local path as an absolute one, from the home folder where it begins with `~/`, which shells leave as it is in
    `--out=~/x`; a URL as it is."""
    if is_url(address):
        return address
    return str((Path(address).expanduser() if address.startswith("~/") else Path(address)).absolute())


def without_secrets(text: str) -> str:
    """A text, such as an address or an error message, whose URLs have lost user name, password, fragment and all
    parameters but the harmless ones."""
    return _URL.sub(lambda match: match[1] + _without_secrets(match[2]), text)


def _without_secrets(rest: str) -> str:
    """The same of what follows `scheme://`."""
    authority = rest.partition("/")[0]
    if "@" in authority:
        rest = authority.rpartition("@")[2] + rest[len(authority) :]
    elif ":" in authority:  # a password may hold a slash
        rest = rest.rpartition("@")[2]
    rest = rest.partition("#")[0]
    place, mark, query = rest.partition("?")
    kept = urlencode([(key, value) for key, value in parse_qsl(query) if key in HARMLESS], safe="/:") if mark else ""
    return f"{place}?{kept}" if kept else place
