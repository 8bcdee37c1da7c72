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

_LETTER = rb"A-Za-z_\x80-\xff"
_TOKEN = re.compile(
    rb"--[^\n\r]*|/\*|\\[^\n]*|['\";()]"
    rb"|[%(l)s][%(l)s0-9$]*"  # a word
    rb"|\$(?:[%(l)s][%(l)s0-9]*)?\$"  # the begin of a dollar quote
    rb"|\$?[0-9]+(?:[%(l)s][%(l)s0-9$]*)?" % {b"l": _LETTER}  # a number or $1, and what sticks to it
)
_ESCAPED = re.compile(rb"\\.|''|'", re.DOTALL)
_COMMENT = re.compile(rb"/\*|\*/")
_WORD = re.compile(rb"[%s]+" % _LETTER)
_DOLLARS = re.compile(rb"\$(?![0-9])")
_DIFFERS = "which not every psql reads alike"
_NAME = rb'(?:[%(l)s][%(l)s0-9$]*|"(?:[^"]|"")*")' % {b"l": _LETTER}
_COPY = re.compile(
    rb'COPY\s+(%(n)s(?:\s*\.\s*%(n)s)*)(?:\s*\((?:[^()"]|"(?:[^"]|"")*")*\)\s*|\s+)FROM\s+STDIN\s*;' % {b"n": _NAME},
    re.IGNORECASE,
)
# What pg_dump of August 2025 and later begins and ends with.
_RESTRICT = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\r?")
# How psql reads depends on these two; pg_dump sets them in this way, and a backslash or quote is never the second half
# of a character but in a few encodings (PostgreSQL 17 manual, 24.3.1).
_READING = re.compile(rb"standard_conforming_strings|client_encoding", re.IGNORECASE)
_SET_STRINGS = re.compile(rb"SET\s+standard_conforming_strings\s*(?:=|\sTO\s)\s*'?on'?\s*;", re.IGNORECASE)
_SET_ENCODING = re.compile(rb"SET\s+client_encoding\s*(?:=|\sTO\s)\s*'?([A-Za-z0-9_-]+)'?\s*;", re.IGNORECASE)
_UNSAFE = re.compile(
    rb"(?:MS)?KANJI|SHIFTJIS|SJIS|(?:MS|WIN|WINDOWS)9(?:32|36|49|50)|BIG5|GBK|UHC|GB18030|JOHAB|SHIFTJIS2004"
)
# Other ways to set them.
_RESETS = re.compile(rb"SET\s+(?:(?:SESSION|LOCAL)\s+)?NAMES\b|SET\b.*\bU&|(?:RESET|DISCARD)\s+ALL\b", re.I | re.S)
_SETTERS = re.compile(rb"set_config|pg_settings|U&", re.IGNORECASE)
# Their strings are data, or run later.
_TEXTS = re.compile(rb"INSERT\s|COMMENT\s|CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\s", re.IGNORECASE)
_MAY_BE_LONG = re.compile(rb"(?:INSERT|COMMENT|CREATE|ALTER)\b", re.IGNORECASE)
_FUNCTION = re.compile(rb"CREATE.*(?:FUNCTION|PROCEDURE)", re.IGNORECASE | re.DOTALL)
_END_OF_DATA = re.compile(rb"\\\.\r?\n")
_LONGEST_STATEMENT_HEAD = 1 << 16
# So much of a line of data, which may have any length, is surely not the line that ends them.
_SURELY_DATA = 1 << 16


class Scanner:
    """Lets the bytes of a plain dump pass, whole lines at a time, and refuses before the line that must not.

    Lines of data, any of which is harmless, pass in parts: one may hold a whole gigabyte.

    Args:
        name: what the dump is called in messages.
        foreign: nobody knows who has made it: no statement may change how it is read, however that would be done.
        unguarded: take out the dump's own \\restrict and \\unrestrict lines, for a psql that has ours or knows none.

    Attributes:
        rows: rows of every table that the dump has data for, by the name in its COPY command.
        inserts: whether there was an INSERT.
    """

    def __init__(self, name: str, *, foreign: bool = True, unguarded: bool = False) -> None:
        self._name = name
        self._foreign = foreign
        self._unguarded = unguarded
        self._waiting = bytearray()
        self._within = False  # whether the next block goes on with a line of data
        self._state = b""  # what ends the quote that we are in; b"" outside, "copy" in data
        self._depth = 0
        self._parentheses = 0
        self._blocks = 0  # BEGIN ... END of a function
        self._last = b""  # token outside, comments left out; "E'" after the end of such a string
        self._statement = bytearray()
        self._code = bytearray()  # the same without what is in single or dollar quotes
        self._table = ""
        self._line = 1
        self.rows: dict[str, int] = {}
        self.inserts = False

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
                yield self._look(whole)
            if self._state == b"copy" and len(self._waiting) > _SURELY_DATA:
                whole = bytes(self._waiting)
                self._waiting.clear()
                yield self._look(whole)
        rest = bytes(self._waiting)
        if rest:
            yield self._look(rest)
        if self._state:
            raise self._refused("ends in the middle")
        self._check()

    def _look(self, block: bytes) -> bytes:
        """The block, as it may pass."""
        if b"\0" in block:  # psql's line ends there, and the server takes none
            raise self._refused("holds a zero byte")
        at, kept = 0, 0
        pieces: list[bytes] = []
        while at < len(block):
            if self._state == b"":
                at, own = self._outside(block, at)
                if own and self._unguarded:
                    pieces.append(block[kept : at - own])
                    kept = at
            elif self._state == b"copy":
                at = self._data(block, at)
            elif self._state == b"*/":
                at = self._comment(block, at)
            elif self._state == b"E'":
                at = self._escaped(block, at)
            else:
                found = block.find(self._state, at)
                end = len(block) if found < 0 else found + len(self._state)
                self._remember(block, at, end, code=self._state == b'"')
                self._state = self._state if found < 0 else b""
                at = end
        self._line += block.count(b"\n")
        self._within = not block.endswith(b"\n")
        return b"".join([*pieces, block[kept:]]) if pieces else block

    def _outside(self, block: bytes, at: int) -> tuple[int, int]:
        """Go on to where something else begins; gives that, and the length of a guard of the dump's own before it."""
        for found in _TOKEN.finditer(block, at):
            token, end = found[0], found.end()
            if token.startswith((b"--", b"/*")):
                self._remember(block, at, found.start())
                if block[at : found.start()].strip():
                    self._last = b""
                if self._statement:  # a comment parts words as a blank does
                    self._remember(b" ", 0, 1)
                if token == b"/*":
                    self._state, self._depth = b"*/", 1
                    return end, 0
                at = end
                continue
            before, after = block[max(0, found.start() - 1) : found.start()], block[end : end + 1]
            goes_on = token == b"'" and self._last == b"E'" and not block[at : found.start()].strip()
            self._last, last = token, self._last
            if goes_on:
                raise self._refused(f"has an E string in parts, {_DIFFERS}")
            if token.startswith(b"\\"):
                self._remember(block, at, found.start())
                if not (before in (b"", b"\n") and _RESTRICT.fullmatch(token) and not self._statement):
                    raise self._command(token, self._line + block.count(b"\n", 0, found.start()))
                return end, len(token)
            if token == b";":
                self._remember(block, at, end)
                at = end
                if self._parentheses:  # psql sends nothing before they are closed
                    continue
                self._check()
                if self._blocks:
                    continue
                return self._ended(block, end), 0
            if token in (b"(", b")"):
                self._parentheses = max(0, self._parentheses + (1 if token == b"(" else -1))
            elif token in (b"'", b'"') or _DOLLARS.match(token):
                self._remember(block, at, end)
                self._state = b"E'" if token == b"'" and last in (b"e", b"E") and before == last else token
                return end, 0  # doubled quotes end one and begin the next, which comes to the same
            else:
                alone = _WORD.match(token) is not None
                # What sticks to a number or to a variable of psql (:name) belongs to it in some versions only.
                loose = before == b":" if alone else not token.lstrip(b"$").isdigit()
                if loose and (b"$" in token[1:] or after == b"'"):
                    raise self._refused(f"has a quote right after a number or a colon, {_DIFFERS}")
                self._remember(block, at, found.start())
                at = found.start()
                # psql before 15 takes 1begin for two; a variable is no word: neither may end what psql has not ended
                self._word(token.lstrip(b"$0123456789").lower(), last, sure=alone and before != b":")
        self._remember(block, at, len(block))
        if self._last == b"E'" and block[at:].strip():
            self._last = b""
        return len(block), 0

    def _word(self, word: bytes, last: bytes, *, sure: bool) -> None:
        """Follow a function's body, in which psql (of version 14 and later) sends nothing before its END."""
        if word == b"copy" and self._blocks and last == b";":
            raise self._refused("has COPY after a BEGIN that psql may not have seen the END of")
        if word not in (b"begin", b"case", b"end") or self._parentheses:
            return
        if word == b"end":
            self._blocks = max(0, self._blocks - sure)
        elif self._blocks:
            self._blocks += 1
        elif word == b"begin" and (self._too_long() or _FUNCTION.search(self._statement)):
            self._blocks = 1

    def _check(self) -> None:
        """Refuse a statement, or one of several that psql sends together, after which psql would read otherwise."""
        statement, code = bytes(self._statement).strip(), bytes(self._code)
        if self._foreign and self._too_long() and not _MAY_BE_LONG.match(statement):
            raise self._refused("has a statement that is longer than any of pg_dump's of its kind")
        if self._foreign and _RESETS.match(statement):
            raise self._refused("changes how it is to be read by another statement than pg_dump's")
        named = _READING.search(statement)
        if not named or _SET_STRINGS.fullmatch(statement):
            return
        if _TEXTS.match(statement) and not _READING.search(code) and not _SETTERS.search(code):
            return
        encoding = _SET_ENCODING.fullmatch(statement)
        if encoding and not _UNSAFE.fullmatch(re.sub(rb"[_-]", b"", encoding[1]).upper()):
            return
        if encoding:
            raise self._refused(f"is written in {encoding[1].decode()}, which cannot be read safely")
        if re.match(rb"SET\s+standard_conforming_strings\b", statement, re.IGNORECASE):
            raise self._refused("switches standard_conforming_strings off, so that it cannot be read safely")
        if not self._foreign:
            return
        raise self._refused(
            f"names {named[0].decode()} in another statement than pg_dump's, so that it cannot be read safely"
        )

    def _ended(self, block: bytes, at: int) -> int:
        """After a statement; where the data of a COPY begin."""
        statement = bytes(self._statement).strip()
        self._statement.clear()
        self._code.clear()
        self.inserts = self.inserts or statement[:6].upper() == b"INSERT"
        if not re.match(rb"COPY\b", statement, re.IGNORECASE):
            return at
        copy = _COPY.fullmatch(statement)
        if copy is None:
            raise self._refused("has a COPY that is not one of pg_dump's (COPY table (columns) FROM stdin;)")
        end = block.find(b"\n", at)
        end = len(block) if end < 0 else end + 1
        if block[at:end].strip():
            raise self._refused("has something after COPY ... FROM stdin; on the same line")
        self._state, self._table = b"copy", copy[1].decode("utf-8", "replace")
        self.rows.setdefault(self._table, 0)
        return end

    def _data(self, block: bytes, at: int) -> int:
        """Up to the line that ends the data; only a line can, and not what a block begins with of an earlier one."""
        end = at
        if self._within and at == 0:
            end = block.find(b"\n") + 1 or len(block)
        while True:
            last = _END_OF_DATA.match(block, end)
            if last:
                self._state = b""
                break
            found = block.find(b"\n\\.", end)
            end = len(block) if found < 0 else found + 1
            if found < 0:
                break
            if not _END_OF_DATA.match(block, end):
                end += 1  # no end of anything: go on behind it
        self.rows[self._table] += block.count(b"\n", at, end)
        return last.end() if last else end

    def _comment(self, block: bytes, at: int) -> int:
        for found in _COMMENT.finditer(block, at):
            self._depth += 1 if found[0] == b"/*" else -1
            if self._depth == 0:
                self._state = b""
                return found.end()
        return len(block)

    def _escaped(self, block: bytes, at: int) -> int:
        end = len(block)
        for found in _ESCAPED.finditer(block, at):
            if found[0] == b"'":
                self._state, self._last = b"", b"E'"
                end = found.end()
                break
        self._remember(block, at, end, code=False)
        return end

    def _remember(self, block: bytes, start: int, end: int, *, code: bool = True) -> None:
        """Keep the beginning of the statement that we are in."""
        for kept in (self._statement, self._code) if code else (self._statement,):
            room = _LONGEST_STATEMENT_HEAD - len(kept)
            if room > 0:
                piece = block[start : min(end, start + room)]
                kept.extend(piece if kept else piece.lstrip())

    def _too_long(self) -> bool:
        return len(self._statement) >= _LONGEST_STATEMENT_HEAD

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
