# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Env files: read as Compose reads them, changed without touching any other byte.

Compose uses such a file in two ways, which may give different values:

- ``--env-file`` (or ``.env``), for the project. References look into the environment of the ``docker compose`` process
  first, then into earlier env files, then into what stands *above* in the file: ``resolve(environment)``. Afterwards a
  variable of that process wins over the file's.
- a service's ``env_file:``. References look into the service's earlier env files, then into the project's environment
  (which the first use has filled), then into what stands above: ``resolve({**project_environment, **earlier})``. If
  both uses name the same file, a reference therefore sees the *last* definition, even one further down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..core.errors import InvalidInput
from .dotenv_lexer import BOM, Entry, Quoting, lex, names_in, substitute

__all__ = ["Entry", "EnvFile", "Quoting", "literal", "parse", "references", "set_values", "survives"]

_NEW_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Characters that need no quotes for any reader of such files (every Compose v2, `docker run --env-file`, shells).
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
# Never written as they are: what ends a line somewhere, or cannot be seen.
_UNSEEN = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
_ESCAPES = {"\\": r"\\", '"': r"\"", "$": r"\$", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


@dataclass(frozen=True)
class EnvFile:
    """An env file as Compose understands it."""

    text: str = field(repr=False)
    entries: tuple[Entry, ...]

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return self.text.encode("utf-8", "surrogateescape")

    @property
    def has_crlf(self) -> bool:
        """Whether any line ends with carriage return and line feed."""
        return "\r\n" in self.text

    @property
    def newline(self) -> str:
        """How the last complete line ends; ``\\n`` for a file without one."""
        last = self.text.rfind("\n")
        return "\r\n" if last > 0 and self.text[last - 1] == "\r" else "\n"

    @property
    def ends_with_newline(self) -> bool:
        """Whether the last line is complete; true for an empty file."""
        return self.text.endswith("\n") or self.text in ("", BOM)

    @property
    def keys(self) -> list[str]:
        """The names of all variables in order of first appearance."""
        return list(dict.fromkeys(entry.key for entry in self.entries))

    def of(self, key: str) -> list[Entry]:
        """The entries of a variable. Of several, Compose takes the last."""
        return [entry for entry in self.entries if entry.key == key]

    def lines_of(self, key: str) -> list[int]:
        """The numbers of the lines that set a variable."""
        return [entry.line for entry in self.of(key)]

    def resolve(self, lookup: Mapping[str, str] | None = None) -> dict[str, str]:
        """Every variable's value as Compose resolves it; see the module's text for what to look into.

        Raises InvalidInput for a ``${NAME:?}`` whose variable is missing, and for a NUL character.
        """
        outside = lookup or {}
        values: dict[str, str] = {}
        for entry in self.entries:
            if not entry.inherited:
                values[entry.key] = substitute(entry, lambda name: outside.get(name, values.get(name)))
            elif entry.key in outside:
                values[entry.key] = outside[entry.key]
        for key, value in values.items():
            if "\0" in value:
                # `config` may show it, but no process can have it in its environment.
                line = self.lines_of(key)[-1]
                raise InvalidInput(
                    f"Line {line} of the env file: the value of {key} contains a NUL character",
                    hint=f"Write another value for {key}.",
                    facts={"line": line, "key": key},
                )
        return values

    def referencing(self, key: str) -> list[str]:
        """The variables whose values refer to ``key``, directly or by way of others, in order; never ``key`` itself."""
        found = {key}
        while True:
            more = {entry.key for entry in self.entries if not found.isdisjoint(names_in(entry))} - found
            if not more:
                return [name for name in self.keys if name in found and name != key]
            found |= more


def parse(data: bytes) -> EnvFile:
    """Read an env file. InvalidInput, with the line and never with a value, for what Compose refuses."""
    text = data.decode("utf-8", "surrogateescape")
    return EnvFile(text, tuple(lex(text)))


def references(entry: Entry) -> tuple[str, ...]:
    """The names that an entry's value refers to: ``("HMAC_SECRET",)`` for ``OPS_SECRET=${HMAC_SECRET}``."""
    return names_in(entry)


def literal(entry: Entry) -> str | None:
    """The entry's value if it is the same everywhere; None if it is inherited or refers to other variables."""
    if entry.inherited or names_in(entry):
        return None
    return substitute(entry, lambda name: None)


def survives(value: str, quoting: Quoting) -> bool:
    """Whether a value can be written in this way so that Compose returns exactly that value.

    Without quotes that means as it is; in quotes, with escapes.
    """
    if _unwritable(value):
        return False
    written = {
        Quoting.NONE: value,
        Quoting.SINGLE: "'" + value.replace("'", r"\'") + "'",
        Quoting.DOUBLE: _double_quoted(value),
    }[quoting]
    try:
        entries = parse(f"K={written}\n".encode()).entries
    except InvalidInput:
        return False
    return len(entries) == 1 and entries[0].quoting is quoting and literal(entries[0]) == value


def set_values(data: bytes, updates: Mapping[str, str], *, append: bool = False) -> bytes:
    """Return the env file with new values for some variables and every other byte as it was.

    A variable that has its new value already is left as it is written; otherwise the way of quoting is kept where the
    value needs no escapes in it. The result is read again: each variable has exactly its new value whatever the
    environment, and all others are written as before (``EnvFile.referencing`` tells whose values follow).

    Args:
        data: the file's content.
        updates: new values by name.
        append: add variables that are absent, at the end.

    Raises InvalidInput for a file that Compose refuses, a variable that is absent, there more than once or only
    inherited, and a value that Compose cannot carry.
    """
    file = parse(data)
    for key, value in updates.items():
        _refuse_unwritable(key, value)
        found = file.of(key)
        if len(found) > 1:
            lines = ", ".join(str(entry.line) for entry in found)
            raise InvalidInput(
                f"{key} stands more than once in the env file (lines {lines})",
                hint=f"Compose takes the last one (line {found[-1].line}); remove the others.",
                facts={"key": key, "lines": [entry.line for entry in found]},
            )
        if found:
            file = _replace(file, found[0], value)
        elif append:
            file = _append(file, key, value)
        else:
            raise InvalidInput(f"{key} is not in the env file", hint=f"Add a line {key}=.", facts={"key": key})
    return file.data


def _replace(file: EnvFile, entry: Entry, value: str) -> EnvFile:
    if entry.inherited:
        raise InvalidInput(
            f"Line {entry.line} of the env file only names {entry.key}: its value is that of the environment in which"
            " Compose runs",
            hint=f"Write {entry.key}= there if the value is to be kept in the file.",
            facts={"key": entry.key, "lines": [entry.line]},
        )
    if literal(entry) == value:
        return file
    for written in _ways_to_write(value, entry.quoting):
        after = _reread(file.text[: entry.start] + written + file.text[entry.end :])
        if after and _only_changed(file, after, entry.key, value):
            return after
    raise InvalidInput(
        f"Compose would not read the new value of {entry.key} back from line {entry.line} of the env file",
        hint="Give the variable a line of its own in the form NAME=value.",
        facts={"key": entry.key, "lines": [entry.line]},
    )


def _append(file: EnvFile, key: str, value: str) -> EnvFile:
    if not _NEW_NAME.fullmatch(key):
        raise InvalidInput(
            f"{key!r} cannot be added to the env file under this name",
            hint="Use letters, digits and underscores only, no digit first.",
            facts={"key": key},
        )
    # A missing last line end is added before the new line, and stays missing after it.
    before, after = ("", file.newline) if file.ends_with_newline else (file.newline, "")
    for written in _ways_to_write(value, Quoting.NONE):
        longer = _reread(f"{file.text}{before}{key}={written}{after}")
        if longer and longer.entries[:-1] == file.entries and literal(longer.entries[-1]) == value:
            return longer
    raise InvalidInput(
        f"Compose would not read the new value of {key} back from the end of the env file",
        hint=f"Add a line {key}= by hand and run this again.",
        facts={"key": key},
    )


def _ways_to_write(value: str, quoting: Quoting) -> Iterator[str]:
    """Forms of a value, best first: as now or without escapes where possible, for these every reader takes alike."""
    visible = not _UNSEEN.search(value)
    if quoting is Quoting.NONE and _BARE.fullmatch(value):
        yield value
    if quoting is Quoting.DOUBLE and visible and not re.search(r'[\\"$]', value):
        yield f'"{value}"'
    if visible and "'" not in value:
        yield f"'{value}'"
    yield _double_quoted(value)


def _double_quoted(value: str) -> str:
    return '"' + "".join(_ESCAPES.get(char, char) for char in value) + '"'


def _only_changed(before: EnvFile, after: EnvFile, key: str, value: str) -> bool:
    """Whether the one entry of ``key`` has the new value and all others are written as before."""
    if len(before.entries) != len(after.entries):
        return False
    return all(
        literal(new) == value
        if old.key == new.key == key
        else (old.key, old.inherited, old.raw_value) == (new.key, new.inherited, new.raw_value)
        for old, new in zip(before.entries, after.entries)
    )


def _reread(text: str) -> EnvFile | None:
    try:
        return parse(text.encode("utf-8", "surrogateescape"))
    except InvalidInput:
        return None


def _unwritable(value: str) -> str | None:
    """What in a value no env file can carry."""
    if "\0" in value:
        return "a NUL character"
    if any("\ud800" <= char <= "\udfff" for char in value):
        return "bytes that are not UTF-8"
    return None


def _refuse_unwritable(key: str, value: str) -> None:
    found = _unwritable(value)
    if found:
        raise InvalidInput(
            f"The new value of {key} contains {found}, which Compose would alter or refuse",
            hint="Choose another value; hexadecimal digits are safe everywhere.",
            facts={"key": key},
        )
