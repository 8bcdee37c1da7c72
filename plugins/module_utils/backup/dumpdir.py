# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the files of a directory that pg_dump has made are whole: pg_restore takes one that was cut at a line."""

from __future__ import annotations

import os
import re
from typing import Callable

from ..core.errors import Damaged, OpsError
from .codec import decoded
from .tools import Cancelled

__all__ = ["check_directory"]

# The files beside the table of contents: a table's data, a large object, a list of large objects.
_FILE = re.compile(r"(?:(?P<table>\d+\.dat)|blob_\d+\.dat|blobs(?:_\d+)?\.toc)(?:\.(?P<packed>gz|lz4|zst))?")
_PACKED = {"gz": "gzip", "zst": "zstd"}
# dumpTableData_copy and dumpTableData_insert (pg_dump.c); the latter writes no more than two line ends for no rows.
_COPIED, _INSERTED, _NO_INSERTS, _INSERT = b"\\.\n\n\n", b";\n\n\n", b"\n\n", b"INSERT INTO "
_LZ4 = b"\x04\x22\x4d\x18"


def check_directory(path: str, *, cancelled: Callable[[], bool], seen: Callable[[bytes], object] = len) -> None:
    """Look at the end of every table's data, and unpack what is packed. A large object as it is shows no end.

    Args:
        path: the directory.
        cancelled: whether the run was asked to end.
        seen: called with what is read of packed files.

    Raises:
        Damaged: a file ends too early, or is damaged.
        Cancelled: the run was asked to end.
        OpsError: one cannot be read.
    """
    ends: dict[str, tuple[bytes, bytes]] = {}
    for name in sorted(os.listdir(path)):
        known, place = _FILE.fullmatch(name), os.path.join(path, name)
        if known is None:
            continue
        try:
            if known["packed"] == "lz4":
                _check_lz4(place, may_be_empty=known["table"] is None)
                continue
            found = _ends(place, _PACKED.get(known["packed"] or "", "none"), cancelled, seen)
        except Damaged as exc:
            raise Damaged(f"its file {name} is damaged ({exc.msg})") from exc
        except OSError as exc:
            raise OpsError(f"its file {name} cannot be read: {exc.strerror or exc}") from exc
        if known["table"]:
            ends[name] = found
    # One dump has either COPY or INSERTs for all tables.
    copied = any(tail.endswith(_COPIED) for _head, tail in ends.values())
    for name, (head, tail) in ends.items():
        inserted = head == _NO_INSERTS or (head == _INSERT and tail.endswith(_INSERTED))
        if not (tail.endswith(_COPIED) if copied else inserted):
            raise Damaged(f"its file {name} ends too early")


def _ends(
    path: str, compression: str, cancelled: Callable[[], bool], seen: Callable[[bytes], object]
) -> tuple[bytes, bytes]:
    """The first and the last bytes of what a file holds; all of it is read only where it is packed."""
    first, last = len(_INSERT), len(_COPIED)
    if compression == "none":
        with open(path, "rb") as stream:
            head = stream.read(first)
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - last))
            return head, stream.read(last)
    head = tail = b""
    for chunk in decoded(path, compression, seen=seen):
        head, tail = head or chunk[:first], (tail + chunk)[-last:]
        if cancelled():
            raise Cancelled("The run was asked to end")
    return head, tail


def _check_lz4(path: str, *, may_be_empty: bool) -> None:
    """Follow the blocks of a frame to its end mark (LZ4 frame format 1.6), which pg_restore does not miss."""
    size = os.stat(path).st_size
    if size == 0 and may_be_empty:  # pg_dump begins a frame with the first byte
        return
    with open(path, "rb") as stream:
        head = stream.read(5)
        if head[:4] != _LZ4 or len(head) < 5:
            raise Damaged("lz4: no frame")
        flags = head[4]
        # the block size and the header's checksum; the content's size, a dictionary
        stream.seek(2 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0), os.SEEK_CUR)
        block = -1
        while block != 0:
            told = stream.read(4)
            if len(told) < 4:
                raise Damaged("lz4: the data end too early")
            block = int.from_bytes(told, "little") & 0x7FFFFFFF  # the highest bit: it is not compressed
            stream.seek(block + (4 if block and flags & 16 else 0), os.SEEK_CUR)
        if stream.tell() + (4 if flags & 4 else 0) != size:
            raise Damaged("lz4: the data end too early, or something follows them")
