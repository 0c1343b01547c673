"""A connection to Ray: a local one is started by default, a cluster is joined by its address."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import ray

from preprocessing.processors import usable_cores
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

SHORT = "/tmp"
LONGEST = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Bytes that the path of Ray's folder may have."""
ANSWER_S = 10.0
_SETTINGS, _HEADER = 4, 9
"""Of HTTP/2: the kind of a frame, and the bytes of its header."""


@contextlib.contextmanager
def ray_session(address: str | None, *, dashboard: bool = False, worker_logs: bool = False) -> Iterator[bool]:
    """Connect to Ray. Yields False if this process was connected before, and leaves that connection as it is; else
    yields True, and disconnects at the end, which ends this run's tasks.

    A local Ray listens on 127.0.0.1. `dashboard` starts Ray's dashboard with it, which releases the workers of stopped
    trials; `worker_logs` shows what workers log. Raises UserError if there is no cluster at `address`.
    """
    if ray.is_initialized():
        yield False
        return
    address = check_address(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            num_cpus=usable_cores() if address == "local" else None,  # Ray itself counts the machine's
            include_dashboard=dashboard if address == "local" else None,
            log_to_driver=worker_logs,
            logging_level=logging.ERROR,
            configure_logging=False,
            runtime_env=_python() | ({} if address == "local" else {"env_vars": _wait_policy()}),
            _temp_dir=short_folder() if address == "local" else None,
        )
    except (ConnectionError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {error}") from None
    except Exception as error:
        if type(error) not in (Exception, RuntimeError):
            raise
        # As Ray says that its processes did not start in time: where a machine is busy, or lacks something.
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"Ray did not start: {reason} `adafocus doctor` says what may be in its way") from error
    if on_sigterm is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has replaced it by one that ends the process at once
    try:
        yield True
    finally:
        ray.shutdown()


def _python() -> dict[str, str]:
    """The path of Python as a shell reads it, where it holds a space or the like; else nothing.

    Workers that are given variables, as all of Tune's are, are started through a shell with a path that Ray does not
    quote: they would never start, and their tasks wait for ever. On a cluster that is joined, Python's place is taken
    to be the same.
    """
    quoted = shlex.quote(sys.executable)
    return {} if quoted == sys.executable else {"py_executable": quoted}


def _wait_policy() -> dict[str, str]:
    """The variable by which OpenMP threads sleep while they wait (see `adafocus`), for workers that do not inherit it.

    Empty if this process belongs to a job that sets it: its workers have it, and Ray refuses to be given it twice.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    name = "OMP_WAIT_POLICY"
    return {} if name in job.get("env_vars", {}) else {name: os.environ[name]}


def short_folder() -> str | None:
    """Where a local Ray keeps its files if the folder for temporary files has too long a name or cannot be used; None:
    where Ray does.

    Ray's sockets lie below that folder, and the system allows their paths little more than a hundred bytes.
    """
    own, named = os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR")
    usual = Path(own or named or SHORT) / "ray"
    if not own and named and not (os.path.isdir(named) and os.access(named, os.W_OK | os.X_OK)):
        log.warning("TMPDIR is %s, which is no folder that can be written: Ray uses %s/ray", named, SHORT)
        return f"{SHORT}/ray"
    if own:
        try:
            usual.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"RAY_TMPDIR is {own}, where Ray can keep no files: {error.strerror}") from None
    if len(os.fsencode(usual)) <= LONGEST:
        return None
    log.info("%s is too long for the sockets of Ray, which uses %s/ray", usual.parent, SHORT)
    return f"{SHORT}/ray"


def check_address(address: str | None) -> str:
    """The address to connect to: this one, else that of RAY_ADDRESS, else `local`. Raises UserError if no Ray cluster
    listens at host:port, for Ray itself would go on trying for minutes."""
    address = (address or os.environ.get("RAY_ADDRESS") or "").strip() or "local"
    if address in ("local", "auto"):
        return address
    if address.startswith(("http://", "https://")):
        raise UserError(
            f"{address} is the address of a dashboard, which takes jobs (`ray job submit`) and cannot be joined: give "
            "--ray-address auto or HOST:PORT to join its cluster, or unset RAY_ADDRESS to work on this machine alone"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise UserError(f"{address!r} is no address of a Ray cluster: give auto, HOST:PORT or ray://HOST:PORT")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as connection:
            is_ray = bool(os.environ.get("RAY_USE_TLS")) or _speaks_grpc(connection)
        if not is_ray:
            raise UserError(f"what listens at {address} is no Ray cluster: give the port that `ray start --head` says")
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {error}; start one with `ray start --head`") from None
    return address


def _speaks_grpc(connection: socket.socket) -> bool:
    """Does the other end greet as every server of gRPC does, Ray's among them: with settings of HTTP/2?"""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0)))
    try:
        greeting = connection.recv(_HEADER, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(greeting) == _HEADER and greeting[3] == _SETTINGS
