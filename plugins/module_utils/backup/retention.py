# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backups stay and which go."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Callable

__all__ = ["Item", "Policy", "decide", "is_ahead"]

# Seconds: the clock of another host may be that much ahead of ours, and be right enough.
_SLACK = 86400.0


@dataclass(frozen=True)
class Policy:
    """For how many days, weeks and months (that have a backup at all) the newest one of each stays."""

    daily: int = 7
    weekly: int = 4
    monthly: int = 12


@dataclass(frozen=True)
class Item:
    """A backup that is whole.

    Attributes:
        name: its name.
        moment: when its snapshot was taken, seconds since the epoch.
        verified: whether a drill has restored it.
        labelled: whether somebody asked for it by a label: it then stays until somebody removes it.
    """

    name: str
    moment: float
    verified: bool = False
    labelled: bool = False


def is_ahead(moment: float, now: float) -> bool:
    """Whether a backup is dated in the future: a clock was wrong when it was made, or is wrong now."""
    return moment > now + _SLACK


def decide(
    items: Iterable[Item], policy: Policy, *, now: float = math.inf, made: str | None = None
) -> dict[str, tuple[str, ...]]:
    """Why each backup stays; one without a reason goes.

    Days, weeks (ISO 8601) and months are UTC's. Those without a backup do not count, so runs that fail take no place:
    nothing goes because time has passed. The newest backup, with a label and without, and the newest verified one
    always stay. Where days count at all, so does everything of the newest one's day: the backup that somebody makes
    because of a damage must not push out the last one from before it.

    What is dated in the future stays, and takes nobody's place: one run under a wrong clock would else be the newest
    for years, and the backups that are made meanwhile would go.

    Args:
        items: the backups of one database that are whole; others must not be handed in.
        policy: how many stay.
        now: seconds since the epoch.
        made: the name of the one that has just been made, which stays whatever the others' dates are.

    Returns:
        The reasons by name, for every item; an empty tuple for one that goes.
    """
    every = sorted(items, key=lambda item: (item.moment, item.name), reverse=True)
    reasons: dict[str, list[str]] = {item.name: [] for item in every}
    for item in every:
        if is_ahead(item.moment, now):
            reasons[item.name].append("dated in the future")
        if item.name == made:
            reasons[item.name].append("just made")
    newest_first = [item for item in every if not is_ahead(item.moment, now)]
    series = [item for item in newest_first if not item.labelled]
    for item in dict.fromkeys([*newest_first[:1], *series[:1]]):
        reasons[item.name].append("newest")
    verified = [item for item in newest_first if item.verified]
    if verified:
        reasons[verified[0].name].append("newest verified")
    for item in newest_first:
        if item.labelled:
            reasons[item.name].append("labelled")
    if policy.daily > 0:
        for item in series:
            if _period(item, _day) == _period(series[0], _day):
                reasons[item.name].append("same day")
    for word, count, period in (
        ("daily", policy.daily, _day),
        ("weekly", policy.weekly, _week),
        ("monthly", policy.monthly, _month),
    ):
        for item in _newest_of_each(series, period)[:count]:
            reasons[item.name].append(word)
    return {name: tuple(found) for name, found in reasons.items()}


def _newest_of_each(newest_first: Sequence[Item], period: Callable[[datetime.datetime], object]) -> list[Item]:
    found: dict[object, Item] = {}
    for item in newest_first:
        found.setdefault(_period(item, period), item)
    return list(found.values())


def _period(item: Item, period: Callable[[datetime.datetime], object]) -> object:
    return period(datetime.datetime.fromtimestamp(item.moment, datetime.timezone.utc))


def _day(moment: datetime.datetime) -> object:
    return moment.date()


def _week(moment: datetime.datetime) -> object:
    return moment.isocalendar()[:2]


def _month(moment: datetime.datetime) -> object:
    return moment.year, moment.month
