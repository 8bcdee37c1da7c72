# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the files of backups are called."""

from __future__ import annotations

import datetime
import re

from ..core.errors import InvalidInput, Mistaken

__all__ = [
    "COMPRESSIONS",
    "FORMATS",
    "check_database",
    "check_label",
    "hidden",
    "is_backup",
    "named",
    "nightly",
    "owner_of",
    "suffix",
]

FORMATS = ("plain", "custom", "directory")
COMPRESSIONS = ("none", "gzip", "zstd")

_PLAIN = {"none": ".sql", "gzip": ".sql.gz", "zstd": ".sql.zst"}
_OTHERS = {"custom": ".dump", "directory": ".dir"}
_SUFFIX = r"\.(?:sql|sql\.gz|sql\.zst|dump|dir)"
_NAMED = re.compile(rf"(?!\.).+{_SUFFIX}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DATABASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
# What a run under way keeps beside the finished ones; a killed one leaves it behind, and the next removes it.
_HIDDEN = re.compile(rf"\.(?P<name>.+{_SUFFIX})\.(?:partial|pipe|removed|manifest\.json\.titan-(?:new|old))")


def suffix(form: str, compression: str) -> str:
    """The end of a backup's name; custom and directory dumps are compressed inside, and their readers know how."""
    return _PLAIN[compression] if form == "plain" else _OTHERS[form]


def nightly(database: str, moment: float, end: str) -> str:
    """The runbook's name: ``titan_brain_2026-02-06.sql`` (UTC)."""
    return f"{database}_{_utc(moment, '%Y-%m-%d')}{end}"


def named(database: str, moment: float, label: str | None, end: str) -> str:
    """``titan_brain_2026-02-06T140312Z_<label>.sql`` (UTC)."""
    mark = f"_{label}" if label else ""
    return f"{database}_{_utc(moment, '%Y-%m-%dT%H%M%SZ')}{mark}{end}"


def hidden(name: str, kind: str) -> str:
    """What stands in the directory while a backup is made (partial, pipe) or removed (removed)."""
    return f".{name}.{kind}"


def owner_of(entry: str) -> str | None:
    """The backup whose hidden file this is; None for any other entry of the directory."""
    found = _HIDDEN.fullmatch(entry)
    return found["name"] if found else None


def is_backup(entry: str) -> bool:
    """Whether an entry of the directory is called like a backup, ours or one made by hand."""
    return _NAMED.fullmatch(entry) is not None


def check_label(label: str) -> None:
    """Refuse a label that would not make a plain file name.

    Raises:
        Mistaken: it has other characters, or is too long.
    """
    if not _LABEL.fullmatch(label):
        raise Mistaken(
            f"The label {label!r} cannot be part of a file name here",
            hint="Use up to 64 letters, digits, _ and -, beginning with a letter or digit.",
        )


def check_database(name: str) -> None:
    """Refuse a database whose name would not make a plain file name.

    Raises:
        InvalidInput: it has other characters.
    """
    if not _DATABASE.fullmatch(name):
        raise InvalidInput(f"The database name {name!r} cannot be part of a file name", hint="Name it with database.")


def _utc(moment: float, form: str) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime(form)
