"""The folder of the sockets by which processes that load clips hand over their batches."""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile

from preprocessing.schema import UserError

SHORT = "/tmp"
LONGEST = 107 - len("/pymp-xxxxxxxx/listener-xxxxxxxx")
"""Bytes that the path of the folder for temporary files may have: the system allows a socket's path 107."""


def prepare_socket_folder() -> None:
    """Let this process and those that it starts make their sockets below /tmp where the folder for temporary files has
    too long a name for them: Python would wait for a batch for ever. Raises UserError if that cannot be."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST:
        return
    tempfile.tempdir = SHORT
    try:
        multiprocessing.util.get_temp_dir()  # made once, known to the processes that are started, removed at the end
    except OSError as error:
        raise UserError(
            f"the folder for temporary files, {usual}, has too long a name for sockets, and {SHORT} cannot be used "
            f"({error.strerror}): set TMPDIR to a folder with a shorter name"
        ) from None
    finally:
        tempfile.tempdir = usual
