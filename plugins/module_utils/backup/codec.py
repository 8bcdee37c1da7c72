# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compression of plain dumps, several threads at a time, and reading them again."""

from __future__ import annotations

import collections
import contextlib
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from typing import Callable

from ..core.errors import Damaged, OpsError
from .zstd import Compressor, Decompressor

__all__ = ["LEVELS", "Encoder", "decoded", "encoder"]

# The lowest, highest and default level of each (zlib manual; zstd.h, levels that need no extra memory).
LEVELS = {"gzip": (1, 9, 6), "zstd": (1, 19, 3)}

_CHUNK = 256 << 10
# Few bytes may stand for very many: so many at a time at most.
_MOST = 1 << 20
_PAUSE = 0.05
# A gzip member each: whatever reads gzip reads members one after another (RFC 1952, 2.2).
_MEMBER = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


class Encoder:
    """Bytes in, bytes out; this one changes nothing."""

    def encode(self, data: bytes) -> bytes:
        """What is ready after these bytes."""
        return data

    def end(self) -> bytes:
        """The rest."""
        return b""

    def close(self) -> None:
        """Give back what it holds, also in the middle."""


class _Gzip(Encoder):
    """Members of equal size, compressed beside one another (zlib lets other threads run)."""

    def __init__(self, level: int, threads: int) -> None:
        self._level = level
        self._pool = ThreadPoolExecutor(threads, "gzip")
        self._room = threads * 2
        self._waiting = bytearray()
        self._running: collections.deque[Future[bytes]] = collections.deque()
        self._empty = True

    def encode(self, data: bytes) -> bytes:
        self._waiting += data
        while len(self._waiting) >= _MEMBER:
            self._begin(_MEMBER)
        return self._ready(self._room)

    def end(self) -> bytes:
        if self._waiting or self._empty:
            self._begin(len(self._waiting))
        return self._ready(0)

    def close(self) -> None:
        self._pool.shutdown()

    def _begin(self, size: int) -> None:
        self._running.append(self._pool.submit(self._member, bytes(self._waiting[:size])))
        del self._waiting[:size]
        self._empty = False

    def _ready(self, may_wait: int) -> bytes:
        parts = []
        while self._running and (len(self._running) > may_wait or self._running[0].done()):
            parts.append(self._running.popleft().result())
        return b"".join(parts)

    def _member(self, data: bytes) -> bytes:
        compressor = zlib.compressobj(self._level, zlib.DEFLATED, _GZIP)
        return compressor.compress(data) + compressor.flush()


class _Zstd(Encoder):
    def __init__(self, level: int, threads: int) -> None:
        self._compressor = Compressor(level, threads)

    def encode(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def end(self) -> bytes:
        return self._compressor.flush()

    def close(self) -> None:
        self._compressor.close()


def encoder(compression: str, level: int | None, threads: int) -> Encoder:
    """What compresses a dump.

    Args:
        compression: none, gzip or zstd.
        level: None for the usual one.
        threads: how many compress beside one another.

    Raises:
        OpsError: zstd, and its library is missing.
    """
    if compression == "none":
        return Encoder()
    chosen = LEVELS[compression][2] if level is None else level
    return _Gzip(chosen, threads) if compression == "gzip" else _Zstd(chosen, threads)


def decoded(
    path: str,
    compression: str,
    *,
    seen: Callable[[bytes], object] = len,
    written: threading.Event | None = None,
) -> Iterator[bytes]:
    """The bytes that were compressed into a file, as they come.

    Args:
        path: the file.
        compression: none, gzip or zstd.
        seen: called with the file's own bytes, for a checksum.
        written: set once the file is complete, where it is still being written.

    Raises:
        Damaged: the file is damaged, or ends too early.
        OpsError: it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            chunks = _watched(_chunks(stream, written), seen)
            yield from {"none": _as_is, "gzip": _ungzipped, "zstd": _unzstd}[compression](chunks)
    except OSError as exc:
        raise OpsError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def _chunks(stream: FileIO, written: threading.Event | None) -> Iterator[bytes]:
    while True:
        whole = written is None or written.is_set()
        chunk = stream.read(_CHUNK)
        if chunk:
            yield chunk
        elif whole:
            return
        elif written:
            written.wait(_PAUSE)


def _watched(chunks: Iterator[bytes], seen: Callable[[bytes], object]) -> Iterator[bytes]:
    for chunk in chunks:
        seen(chunk)
        yield chunk


def _as_is(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from chunks


def _ungzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    reader = zlib.decompressobj(_GZIP)
    begun = False
    for chunk in chunks:
        data, more = chunk, False
        while data or more:
            if reader.eof:
                data = data.lstrip(b"\0")  # what pads a file to a size: gzip itself ignores it, too
                if not data:
                    break
                reader = zlib.decompressobj(_GZIP)
            try:
                part = reader.decompress(data, _MOST)
            except zlib.error as exc:
                raise Damaged(f"gzip: {exc}") from exc
            begun = True
            if part:
                yield part
            data = reader.unused_data or reader.unconsumed_tail
            more = len(part) == _MOST and not reader.eof  # it may hold some back without any input left
    if not begun or not reader.eof:
        raise Damaged("gzip: the data end too early")


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    begun = False
    with contextlib.closing(Decompressor()) as reader:
        for chunk in chunks:
            begun = True
            yield from reader.decompress(chunk)
        if not begun or not reader.complete:
            raise Damaged("zstd: the data end too early")
