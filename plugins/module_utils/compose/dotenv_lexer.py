# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compose's dotenv grammar: from text to entries, and from an entry's body to its value.

Compose's format is a dialect of its own, neither the shell's nor ``docker run --env-file``'s. The rules here are those
of Compose 2.26, found by experiment and kept true by ``tests/unit/test_dotenv_property.py``, which compares thousands
of files with the real program. Errors name lines and keys and never show any part of a value.

Text is what ``bytes.decode("utf-8", "surrogateescape")`` returns: like Compose, that maps every invalid byte to one
character which is no letter and no space, and it can be turned back without loss.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from re import Match, Pattern

from ..core.errors import InvalidInput

__all__ = ["BOM", "Entry", "Quoting", "lex", "names_in", "substitute"]

BOM = "\ufeff"

# Blanks that end no statement (around the name and after the separator), and all that Unicode calls white space.
# Python's own str.isspace() also counts \x1c-\x1f.
_BLANK = "\t\v\f\r \x85\xa0"
_SPACE = (
    _BLANK + "\n\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_BLANKS = re.compile(f"[{_BLANK}]*")
_FILLER = re.compile(f"(?:[{_SPACE}]+|#[^\n]*)*")
_EXPORT = re.compile(f"export(?=[\t\n\f\r ])[{_BLANK}]*")

# In double quotes only. A backslash before anything else stays.
_ESCAPE = re.compile(r'\\(?:[abfnrtv$"\\]|0[0-7]{0,3})')
_ESCAPED = {**dict(zip("abfnrtv", "\a\b\f\n\r\t\v")), "\\": "\\", '"': '"', "$": "$$"}

# Compose matches names without regard to case, by simple Unicode folding: the last two fold to s and k.
_NAME = "[_a-zA-Z\u017f\u212a][_a-zA-Z0-9\u017f\u212a]*"
_VARIABLE = re.compile(
    rf"\$(?:(?P<dollar>\$)|(?P<bare>{_NAME})|\{{(?:(?P<braced>{_NAME}(?::?[-+?].*)?)\}}|(?P<invalid>)))"
)
_BRACED = re.compile(rf"(?P<name>{_NAME})(?:(?P<operator>:?[-+?])(?P<word>.*))?")


class Quoting(Enum):
    """How a value is written."""

    NONE = "none"
    SINGLE = "single"
    DOUBLE = "double"


@dataclass(frozen=True)
class Entry:
    """One variable of an env file, as it is written.

    Args:
        key: the variable's name.
        line: number of the line on which the name stands, from 1.
        quoting: how the value is written.
        inherited: only the name is given; the value comes from the environment, and without one there is no variable.
        start: index of the value, with its quotes, in the text; where a value would begin if there is none.
        end: index after the value.
        raw_value: what stands there, quotes included.
        body: the value before interpolation (which single quotes prevent), escapes resolved.
    """

    key: str
    line: int
    quoting: Quoting
    inherited: bool
    start: int
    end: int
    raw_value: str = field(repr=False)
    body: str = field(repr=False)


def lex(text: str) -> Iterator[Entry]:
    """Yield the entries of an env file in order; InvalidInput with the line for what Compose refuses."""
    position, line, counted = len(BOM) if text.startswith(BOM) else 0, 1, 0
    while True:
        position = _match_end(_FILLER, text, position)
        if position == len(text):
            return
        line, counted = line + text.count("\n", counted, position), position
        key, separator, position = _lex_name(text, position, line)
        if separator == "\n":
            if key:  # `export` alone on its line says nothing
                yield Entry(key, line, Quoting.NONE, True, position, position, "", "")
            continue
        if not key:
            # To Compose's parser both are a variable without a name, which 2.26 refuses in `--env-file` and the Docker
            # Engine in a container.
            why = "it has no variable name" if separator else "the file ends right after a name, without = or line end"
            raise _unreadable(line, why)
        entry = _lex_value(text, position, key, line)
        names_in(entry)  # an invalid ${...} is refused whether its value is needed or not
        yield entry
        position = entry.end
        if entry.quoting is Quoting.NONE:
            # What follows an unquoted value on its line is blank or a comment; what follows a quoted one is read on.
            newline = text.find("\n", position)
            position = len(text) if newline < 0 else newline


def names_in(entry: Entry) -> tuple[str, ...]:
    """The names of all variables that the entry's value refers to, those inside defaults included, in order."""
    names: list[str] = []

    def walk(body: str) -> None:
        for match in _VARIABLE.finditer(body):
            if match["bare"]:
                names.append(match["bare"])
            elif not match["dollar"]:
                name, _operator, word, rest = _split_braced(match, entry)
                names.append(name)
                walk(word)
                walk(rest)

    if entry.quoting is not Quoting.SINGLE:
        walk(entry.body)
    return tuple(dict.fromkeys(names))


def substitute(entry: Entry, lookup: Callable[[str], str | None]) -> str:
    """The entry's value. InvalidInput when a variable that it requires (``${NAME:?}``) is missing."""

    def expand(body: str) -> str:
        return _VARIABLE.sub(replace, body)

    def replace(match: Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["bare"]:
            return lookup(match["bare"]) or ""
        name, operator, word, rest = _split_braced(match, entry)
        word, value = expand(word), lookup(name)
        present = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("?") and not present:
            raise InvalidInput(
                f"Line {entry.line} of the env file: {entry.key} requires the variable {name}, which is not set"
                + (" or is empty" if operator == ":?" else ""),
                hint=f"Give {name} a value where Compose finds it, or write another value for {entry.key}.",
                facts={"line": entry.line, "key": entry.key},
            )
        # Where the word does not apply, the variable's own value stands, which may be empty.
        applies = (operator.endswith("-") and not present) or (operator.endswith("+") and present)
        return (word if applies else value or "") + expand(rest)

    if entry.quoting is Quoting.SINGLE:
        return entry.body
    # A reference to nothing may have stood between bytes that make a character together.
    return expand(entry.body).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _lex_name(text: str, start: int, line: int) -> tuple[str, str, int]:
    """(name, separator, index after the separator and blanks); the separator is empty at the end of the text."""
    start = _match_end(_EXPORT, text, start)
    for index in range(start, len(text)):
        char = text[index]
        if char in "=:\n":
            name = text[start:index].rstrip(_SPACE)
            if " " in name:
                raise _unreadable(line, "there is a space inside the variable name")
            return name, char, index + 1
        if char not in _BLANK and char not in "_.-[]" and unicodedata.category(char)[0] not in "LN":
            raise _unreadable(
                line,
                f"character {index - text.rfind(chr(10), 0, index)} of it cannot be part of a variable name"
                " (is a quote before it missing, or one too many?)",
            )
    return "", "", start


def _lex_value(text: str, separator_end: int, key: str, line: int) -> Entry:
    """The entry whose separator ends at an index."""
    start = _match_end(_BLANKS, text, separator_end)
    quote = text[start : start + 1]
    if quote in ("'", '"'):
        body, end = _lex_quoted(text, start, key, line)
        quoting = Quoting.SINGLE if quote == "'" else Quoting.DOUBLE
    else:
        newline = text.find("\n", start)
        body = text[start : len(text) if newline < 0 else newline].partition(" #")[0].rstrip(_SPACE)
        quoting = Quoting.NONE
        if not body:
            # A new value goes right behind the separator and its blanks, not behind a carriage return.
            start = separator_end + len(text[separator_end:start]) - len(text[separator_end:start].lstrip(" \t"))
        end = start + len(body)
    return Entry(key, line, quoting, False, start, end, text[start:end], body)


def _lex_quoted(text: str, start: int, key: str, line: int) -> tuple[str, int]:
    """(body, index after the closing quote) of a quoted value, which may go over many lines."""
    quote = text[start]
    chars: list[str] = []
    index = start + 1
    while index < len(text):
        pair = text[index : index + 2]
        if pair[0] == quote:
            body = "".join(chars)
            return (_ESCAPE.sub(_unescape, body) if quote == '"' else body), index + 1
        if pair[0] == "\\" and len(pair) == 2:
            # Only the quote itself is unescaped here; of other pairs both characters stay.
            chars.append(quote if pair[1] == quote else pair)
            index += 2
        else:
            chars.append(pair[0])
            index += 1
    raise _unreadable(line, f"the value of {key} begins with a quote ({quote}) that is never closed")


def _unescape(match: Match[str]) -> str:
    """What Compose makes of one escape sequence in double quotes."""
    code = match[0][1:]
    if code[0] != "0":
        return _ESCAPED[code]
    digits = code[1:]
    if len(digits) == 3 and digits[0] in "0123":
        return chr(int(digits, 8))
    return "\\" + digits  # too short or too large: only the 0 is lost


def _split_braced(match: Match[str], entry: Entry) -> tuple[str, str, str, str]:
    """(name, operator, word, rest) of a match that begins with ``${``; rest is what the match has too much.

    The expression matches up to the last brace of the line. The one that closes is found as Compose does it: counting
    braces, without looking at the character after an opening one.
    """
    if match["braced"] is None:
        raise _unreadable(
            entry.line,
            f"the value of {entry.key} contains an invalid ${{...}} (a $ that stands for itself is written $$)",
        )
    depth, index, source = 0, 0, match[0]
    closing = len(source) - 1
    while index < len(source):
        if source[index] == "}":
            depth -= 1
            if depth == 0:
                closing = index
                break
        elif source[index] == "{":
            depth += 1
            index += 1
        index += 1
    parts = _BRACED.fullmatch(source, 2, closing)
    if parts is None:  # impossible: the name, and an operator if any, stand before the first brace that could close
        raise _unreadable(entry.line, f"the value of {entry.key} contains an unreadable ${{...}}")
    return parts["name"], parts["operator"] or "", parts["word"] or "", source[closing + 1 :]


def _match_end(pattern: Pattern[str], text: str, start: int) -> int:
    """Index after what a pattern matches at an index; the index itself if nothing."""
    match = pattern.match(text, start)
    return match.end() if match else start


def _unreadable(line: int, why: str) -> InvalidInput:
    return InvalidInput(
        f"Compose cannot read line {line} of the env file: {why}",
        hint=f"Correct line {line}.",
        facts={"line": line},
    )
