# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup on its way into a database, by the server's own programs in a sidecar, stopped at the first error."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import select
import threading
from collections.abc import Iterator
from typing import Callable

from ..compose.container import Container
from ..compose.sidecar import SidecarUnavailable
from ..core.errors import Damaged, OpsError
from ..core.files import remove
from ..core.progress import Tally
from .catalog import Backup, digest
from .codec import decoded
from .dump import NO_LOGIN
from .manifest import Manifest
from .session import Way
from .tools import PLACE, Aside, Cancelled, Effects, drive, hashed

__all__ = ["Through", "load"]

# \restrict came with the minor versions of August 2025.
_RESTRICT_SINCE = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}

Through = Callable[[Iterator[bytes]], Iterator[bytes]]


def load(
    effects: Effects,
    container: Container,
    way: Way,
    backup: Backup,
    made: Manifest,
    *,
    port: int,
    jobs: int,
    timeout: float,
    through: Through,
    pipes: str,
) -> None:
    """Restore a backup into an empty database, in one transaction, or by several jobs where an archive allows that.

    Args:
        effects: what it acts through.
        container: the server's.
        way: how to log in to that database.
        backup: what is restored.
        made: its manifest.
        port: the server's port in its container.
        jobs: for a directory or a custom archive.
        timeout: seconds.
        through: what a plain dump's bytes go through on their way; it lets no \\restrict pass.
        pipes: a directory of our own for the pipe of a plain dump: psql sees no other.

    Raises:
        Damaged: it is not what its manifest says.
        OpsError: it was not restored.
    """
    with _way_told(way, backup):
        if made.format == "plain":
            tool = Aside(effects, container, pipes, way=way, port=port)
            try:
                sha256 = _load_plain(effects, tool, os.path.join(pipes, "dump"), backup, made, timeout, through)
            except (OpsError, OSError) as exc:
                if not isinstance(exc, Cancelled) and _rotten(effects, backup, made):
                    raise _altered(backup, exc) from exc
                raise
            if sha256 != made.sha256:
                raise _altered(backup)
            return
        tool = Aside(effects, container, os.path.dirname(backup.path), way=way, port=port)
        how = [f"--jobs={jobs}"] if jobs > 1 else ["--single-transaction"]
        argv = ["pg_restore", "--exit-on-error", "--no-password", f"--dbname={way.endpoint.database}", *how]
        with _Hashing(effects, backup, made) as hashing:
            try:
                with tool.run([*argv, f"{PLACE}/{backup.name}"]) as program:
                    effects.progress.phase(f"restoring {backup.name}", backup.size_bytes, done=program.taken)
                    drive(program, effects, what="pg_restore", timeout=timeout, step=hashing.step)
            except OpsError as exc:
                if not isinstance(exc, (Cancelled, Damaged)) and _rotten(effects, backup, made):
                    raise _altered(backup, exc) from exc
                raise
            hashing.wait()


@contextlib.contextmanager
def _way_told(way: Way, backup: Backup) -> Iterator[None]:
    """Say it where nothing can be loaded, whatever it is: a backup may be made by docker exec then, and no more."""
    try:
        yield
    except SidecarUnavailable as exc:
        raise OpsError(
            f"{backup.name} cannot be loaded: {exc.msg}",
            hint="Use an image of the database that has psql and pg_restore, as the official one.",
        ) from exc
    except OpsError as exc:
        if way.password is not None or isinstance(exc, Damaged) or not NO_LOGIN.search(exc.msg):
            raise
        raise OpsError(
            f"{backup.name} cannot be loaded: beside the server, nobody is let in without a password, and there is "
            f"none that serves ({way.reason})",
            hint="Put the right one into the env file, or set it anew with rotate_db_password.yml -e recover=true.",
        ) from exc


def _load_plain(
    effects: Effects, tool: Aside, pipe: str, backup: Backup, made: Manifest, timeout: float, through: Through
) -> str:
    """Gives the sha256 of what was read."""
    remove(pipe)
    os.mkfifo(pipe, 0o600)
    options = ["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--single-transaction"]
    options += _guard(effects, tool, timeout)
    with contextlib.ExitStack() as stack:
        stack.callback(remove, pipe)
        feeder = _Feeder(pipe, backup, made, through)
        stack.callback(feeder.close)
        argv = ["psql", *options, "--output=/dev/null", f"--file={PLACE}/{os.path.basename(pipe)}"]
        program = stack.enter_context(tool.run(argv))
        effects.progress.phase(f"restoring {backup.name}", _decoded_bytes(backup, made), done=lambda: feeder.bytes)
        drive(program, effects, what="psql", timeout=timeout, step=feeder.step)
    if not feeder.done:
        raise OpsError(f"psql ended before it had read all of {backup.name}")
    return feeder.sha256


def _guard(effects: Effects, tool: Aside, timeout: float) -> list[str]:
    """What psql does before the dump: from then on it takes no command to itself, where it knows how to.

    The key is no secret: whoever wrote the dump could not know it.
    """
    with tool.run(["psql", "--version"]) as program:
        drive(program, effects, what="psql --version", timeout=timeout)
        found = re.search(r"\) (\d+)(?:\.(\d+))?", program.said())
    major, minor = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    # as the scanner reads, whatever the server's own default is
    options = ["--command=SET standard_conforming_strings = on"]
    if major > max(_RESTRICT_SINCE) or minor >= _RESTRICT_SINCE.get(major, minor + 1):
        options.append(f"--command=\\restrict {secrets.token_hex(16)}")
    return options


def _decoded_bytes(backup: Backup, made: Manifest) -> int | None:
    """How much psql will get; None where that is not known."""
    return made.raw_bytes or (backup.size_bytes if made.compression == "none" else None)


def _rotten(effects: Effects, backup: Backup, made: Manifest) -> bool:
    """Whether the file is not its manifest's: that then is why it failed, and before all of it was read."""
    try:
        return hashed(effects, backup.path) != made.sha256
    except (OpsError, OSError):
        return False  # not known: what failed first is told


def _altered(backup: Backup, exc: Exception | None = None) -> Damaged:
    more = "" if exc is None else f" ({exc.msg if isinstance(exc, OpsError) else exc})"
    return Damaged(f"{backup.name} is damaged: its sha256 is not the one of its manifest{more}")


class _Feeder:
    """Writes the dump's bytes into a pipe that psql reads, and hashes the file meanwhile."""

    def __init__(self, pipe: str, backup: Backup, made: Manifest, through: Through) -> None:
        self._pipe = pipe
        self._fd = -1
        self._sha = hashlib.sha256()
        self._chunks = through(self._read(backup.path, made.compression))
        self._waiting = memoryview(b"")
        self.done = False
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Of the file, once all of it was read."""
        return self._sha.hexdigest()

    def _read(self, path: str, compression: str) -> Iterator[bytes]:
        for chunk in decoded(path, compression, seen=self._sha.update):
            yield chunk
            self.bytes += len(chunk)  # as the dump has them: not all of it goes to psql

    def step(self) -> bool:
        """Write what the pipe takes; whether it was anything."""
        if self.done:
            return False
        if self._fd < 0:
            try:
                self._fd = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # psql has not opened it yet
                    return False
                raise
        if not self._waiting:
            chunk = next(self._chunks, b"")
            if not chunk:
                self.close()
                self.done = True
                return True
            self._waiting = memoryview(chunk)
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(50):
            return False
        try:
            taken = os.write(self._fd, self._waiting)
            self._waiting = self._waiting[taken:]
        except BlockingIOError:
            return False
        except BrokenPipeError:  # its exit code and its words tell more
            return False
        return True

    def close(self) -> None:
        """Close the pipe: psql has all."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Hashing:
    """Hashes an archive in a thread while pg_restore reads it, so that a big one is read from the disk once."""

    def __init__(self, effects: Effects, backup: Backup, made: Manifest) -> None:
        self._effects = effects
        self._backup = backup
        self._made = made
        self._tally = Tally()
        self._given_up = False
        self._sha256 = ""
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> _Hashing:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._given_up = True
        self._thread.join()

    def _work(self) -> None:
        try:
            self._sha256 = digest(self._backup.path, cancelled=lambda: self._given_up, seen=self._tally)
        except Exception as exc:  # pylint: disable=broad-exception-caught  # handed on to whoever waits
            self._error = exc

    def step(self) -> bool:
        """Stop what is under way as soon as the archive is known to be damaged; does no part of the work.

        Raises:
            Damaged: it is.
            OpsError: that cannot be told.
        """
        if self._thread.is_alive():
            return False
        if isinstance(self._error, OpsError):
            raise self._error
        if self._error:
            why = str(self._error) or type(self._error).__name__
            raise OpsError(f"The sha256 of {self._backup.name} could not be computed: {why}") from self._error
        if self._sha256 != self._made.sha256:
            raise _altered(self._backup)
        return False

    def wait(self) -> None:
        """For the end of it; raises as ``step`` does."""
        self._effects.progress.phase("computing the sha256", self._backup.size_bytes, done=lambda: self._tally.bytes)
        while self._thread.is_alive():
            self._thread.join(0.1)
            if self._effects.cancelled():
                raise Cancelled("The run was asked to end")
        self.step()
