# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zstandard through the distribution's own libzstd: Python has none before 3.14, and dpkg needs that library anyway.

Streaming compression with several threads, and decompression (zstd manual, "Streaming compression", zstd.h 1.5).
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from typing import Any

from ..core.errors import Damaged, OpsError

__all__ = ["Compressor", "Decompressor"]

# enum ZSTD_cParameter and ZSTD_EndDirective (zstd.h)
_LEVEL, _CHECKSUM, _WORKERS, _JOB_SIZE = 100, 201, 400, 401
_CONTINUE, _END = 0, 2
_NO_MEMORY = 64  # enum ZSTD_ErrorCode (zstd_errors.h)
# Bytes that a thread takes at a time. Its own choice (four windows) would hold 16 MB a thread and more at level 3.
_JOB = 2 << 20


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


def _library() -> Any:
    name = "libzstd.so.1"
    try:
        lib = ctypes.CDLL(name)
    except OSError as exc:
        raise OpsError(
            f"The library {name} is missing on this host",
            state="Nothing was changed.",
            hint="Install the package libzstd1, or use compression: gzip.",
        ) from exc
    for function, result, arguments in (
        ("ZSTD_createCCtx", ctypes.c_void_p, []),
        ("ZSTD_freeCCtx", ctypes.c_size_t, [ctypes.c_void_p]),
        ("ZSTD_CCtx_setParameter", ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
        ("ZSTD_compressStream2", ctypes.c_size_t, [ctypes.c_void_p, _POINTER, _POINTER, ctypes.c_int]),
        ("ZSTD_createDCtx", ctypes.c_void_p, []),
        ("ZSTD_freeDCtx", ctypes.c_size_t, [ctypes.c_void_p]),
        ("ZSTD_decompressStream", ctypes.c_size_t, [ctypes.c_void_p, _POINTER, _POINTER]),
        ("ZSTD_isError", ctypes.c_uint, [ctypes.c_size_t]),
        ("ZSTD_getErrorCode", ctypes.c_int, [ctypes.c_size_t]),
        ("ZSTD_getErrorName", ctypes.c_char_p, [ctypes.c_size_t]),
        ("ZSTD_CStreamOutSize", ctypes.c_size_t, []),
    ):
        getattr(lib, function).restype = result
        getattr(lib, function).argtypes = arguments
    return lib


_POINTER = ctypes.POINTER(_Buffer)


class _Stream:
    """What both directions share: the library, a context and a buffer for what comes out."""

    _wrong = OpsError  # what an error of the library is

    def __init__(self, create: str, free: str) -> None:
        self._lib = _library()
        self._free = getattr(self._lib, free)
        self._context = ctypes.c_void_p(getattr(self._lib, create)())
        if not self._context:
            raise OpsError("libzstd has no memory left")
        self._room = ctypes.create_string_buffer(int(self._lib.ZSTD_CStreamOutSize()))

    def close(self) -> None:
        """Give the memory back."""
        if self._context:
            self._free(self._context)
            self._context = ctypes.c_void_p(None)

    def _checked(self, code: int) -> int:
        if self._lib.ZSTD_isError(code):
            kind = OpsError if self._lib.ZSTD_getErrorCode(code) == _NO_MEMORY else self._wrong
            raise kind(f"zstd: {self._lib.ZSTD_getErrorName(code).decode()}")
        return code

    def _out(self) -> _Buffer:
        return _Buffer(ctypes.addressof(self._room), len(self._room), 0)

    def _taken(self, out: _Buffer) -> bytes:
        return ctypes.string_at(self._room, out.pos)


def _in(data: bytes) -> tuple[_Buffer, Any]:
    """A buffer over bytes, and what must stay alive as long as it is used."""
    kept = ctypes.c_char_p(data)
    return _Buffer(ctypes.cast(kept, ctypes.c_void_p), len(data), 0), kept


class Compressor(_Stream):
    """One frame with a checksum.

    Args:
        level: 1 to 19.
        threads: how many; a library built without threads takes one.
    """

    def __init__(self, level: int, threads: int) -> None:
        super().__init__("ZSTD_createCCtx", "ZSTD_freeCCtx")
        self._checked(self._lib.ZSTD_CCtx_setParameter(self._context, _LEVEL, level))
        self._checked(self._lib.ZSTD_CCtx_setParameter(self._context, _CHECKSUM, 1))
        if threads > 1:
            self._lib.ZSTD_CCtx_setParameter(self._context, _WORKERS, threads)
            self._lib.ZSTD_CCtx_setParameter(self._context, _JOB_SIZE, _JOB)

    def compress(self, data: bytes) -> bytes:
        """What is ready after these bytes."""
        return self._run(data, _CONTINUE)

    def flush(self) -> bytes:
        """The rest; ends the frame."""
        return self._run(b"", _END)

    def _run(self, data: bytes, how: int) -> bytes:
        source, _kept = _in(data)
        parts = []
        while True:
            out = self._out()
            left = self._checked(
                self._lib.ZSTD_compressStream2(self._context, ctypes.byref(out), ctypes.byref(source), how)
            )
            parts.append(self._taken(out))
            if left == 0 if how == _END else source.pos == source.size:
                return b"".join(parts)


class Decompressor(_Stream):
    """Frames one after another."""

    _wrong = Damaged

    def __init__(self) -> None:
        super().__init__("ZSTD_createDCtx", "ZSTD_freeDCtx")
        self._left = 0

    @property
    def complete(self) -> bool:
        """Whether the last frame has ended."""
        return self._left == 0

    def decompress(self, data: bytes) -> Iterator[bytes]:
        """What these bytes give, a buffer at a time.

        Raises:
            Damaged: they are no (whole) zstd data.
            OpsError: the library has no memory left.
        """
        source, _kept = _in(data)
        while True:
            out = self._out()
            self._left = self._checked(
                self._lib.ZSTD_decompressStream(self._context, ctypes.byref(out), ctypes.byref(source))
            )
            if out.pos:
                yield self._taken(out)
            # A full output may leave more inside, unless the frame has ended.
            if source.pos == source.size and (self._left == 0 or out.pos < out.size):
                return
