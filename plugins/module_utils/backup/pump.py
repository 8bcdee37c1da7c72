# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes a dump's bytes while pg_dump writes them: hashes, counts, and compresses where that was asked for."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import select
import threading
from typing import Protocol

from ..core.errors import OpsError
from .codec import Encoder, decoded

__all__ = ["Follower", "Idle", "PipePump", "Pump", "Rereader"]

_CHUNK = 1 << 20
_PIPE_SIZE = 1031  # F_SETPIPE_SZ (fcntl(2)), which Python's fcntl has from 3.10 on
_HEAD = 4096
_TAIL = 4096


class Pump(Protocol):
    """What ``dump`` drives while pg_dump runs.

    Attributes:
        raw_bytes: what pg_dump has written so far.
        head: the first bytes of that.
    """

    raw_bytes: int
    head: bytes

    @property
    def sha256(self) -> str | None:
        """Of the file so far; None where it cannot be known before the end."""

    def step(self, wait: float) -> bool:
        """Take what there is, waiting at most so many seconds; whether it was anything."""

    def finish(self) -> None:
        """Take the rest: pg_dump has ended."""

    def close(self) -> None:
        """Give back what it holds, also in the middle."""


class Idle:
    """Watches how a file or directory grows, for dumps that are not written from front to end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.raw_bytes = 0
        self.head = b""

    @property
    def sha256(self) -> str | None:
        """Not known."""
        return None

    def step(self, wait: float) -> bool:
        """Nothing to do but wait; the caller's clock does that."""
        return False

    def finish(self) -> None:
        """Nothing more is known than before."""

    def close(self) -> None:
        """Holds nothing."""


class Follower:
    """Reads behind pg_dump what it writes from front to end; the pages are still in memory then."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._sha = hashlib.sha256()
        # One room for all: it stays in the processor's cache, and the hash costs pg_dump less of the memory's time.
        self._room = bytearray(_CHUNK // 4)
        self.raw_bytes = 0
        self.head = b""

    @property
    def sha256(self) -> str | None:
        """Of what was read so far."""
        return self._sha.hexdigest()

    def step(self, wait: float) -> bool:
        """Take up to a few megabytes; never waits."""
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return False
        taken = 0
        while taken < 8 * _CHUNK:
            size = os.readv(self._fd, [self._room])
            if not size:
                break
            with memoryview(self._room) as room:
                if len(self.head) < _HEAD:
                    self.head += bytes(room[: min(size, _HEAD - len(self.head))])
                self._sha.update(room[:size])
            taken += size
        self.raw_bytes += taken
        return taken > 0

    def finish(self) -> None:
        """Read to the end."""
        while self.step(0):
            pass

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PipePump:
    """Reads a pipe that pg_dump writes into, and writes the file.

    Args:
        source: the pipe's reading end; closed by ``close``.
        path: the file, which must not be there; made with mode 0600.
        encoder: compresses, or does not.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, source: int, path: str, encoder: Encoder) -> None:
        self._source = source
        self._path = path
        self._encoder = encoder
        self._sha = hashlib.sha256()
        self.raw_bytes = 0
        self.head = b""
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.set_blocking(source, False)
        try:
            fcntl.fcntl(source, _PIPE_SIZE, _CHUNK)
        except OSError as exc:
            if exc.errno not in (errno.EPERM, errno.EBUSY):  # a limit of the machine's: it only takes more turns then
                raise
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)

    @property
    def sha256(self) -> str | None:
        """Of what was written so far."""
        return self._sha.hexdigest()

    def step(self, wait: float) -> bool:
        """Take what there is."""
        ready = self._poll.poll(max(0, round(wait * 1000)))
        # Without POLLIN it only says that nobody writes (any more, or yet).
        if not any(event & select.POLLIN for _fd, event in ready):
            return False
        try:
            chunk = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            return False
        if len(self.head) < _HEAD:
            self.head += chunk[: _HEAD - len(self.head)]
        self.raw_bytes += len(chunk)
        self._put(self._encoder.encode(chunk))
        return True

    def finish(self) -> None:
        """Take the rest, and end the compressed stream."""
        while self.step(0):
            pass
        self._put(self._encoder.end())

    def close(self) -> None:
        """Close both ends."""
        self._encoder.close()
        for fd in (self._source, self._out):
            if fd >= 0:
                os.close(fd)
        self._source = self._out = -1

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.write(self._out, view)
                self._sha.update(view[:done])
                view = view[done:]
        except OSError as exc:
            hint = "Free some space on that file system." if exc.errno in (errno.ENOSPC, errno.EDQUOT) else None
            raise OpsError(f"{self._path} could not be written: {exc.strerror or exc}", hint=hint) from exc


class Rereader:
    """Reads a compressed dump again, right behind whoever writes it, in a thread beside.

    Args:
        path: the file.
        compression: gzip or zstd.

    Attributes:
        bytes: what it has decompressed so far.
        tail: the last bytes of that.
    """

    def __init__(self, path: str, compression: str) -> None:
        self.bytes = 0
        self.tail = b""
        self._error: Exception | None = None
        self._written = threading.Event()
        self._given_up = False
        self._thread = threading.Thread(target=self._work, args=(path, compression), daemon=True)
        self._thread.start()

    def _work(self, path: str, compression: str) -> None:
        try:
            for chunk in decoded(path, compression, written=self._written):
                if self._given_up:
                    return
                self.tail = (self.tail + chunk[-_TAIL:])[-_TAIL:]
                self.bytes += len(chunk)
        except Exception as exc:  # pylint: disable=broad-exception-caught  # handed on to whoever waits
            self._error = exc

    def ended(self, wait: float) -> bool:
        """The file is complete: whether all of it is read, after so many seconds at most.

        Raises:
            OpsError: the file is damaged, or cannot be read.
        """
        self._written.set()
        self._thread.join(wait)
        if self._error:
            raise self._error
        return not self._thread.is_alive()

    def close(self) -> None:
        """Give up, also in the middle."""
        self._given_up = True
        self._written.set()
        self._thread.join()
