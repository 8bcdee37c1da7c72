# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PostgreSQL's own programs, run beside the server: in a sidecar container, or inside the server's own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable, Protocol

from ..compose.container import Container
from ..compose.engine import Engine
from ..compose.sidecar import Sidecar
from ..core.clock import Clock
from ..core.errors import OpsError
from ..core.files import ensure_private_dir, remove
from ..core.progress import RUN_DIR, Progress, Tally
from ..core.redact import Redactor
from .catalog import digest, size_of
from .session import Way

__all__ = ["Aside", "Cancelled", "Effects", "Inside", "Program", "drive", "drop_passfile", "hashed"]

# Where the directory of the backups is inside a sidecar, and where the password file.
PLACE = "/titan-backup"
_PASSFILE = "/titan-pgpass"
# Seconds between two questions to the Docker Engine, each of which costs it and us milliseconds of the cores that the
# program wants: a twentieth of what the program has taken so far, in these bounds.
_LOOK_MOST = 0.2
_PAUSE = 0.02
# Seconds without a byte of what was flowing: it has probably ended.
_QUIET = 0.05


class Cancelled(OpsError):
    """The run was asked to end."""


@dataclass
class Effects:
    """What the backups act through.

    Attributes:
        engine: the Docker Engine.
        docker_host: its address, for the docker command.
        clock: time.
        cancelled: whether the run was asked to end.
        run_dir: where a password file lies while a program runs: on no disk, and gone after a reboot.
        redact: takes secrets out of other programs' words.
        progress: is told how far it is.
    """

    engine: Engine
    docker_host: str
    clock: Clock
    cancelled: Callable[[], bool] = lambda: False
    run_dir: str = RUN_DIR
    redact: Redactor = field(default_factory=Redactor)
    progress: Progress = field(default_factory=Progress)


class Program(Protocol):
    """One program under way."""

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""

    def said(self) -> str:
        """Its last words, redacted."""

    def taken(self) -> int:
        """How many bytes it has read from files so far; OSError where that cannot be told."""


class Aside:
    """A program in a sidecar.

    Args:
        effects: what it acts through.
        beside: the server's container.
        way: how to log in; None for a program that does not.
        directory: the directory that it sees as ``PLACE``.
        port: the server's port in its container.
    """

    def __init__(self, effects: Effects, beside: Container, directory: str, *, way: Way | None, port: int) -> None:
        self._effects = effects
        self._beside = beside
        self._directory = directory
        self._way = way
        self._port = port

    @contextlib.contextmanager
    def run(self, argv: Sequence[str]) -> Iterator[Program]:
        """Start a program; afterwards nothing is left of it.

        Raises:
            SidecarUnavailable: the image lacks it.
            OpsError: it cannot be started.
        """
        environment: dict[str, str] = {"LC_ALL": "C.UTF-8", "PGTZ": "UTC"}
        mounts = {PLACE: (self._directory, "rw")}
        with contextlib.ExitStack() as stack:
            if self._way is not None:
                environment.update(_login(self._way, "127.0.0.1", self._port))
                if self._way.password is not None:
                    # Loopback is trusted in the official image, but nothing here relies on that.
                    place = _place(self._effects.run_dir, self._beside)
                    passfile = stack.enter_context(_passfile(place, self._way.password))
                    environment["PGPASSFILE"] = _PASSFILE
                    mounts[_PASSFILE] = (passfile, "ro")
            sidecar = Sidecar(self._effects.engine, self._beside, argv, environment=environment, mounts=mounts)
            stack.callback(_removed, sidecar)
            sidecar.start()
            yield _AsideProgram(sidecar, self._effects.redact)


class _AsideProgram:
    def __init__(self, sidecar: Sidecar, redact: Redactor) -> None:
        self._sidecar = sidecar
        self._redact = redact

    def ended(self) -> int | None:
        return self._sidecar.ended()

    def said(self) -> str:
        return self._redact("\n".join(self._sidecar.said()))

    def taken(self) -> int:
        return self._sidecar.taken()


class Inside:
    """A program inside the server's own container, on its socket: ``docker exec``.

    Args:
        effects: what it acts through.
        container: the server's.
        role: as whom.
        database: where to.
        port: the server's port.
    """

    def __init__(self, effects: Effects, container: Container, *, role: str, database: str, port: int) -> None:
        self._effects = effects
        self._container = container
        self._environment = {"PGUSER": role, "PGDATABASE": database, "PGPORT": str(port), "PGCONNECT_TIMEOUT": "10"}

    @contextlib.contextmanager
    def run(self, argv: Sequence[str], *, stdin: int | None = None, stdout: int | None = None) -> Iterator[Program]:
        """Start a program.

        Args:
            argv: the program and its arguments.
            stdin: a file descriptor that it reads; by default nothing.
            stdout: one that it writes; by default nowhere.

        Raises:
            OpsError: docker cannot be started.
        """
        settings = [f"--env={name}={value}" for name, value in sorted(self._environment.items())]
        command = ["docker", "exec", "--interactive", *settings, self._container.id, *argv]
        with tempfile.TemporaryFile() as errors:
            try:
                # AnsibleModule.run_command is out of reach here: the engine runs without Ansible.
                process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                    command,
                    stdin=subprocess.DEVNULL if stdin is None else stdin,
                    stdout=subprocess.DEVNULL if stdout is None else stdout,
                    stderr=errors,
                    env={**os.environ, "DOCKER_HOST": self._effects.docker_host, "LC_ALL": "C.UTF-8"},
                    start_new_session=True,
                )
            except OSError as exc:
                raise OpsError(f"docker cannot be started: {exc.strerror or exc}") from exc
            try:
                yield _InsideProgram(process, errors.fileno(), self._effects.redact)
            finally:
                # The program itself ends when nobody reads or writes any more: it must not be killed in there.
                process.kill()
                process.wait()


class _InsideProgram:
    def __init__(self, process: subprocess.Popen[bytes], errors: int, redact: Redactor) -> None:
        self._process = process
        self._errors = errors
        self._redact = redact

    def ended(self) -> int | None:
        return self._process.poll()

    def said(self) -> str:
        return self._redact(os.pread(self._errors, 1 << 16, 0).decode("utf-8", "replace").strip())

    def taken(self) -> int:
        raise ProcessLookupError  # it is the server's container that reads


def drive(
    program: Program, effects: Effects, *, what: str, timeout: float, step: Callable[[], bool] = lambda: False
) -> None:
    """Wait for a program's end.

    Args:
        program: the program.
        effects: for the time, and whether to end.
        what: what it is called in messages.
        timeout: seconds.
        step: takes what the program has written; tells whether there was anything.

    Raises:
        Cancelled: the run was asked to end.
        OpsError: the program failed or did not end in time; with its own words.
    """
    clock = effects.clock
    began = look = clock.monotonic()
    flowed: float | None = None
    while True:
        moved = step()
        now = clock.monotonic()
        if moved:
            flowed = now
        elif flowed is not None and now > flowed + _QUIET:
            flowed, look = None, now
        if now >= look:
            code = program.ended()
            if code is not None:
                break
            look = now + min(_LOOK_MOST, max(_PAUSE, (now - began) / 20))
        if effects.cancelled():
            raise Cancelled("The run was asked to end")
        if now > began + timeout:
            raise OpsError(f"{what} did not end within {timeout:g} seconds")
        if not moved:
            clock.sleep(_PAUSE)
    if code != 0:
        words = program.said() or "it said nothing"
        full = re.search(r"No space left on device|Disk quota exceeded", words)
        raise OpsError(
            f"{what} failed with exit code {code}: {_short(words)}",
            hint="Free some space on that file system." if full else None,
        )


def hashed(effects: Effects, path: str) -> str:
    """The sha256 of a backup, as its manifest has it; told of while it is computed.

    Raises:
        OpsError: it cannot be read, or the run was asked to end.
    """
    tally = Tally()
    effects.progress.phase("computing the sha256", size_of(path), done=lambda: tally.bytes)
    return digest(path, cancelled=effects.cancelled, seen=tally)


def drop_passfile(effects: Effects, beside: Container) -> None:
    """Remove the password file that a killed run has left."""
    with contextlib.suppress(NotADirectoryError):
        remove(_place(effects.run_dir, beside))


def _place(run_dir: str, beside: Container) -> str:
    return os.path.join(run_dir, f"pgpass-{beside.id[:12]}")


@contextlib.contextmanager
def _passfile(path: str, password: str) -> Iterator[str]:
    """A password file for libpq (PostgreSQL 17 manual, 32.16): for root alone, for as long as it is needed."""
    ensure_private_dir(os.path.dirname(path))
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    try:
        try:
            remove(path)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as stream:
                stream.write(f"*:*:*:*:{escaped}\n".encode("utf-8", "surrogateescape"))
        except OSError as exc:
            raise OpsError(f"The password file {path} could not be written: {exc.strerror or exc}") from exc
        yield path
    finally:
        remove(path)


def _login(way: Way, host: str, port: int) -> Mapping[str, str]:
    """libpq's variables (PostgreSQL 17 manual, 32.15): names that no argument's own syntax can hurt."""
    return {
        "PGHOST": host,
        "PGPORT": str(port),
        "PGUSER": way.endpoint.role,
        "PGDATABASE": way.endpoint.database,
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "titan.ops backup",  # not "titan.ops" alone: those sessions a rotation may end
    }


def _removed(sidecar: Sidecar) -> None:
    """Remove a sidecar; where the engine is gone, the next run does."""
    with contextlib.suppress(OpsError):
        sidecar.remove()


def _short(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return " | ".join(lines[-3:])[:600]
