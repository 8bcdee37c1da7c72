# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plain dump on its way to psql: only SQL may pass, never a command to psql itself, such as one to go elsewhere.

It is read as psql reads it (psql/psqlscan.l of PostgreSQL 17): quotes, dollar quotes and comments, and the data between
COPY ... FROM stdin and a line with a backslash and a dot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..core.errors import InvalidInput

__all__ = ["Scanner", "without_carriage_returns"]

_IDENT = rb"A-Za-z0-9_\x80-\xff"
_TOKEN = re.compile(rb"--[^\n]*\n?|/\*|'|\"|;|\\[^\n]*|(?<![%s$])\$(?:[A-Za-z_\x80-\xff][%s]*)?\$" % (_IDENT, _IDENT))
_ESCAPED = re.compile(rb"\\.|''|'", re.DOTALL)
_COMMENT = re.compile(rb"/\*|\*/")
_ESCAPES = re.compile(rb"(?<![%s$])[eE]$" % _IDENT)
_COPY = re.compile(rb"COPY\s+(.*?)\s*(?:\([^()]*\)\s*)?FROM\s+STDIN\b", re.IGNORECASE | re.DOTALL)
# What pg_dump of August 2025 and later begins and ends with.
_RESTRICT = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\r?")
_STRINGS_OFF = re.compile(rb"SET\s+standard_conforming_strings\s*(?:=|TO)\s*'?(?:off|false|0|no)", re.IGNORECASE)
# Encodings in which a backslash or quote may be the second half of a character (PostgreSQL 17 manual, 24.3.1).
_UNSAFE = re.compile(
    rb"SET\s+client_encoding\s*(?:=|TO)\s*'?(BIG5|GB18030|GBK|JOHAB|SJIS|SHIFT_JIS_2004|UHC)", re.IGNORECASE
)
_END_OF_DATA = b"\\.\n"
_LONGEST_STATEMENT_HEAD = 1 << 16


class Scanner:
    """Lets the bytes of a plain dump pass, whole lines at a time, and refuses before the line that must not.

    Args:
        name: what the dump is called in messages.

    Attributes:
        rows: rows of every table that the dump has data for, by the name in its COPY command.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting = bytearray()
        self._state = b""  # what ends the quote that we are in; b"" outside, "copy" in data
        self._depth = 0
        self._statement = bytearray()
        self._table = ""
        self._line = 1
        self.rows: dict[str, int] = {}

    def passed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same bytes.

        Raises:
            InvalidInput: there is something that must not reach psql, or the dump ends in the middle.
        """
        for chunk in chunks:
            cut = chunk.rfind(b"\n") + 1
            self._waiting += chunk[:cut] if cut else chunk
            if cut:
                whole = bytes(self._waiting)
                self._waiting = bytearray(chunk[cut:])
                self._look(whole)
                yield whole
        rest = bytes(self._waiting)
        if rest:
            self._look(rest)
            yield rest
        if self._state:
            raise self._refused("ends in the middle")

    def _look(self, block: bytes) -> None:
        at = 0
        while at < len(block):
            if self._state == b"":
                at = self._outside(block, at)
            elif self._state == b"copy":
                at = self._data(block, at)
            elif self._state == b"*/":
                at = self._comment(block, at)
            elif self._state == b"E'":
                at = self._escaped(block, at)
            else:
                found = block.find(self._state, at)
                end = len(block) if found < 0 else found + len(self._state)
                self._state = self._state if found < 0 else b""
                self._remember(block, at, end)
                at = end
        self._line += block.count(b"\n")

    def _outside(self, block: bytes, at: int) -> int:
        found = _TOKEN.search(block, at)
        if found is None:
            self._remember(block, at, len(block))
            return len(block)
        token = found[0]
        if token.startswith((b"--", b"/*")):
            self._remember(block, at, found.start())
            if token == b"/*":
                self._state, self._depth = b"*/", 1
            return found.end()
        if token.startswith(b"\\"):
            at_start = found.start() == 0 or block[found.start() - 1 : found.start()] == b"\n"
            if not (at_start and _RESTRICT.fullmatch(token) and not self._statement):
                raise self._command(token, self._line + block.count(b"\n", 0, found.start()))
            return found.end()
        self._remember(block, at, found.end())
        if token == b";":
            return self._ended(block, found.end())
        if token == b"'" and _ESCAPES.search(block[max(0, found.start() - 2) : found.start()]):
            self._state = b"E'"
        else:
            self._state = token  # doubled quotes end one and begin the next, which comes to the same
        return found.end()

    def _ended(self, block: bytes, at: int) -> int:
        """After a statement; where the data of a COPY begin."""
        statement = bytes(self._statement).strip()
        self._statement.clear()
        if _STRINGS_OFF.match(statement):
            raise self._refused("switches standard_conforming_strings off, so that it cannot be read safely")
        unsafe = _UNSAFE.match(statement)
        if unsafe:
            raise self._refused(f"is written in {unsafe[1].decode()}, which cannot be read safely")
        copy = _COPY.match(statement)
        if copy is None:
            return at
        end = block.find(b"\n", at)
        end = len(block) if end < 0 else end + 1
        if block[at:end].strip():
            raise self._refused("has something after COPY ... FROM stdin; on the same line")
        self._state, self._table = b"copy", copy[1].decode("utf-8", "replace")
        self.rows.setdefault(self._table, 0)
        return end

    def _data(self, block: bytes, at: int) -> int:
        if block.startswith(_END_OF_DATA, at):
            self._state = b""
            return at + len(_END_OF_DATA)
        found = block.find(b"\n" + _END_OF_DATA, at)
        end = len(block) if found < 0 else found + 1
        self.rows[self._table] += block.count(b"\n", at, end)
        if found < 0:
            return end
        self._state = b""
        return end + len(_END_OF_DATA)

    def _comment(self, block: bytes, at: int) -> int:
        for found in _COMMENT.finditer(block, at):
            self._depth += 1 if found[0] == b"/*" else -1
            if self._depth == 0:
                self._state = b""
                return found.end()
        return len(block)

    def _escaped(self, block: bytes, at: int) -> int:
        for found in _ESCAPED.finditer(block, at):
            if found[0] == b"'":
                self._state = b""
                self._remember(block, at, found.end())
                return found.end()
        return len(block)

    def _remember(self, block: bytes, start: int, end: int) -> None:
        """Keep the beginning of the statement that we are in."""
        room = _LONGEST_STATEMENT_HEAD - len(self._statement)
        if room > 0:
            piece = block[start : min(end, start + room)]
            self._statement += piece if self._statement else piece.lstrip()

    def _command(self, token: bytes, line: int) -> InvalidInput:
        words = token.decode("utf-8", "replace").split()
        word = words[0] if words else "\\"
        if word in ("\\connect", "\\c"):
            return InvalidInput(
                f"{self._name} goes to another database by itself (line {line}: {' '.join(words[:2])}): it was made "
                "with pg_dump --create or pg_dumpall",
                hint="Dump the one database without --create, or take those lines out: "
                "its CREATE DATABASE and ALTER DATABASE go with them.",
            )
        return InvalidInput(
            f"{self._name} holds a command to psql that is no part of a dump (line {line}: {word})",
            hint="Look at that line; restore only what pg_dump has written.",
        )

    def _refused(self, what: str) -> InvalidInput:
        return InvalidInput(f"{self._name} {what}", hint="Restore another backup.")


def without_carriage_returns(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Take out what a terminal has put before every end of line (``docker exec -t``); only that.

    Raises:
        InvalidInput: some lines have none: it is no terminal's work, and nobody can tell which belong there.
    """
    held = b""
    for chunk in chunks:
        data = held + chunk
        held = b"\r" if data.endswith(b"\r") else b""
        if held:
            data = data[:-1]
        if data.count(b"\n") != data.count(b"\r\n"):
            raise InvalidInput(
                f"{name} has carriage returns at the end of some lines only: nobody can tell which belong there",
                hint="Dump again without a terminal: docker exec without -t.",
            )
        data = data.replace(b"\r\n", b"\n")
        if data:
            yield data
    if held:
        yield held
