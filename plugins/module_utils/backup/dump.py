# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One dump, from pg_dump's first byte until it is known to be whole; under a hidden name, which the caller changes."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from ..compose.container import Container
from ..compose.sidecar import SidecarUnavailable
from ..core.errors import OpsError
from ..core.files import fsync_dir, remove
from .catalog import files_of, size_of
from .codec import encoder
from .naming import hidden
from .options import BackupOptions
from .pump import Follower, Idle, PipePump, Pump, Rereader
from .session import Way
from .tools import PLACE, Aside, Cancelled, Effects, Inside, Program, drive, hashed

__all__ = ["NO_LOGIN", "Dumped", "check_tail", "dump"]

_TRAILER = b"-- PostgreSQL database dump complete"
_TAIL = 4096
_VERSION = re.compile(r"^(?:--|;)\s+Dumped by pg_dump version:? (\S+)", re.MULTILINE)
# The listing alone would not notice that the data end too early.
_READ_AGAIN = ("pg_restore", "--file=/dev/null")
_READING = "pg_restore, which reads the dump again,"
# pg_dump's words where loopback is not trusted and there is no password.
NO_LOGIN = re.compile(r"no password supplied|password authentication failed|no pg_hba.conf entry|Peer authentication")


@dataclass(frozen=True)
class Dumped:
    """A dump that is whole.

    Attributes:
        path: where it is (a hidden name).
        size_bytes: its size.
        sha256: see Manifest.
        raw_bytes: the size before the compression, for a plain one.
        pg_dump_version: of the program.
        via: sidecar or exec.
        reason: why exec, where sidecar was to be expected.
    """

    path: str
    size_bytes: int
    sha256: str
    raw_bytes: int | None
    pg_dump_version: str
    via: str
    reason: str = ""


def dump(
    effects: Effects,
    container: Container,
    way: Way,
    options: BackupOptions,
    *,
    name: str,
    snapshot: str,
    expected_bytes: int,
) -> Dumped:
    """Make the dump and check it.

    Args:
        effects: what it acts through.
        container: the server's.
        way: how to log in.
        options: format and so on.
        name: the backup's name.
        snapshot: the exported snapshot.
        expected_bytes: what pg_dump will about write, for the progress.

    Raises:
        OpsError: there is no whole dump; what there is of it has hidden names.
    """
    work = _Work(effects, container, way, options, name, snapshot, expected_bytes)
    reason = ""
    if options.via == "auto" and not effects.docker_host.startswith("unix://"):
        reason = f"the Docker Engine at {effects.docker_host} may be on another machine"
    if options.via != "exec" and not reason:
        try:
            return work.aside()
        except SidecarUnavailable as exc:
            reason = exc.msg
        except OpsError as exc:
            if way.password is not None or not NO_LOGIN.search(exc.msg):
                raise
            reason = "beside the server, nobody is let in without a password"
        if options.via == "sidecar" or options.format == "directory":
            raise OpsError(f"The dump cannot be made in a sidecar container: {reason}")
    if options.format == "directory":
        raise OpsError(f"A directory cannot be dumped through docker exec, and {reason}")
    return work.inside(reason)


class _Work:
    """One dump's parts; see ``dump``."""

    def __init__(
        self,
        effects: Effects,
        container: Container,
        way: Way,
        options: BackupOptions,
        name: str,
        snapshot: str,
        expected_bytes: int,
    ) -> None:
        self._effects = effects
        self._container = container
        self._way = way
        self._options = options
        self._snapshot = snapshot
        self._expected_bytes = expected_bytes
        self._file = hidden(name, "partial")
        self._pipe = hidden(name, "pipe")
        self._path = os.path.join(options.directory, self._file)
        self._again: Rereader | None = None

    def aside(self) -> Dumped:
        """In a sidecar."""
        options = self._options
        target = options.target
        pipe = os.path.join(options.directory, self._pipe)
        piped = options.format == "plain" and options.compression != "none"
        tool = Aside(self._effects, self._container, options.directory, way=self._way, port=target.port)
        with contextlib.ExitStack() as stack:
            if piped:
                os.mkfifo(pipe, 0o600)
                stack.callback(remove, pipe)
                source = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                pump: Pump = self._piped(source, stack)
            else:
                if options.format != "directory":
                    # Of mode 0600 before the first byte is in it.
                    os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
                pump = Follower(self._path) if options.format == "plain" else Idle(self._path)
            stack.callback(pump.close)
            argv = ["pg_dump", *self._arguments(), f"--file={PLACE}/{self._pipe if piped else self._file}"]
            with tool.run(argv) as program:
                self._drive(program, pump)
            return self._checked(pump, "sidecar", "", tool)

    def inside(self, reason: str) -> Dumped:
        """In the server's own container."""
        target = self._options.target
        tool = Inside(self._effects, self._container, role=target.role, database=target.database, port=target.port)
        remove(self._path)  # of the attempt in a sidecar
        read, write = os.pipe2(os.O_CLOEXEC)
        with contextlib.ExitStack() as stack:
            try:
                pump = self._piped(read, stack)
                stack.callback(pump.close)
                program = stack.enter_context(tool.run(["pg_dump", *self._arguments()], stdout=write))
            finally:
                os.close(write)  # or the pipe would never end
            self._drive(program, pump)
            return self._checked(pump, "exec", reason, tool)

    def _piped(self, source: int, stack: contextlib.ExitStack) -> PipePump:
        """What takes the dump from a pipe, and what reads again behind it where it compresses."""
        options = self._options
        compression = options.compression if options.format == "plain" else "none"
        pump = PipePump(source, self._path, encoder(compression, options.level, options.threads))
        if compression != "none":
            self._again = Rereader(self._path, compression)
            stack.callback(self._again.close)
        return pump

    def _arguments(self) -> list[str]:
        options = self._options
        arguments = [
            f"--format={options.format}",
            "--no-password",
            f"--snapshot={self._snapshot}",
            f"--lock-wait-timeout={round(options.lock_wait_timeout * 1000)}",
            # done here, once the dump is known to be whole
            "--no-sync",
        ]
        if options.format != "plain":
            level = "" if options.level is None else f":{options.level}"
            if options.compression == "zstd":
                arguments.append(f"--compress=zstd{level}")
            elif options.compression == "gzip":
                arguments.append(f"--compress={options.level or 6}")  # as versions before 16 say it, too
            else:
                arguments.append("--compress=0")
        if options.jobs > 1:
            arguments.append(f"--jobs={options.jobs}")
        return arguments

    def _drive(self, program: Program, pump: Pump) -> None:
        timeout = self._options.timeout
        self._effects.progress.phase(
            f"dumping {self._options.target.database}",
            self._expected_bytes,
            about=True,
            done=lambda: size_of(self._path) if isinstance(pump, Idle) else pump.raw_bytes,
        )
        drive(program, self._effects, what="pg_dump", timeout=timeout, step=lambda: pump.step(0.05))
        pump.finish()

    def _checked(self, pump: Pump, via: str, reason: str, tool: Aside | Inside) -> Dumped:
        """Whole, and on the disk."""
        options = self._options
        if options.format == "plain":
            self._check_plain(pump)
            said = pump.head.decode("utf-8", "replace")
        else:
            said = self._check_archive(tool)
        self._effects.progress.phase("waiting until the disk has it")
        _secure(self._path)
        sha256 = pump.sha256 or hashed(self._effects, self._path)
        version = _VERSION.search(said)
        return Dumped(
            self._path,
            size_of(self._path),
            sha256,
            pump.raw_bytes if options.format == "plain" else None,
            version[1] if version else "",
            via,
            reason,
        )

    def _check_plain(self, pump: Pump) -> None:
        again = self._again
        if again is None:
            # Every byte was read already: its end is enough.
            check_tail(_end_of(self._path))
            return
        self._effects.progress.phase("reading the dump again", pump.raw_bytes, done=lambda: again.bytes)
        while not again.ended(0.1):
            if self._effects.cancelled():
                raise Cancelled("The run was asked to end")
        if again.bytes != pump.raw_bytes:
            raise OpsError(f"The compressed dump gives {again.bytes} bytes, but pg_dump wrote {pump.raw_bytes}")
        check_tail(again.tail)

    def _check_archive(self, tool: Aside | Inside) -> str:
        """Read the whole archive as a restore does; gives its table of contents' first lines."""
        self._effects.progress.phase("reading the dump again")
        timeout = self._options.timeout
        if isinstance(tool, Inside):
            with open(self._path, "rb") as stream, tool.run(_READ_AGAIN, stdin=stream.fileno()) as program:
                drive(program, self._effects, what=_READING, timeout=timeout)
            return _head_of(self._path)
        archive = f"{PLACE}/{self._file}"
        with tool.run([*_READ_AGAIN, archive]) as program:
            self._effects.progress.phase("reading the dump again", size_of(self._path), done=program.taken)
            drive(program, self._effects, what=_READING, timeout=timeout)
        with tool.run(["pg_dump", "--version"]) as program:
            drive(program, self._effects, what="pg_dump --version", timeout=timeout)
            said = re.search(r"(\d+(?:\.\d+)*\S*)", program.said())
        return f"-- Dumped by pg_dump version {said[1]}" if said else ""


def check_tail(tail: bytes) -> None:
    """Whether a plain dump is complete, by its last bytes.

    pg_dump ends with a comment that says so; versions of August 2025 and later write ``\\unrestrict`` after it.

    Raises:
        OpsError: it is not.
    """
    found = tail.rfind(_TRAILER)
    rest = tail[found + len(_TRAILER) :].split() if found >= 0 else []
    if found < 0 or any(not word.startswith((b"--", b"\\unrestrict")) for word in rest[:2]) or len(rest) > 3:
        raise OpsError("The dump is not complete: pg_dump's last line is missing")


def _end_of(path: str) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
        return stream.read()


def _head_of(path: str) -> str:
    """A custom archive's own header names the version of its pg_dump as plain text."""
    with open(path, "rb") as stream:
        found = re.search(rb"\d+\.\d+ \([^)]{1,80}\)|\d+\.\d+(?=\x00)", stream.read(512))
    return f"-- Dumped by pg_dump version {found[0].decode().split()[0]}" if found else ""


def _secure(path: str) -> None:
    """For root alone, and on the disk: what will be renamed is there after a power cut, too."""
    for file in files_of(path):
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(fd, 0o600)
            os.fsync(fd)
        finally:
            os.close(fd)
    if os.path.isdir(path):
        os.chmod(path, 0o700)
        fsync_dir(path)
    fsync_dir(os.path.dirname(path))
