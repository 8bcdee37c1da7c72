# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When cron is to run something: checked before it is written, for cron ignores a whole file with one bad line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..core.errors import InvalidInput

__all__ = ["check_schedule"]

# crontab(5) of Debian and Ubuntu.
_NICKNAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, Mapping[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_PART = re.compile(r"(?:\*|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d+))?", re.ASCII)


def check_schedule(name: str, text: str) -> None:
    """Refuse what cron would not take.

    Args:
        name: what the setting is called.
        text: five fields, or a nickname such as ``@daily``.

    Raises:
        InvalidInput: cron would ignore the file, and with it every run.
    """
    if text in _NICKNAMES:
        return
    fields = text.split()
    why = _wrong(fields) if len(fields) == len(_FIELDS) and "\n" not in text else "it has not five fields"
    if why:
        raise InvalidInput(
            f"{name} is {text!r}, which cron does not take: {why}",
            hint='Say for example "0 2 * * *" (minute, hour, day of the month, month, day of the week) or @daily, '
            f"in the inventory, or with -e as JSON: Ansible cuts {name}=... at the first blank.",
        )


def _wrong(fields: list[str]) -> str | None:
    for (what, low, high, words), text in zip(_FIELDS, fields):
        for part in text.split(","):
            if not _part_fits(part, low, high, words):
                return f"{part!r} is no {what} (from {low} to {high})"
    return None


def _part_fits(part: str, low: int, high: int, words: Mapping[str, int]) -> bool:
    found = _PART.fullmatch(part)
    if not found:
        return False
    if found["step"] is not None and int(found["step"]) == 0:
        return False
    if found["low"] is None:
        return True
    ends = [words.get(end.lower(), int(end) if end.isdigit() else -1) for end in found.group("low", "high") if end]
    # a step needs something to step through
    return ends == sorted(ends) and low <= ends[0] and ends[-1] <= high and (found["step"] is None or len(ends) == 2)
