# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be restored: a backup of ours, another host's, or a dump that somebody has made by hand."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Callable

from ..core.errors import InvalidInput, Mistaken, OpsError, Refused
from ..core.progress import Progress, Tally
from . import catalog
from .catalog import Backup, digest
from .codec import decoded
from .dump import check_tail
from .dumpdir import check_directory
from .manifest import Manifest
from .sqlscan import Scanner, without_carriage_returns
from .tools import Cancelled

__all__ = ["Source", "find_source"]

_HEAD = 8192
_TAIL = 4096
_TITLE = b"-- PostgreSQL database dump"
_CLUSTER = b"-- PostgreSQL database cluster dump"
_MAGICS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_MARKS = ((b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_OTHERS = (b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"LZIP")
_RAW = {"plain": "SQL", "custom": "custom archive", "directory": "directory"}


@dataclass(frozen=True)
class Source:
    """A dump that can be restored.

    Attributes:
        backup: where it is.
        made: its manifest; without one, what was found out by reading it.
        foreign: whether it has no manifest.
        returns: whether a terminal has put carriage returns into it.
        rows: rows by table, as far as they are known before it is restored: INSERTs are not counted.
        raw_bytes: its size before the compression, as far as that is known.
    """

    backup: Backup
    made: Manifest
    foreign: bool
    returns: bool
    rows: Mapping[str, int] | None
    raw_bytes: int

    @classmethod
    def of(cls, backup: Backup, made: Manifest) -> Source:
        """A backup that has a manifest."""
        return cls(backup, made, False, False, made.rows, made.raw_bytes or made.size_bytes)

    @property
    def kind(self) -> str:
        """Its format in words."""
        packed = "" if self.made.compression == "none" else f", {self.made.compression}"
        return f"{_RAW[self.made.format]}{packed}" + (", carriage returns taken out" if self.returns else "")

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The plain dump's bytes as psql gets them, without its own \\restrict: see ``load``."""
        name = self.backup.name
        return Scanner(name, foreign=self.foreign, unguarded=True).passed(
            without_carriage_returns(chunks, name) if self.returns else chunks
        )


def find_source(
    directory: str, asked: str, *, cancelled: Callable[[], bool], progress: Progress | None = None
) -> Source:
    """Find a dump, by its name in the directory of the backups or by its absolute path, and tell what it is.

    One without a manifest is read to its end, for nothing else tells whether it is whole; ``progress`` is told.

    Raises:
        Mistaken: there is none.
        InvalidInput: it is not one that can be restored.
    """
    path = _path(directory, asked)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb"):
                pass
        elif stat.S_ISDIR(mode):
            os.listdir(path)
    except FileNotFoundError as exc:
        raise Mistaken(
            f"There is no backup {asked}" + ("" if asked.startswith("/") else f" in {directory}"),
            hint=_known(directory),
        ) from exc
    except OSError as exc:
        raise InvalidInput(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InvalidInput(f"{path} is neither a file nor a directory")
    backup = catalog.look(path)
    if backup is None:
        raise InvalidInput(f"{path} has gone while it was looked at")
    if backup.state == catalog.DAMAGED:
        raise Refused(
            f"{backup.name} cannot be restored: {backup.trouble}",
            hint="Restore another backup. If only its manifest is wrong, move that away: it then counts as hand-made.",
        )
    if backup.manifest is not None:
        return Source.of(backup, backup.manifest)
    return _foreign(backup, cancelled, progress or Progress())


def _path(directory: str, asked: str) -> str:
    if not asked or "\0" in asked:
        raise Mistaken("backup must name a backup", hint=_known(directory))
    if asked.startswith("/"):
        return os.path.realpath(asked)
    if "/" in asked or asked.startswith("."):
        raise Mistaken(
            f"backup must be a name in {directory} or an absolute path on the host, not {asked}", hint=_known(directory)
        )
    return os.path.join(directory, asked)


def _known(directory: str) -> str:
    try:
        names = [item.name for item in catalog.listed(directory)]
    except OpsError:
        names = []
    told = ", ".join(names[:3]) or "none"
    return f"Newest in {directory}: {told}."


def _foreign(backup: Backup, cancelled: Callable[[], bool], progress: Progress) -> Source:
    """A dump without a manifest."""
    if os.path.isdir(backup.path):
        if not os.path.isfile(os.path.join(backup.path, "toc.dat")):
            raise InvalidInput(f"{backup.name} is not a dump: a directory that pg_dump has made has a file toc.dat")
        return _archive(backup, "directory", cancelled, progress)
    if backup.size_bytes == 0:
        raise InvalidInput(f"{backup.name} is empty", hint="Restore another backup.")
    with open(backup.path, "rb") as stream:
        head = stream.read(_HEAD)
    if head.startswith(b"PGDMP"):
        return _archive(backup, "custom", cancelled, progress)
    compression = next((name for magic, name in _MAGICS if head.startswith(magic)), "none")
    if head.startswith(_OTHERS):
        raise InvalidInput(
            f"{backup.name} is packed in a way that is not known here", hint="Unpack it, and restore what comes out."
        )
    return _plain(backup, compression, cancelled, progress)


def _archive(backup: Backup, form: str, cancelled: Callable[[], bool], progress: Progress) -> Source:
    """An archive for pg_restore, which alone can say whether it is whole; of a directory's files it does not."""
    unpacked, read = Tally(), Tally()
    if form == "directory":
        try:
            # what is not packed is not read for it, and not counted
            progress.phase(f"unpacking {backup.name}", backup.size_bytes, about=True, done=lambda: unpacked.bytes)
            check_directory(backup.path, cancelled=cancelled, seen=unpacked)
        except Cancelled:
            raise
        except OpsError as exc:
            raise _unfit(backup, exc) from exc
    progress.phase(f"reading {backup.name}", backup.size_bytes, done=lambda: read.bytes)
    sha256 = digest(backup.path, cancelled=cancelled, seen=read)
    return Source(backup, _made_up(backup, form, "none", sha256), True, False, None, backup.size_bytes)


def _plain(backup: Backup, compression: str, cancelled: Callable[[], bool], progress: Progress) -> Source:
    sha, scanner, read = hashlib.sha256(), Scanner(backup.name), Tally()
    head, tail, size = b"", b"", 0
    returns = False

    def seen(chunk: bytes) -> None:
        sha.update(chunk)
        read(chunk)

    def opened(chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Look at the beginning; the rest goes on as it comes."""
        nonlocal head, returns
        waiting: list[bytes] = []
        for chunk in chunks:
            waiting.append(chunk)
            head = b"".join(waiting)
            if len(head) >= _HEAD:
                break
        _refuse_unless_dump(backup.name, head[:_HEAD])
        first = head.find(b"\n")
        returns = first > 0 and head[first - 1 : first] == b"\r"
        rest = _chained(head, chunks)
        yield from without_carriage_returns(rest, backup.name) if returns else rest

    progress.phase(f"reading {backup.name}", backup.size_bytes, done=lambda: read.bytes)
    try:
        for chunk in scanner.passed(opened(decoded(backup.path, compression, seen=seen))):
            tail, size = (tail + chunk)[-_TAIL:], size + len(chunk)
            if cancelled():
                raise Cancelled("The run was asked to end")
        check_tail(tail)
    except (InvalidInput, Cancelled):
        raise
    except OpsError as exc:
        raise _unfit(backup, exc) from exc
    made = _made_up(backup, "plain", compression, sha.hexdigest())
    rows = None if scanner.inserts and not scanner.rows else scanner.rows
    return Source(backup, made, True, returns, rows, size)


def _unfit(backup: Backup, exc: OpsError) -> InvalidInput:
    return InvalidInput(f"{backup.name} cannot be restored: {exc.msg}", hint="Restore another backup.")


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _refuse_unless_dump(name: str, head: bytes) -> None:
    if _CLUSTER in head:
        raise InvalidInput(
            f"{name} is a dump of a whole server (pg_dumpall), which would write into other databases, too",
            hint="Dump the one database with pg_dump.",
        )
    if head.startswith(b"PGDMP"):
        raise InvalidInput(f"{name} is a packed archive of pg_dump", hint="Unpack it, and restore what comes out.")
    mark = next((coding for mark, coding in _MARKS if head.startswith(mark)), None)
    if mark:
        raise InvalidInput(
            f"{name} begins with a byte order mark of {mark}, so that something has rewritten it since pg_dump: an "
            "editor, or PowerShell, which may have changed letters, too",
            hint="Dump again, and let pg_dump itself write the file (pg_dump --file).",
        )
    if head[257:262] == b"ustar":
        raise InvalidInput(
            f"{name} is a tar archive, as pg_dump -Ft makes, which cannot be restored",
            hint="Turn it into SQL (pg_restore --file=new.sql, with the name of this one), and restore that. "
            "If it was made with tar, unpack it, and restore what comes out.",
        )
    if _TITLE not in head:
        raise InvalidInput(f"{name} is not a dump that pg_dump has made", hint="Restore another backup.")


def _made_up(backup: Backup, form: str, compression: str, sha256: str) -> Manifest:
    """What stands in for a manifest."""
    return Manifest(
        name=backup.name,
        database="",
        format=form,
        compression=compression,
        started="",
        ended="",
        seconds=0,
        size_bytes=backup.size_bytes,
        sha256=sha256,
        rows={},
    )
