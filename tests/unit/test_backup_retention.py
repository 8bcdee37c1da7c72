# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backups stay, over more than a year of nights."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup.retention import Item, Policy, decide

DAY = 86400.0
# Monday, 2026-01-05 02:00 UTC
BEGIN = datetime.datetime(2026, 1, 5, 2, tzinfo=datetime.timezone.utc).timestamp()


def night(number: int, *, label: bool = False, verified: bool = False, hour: float = 0) -> Item:
    moment = BEGIN + number * DAY + hour * 3600
    return Item(f"{number:04d}{'-label' if label else ''}", moment, verified=verified, labelled=label)


def kept(items: list[Item], policy: Policy) -> list[Item]:
    reasons = decide(items, policy)
    return [item for item in items if reasons[item.name]]


def test_over_400_nights_exactly_the_days_weeks_and_months_stay() -> None:
    policy = Policy(daily=7, weekly=4, monthly=12)
    there: list[Item] = []
    for number in range(400):
        there = kept([*there, night(number)], policy)
        today = datetime.datetime.fromtimestamp(BEGIN + number * DAY, datetime.timezone.utc).date()
        # Told apart here by the calendar alone: what was made on the last 7 days, on the last day of each of the last 4
        # weeks that has begun, and of each of the last 12 months.
        days = {today - datetime.timedelta(back) for back in range(7)}
        for back in range(4):
            sunday = today - datetime.timedelta(today.weekday()) - datetime.timedelta(7 * back - 6)
            days.add(min(sunday, today))
        month = today.replace(day=1)
        for _back in range(12):
            following = (month + datetime.timedelta(31)).replace(day=1)
            days.add(min(following - datetime.timedelta(1), today))
            month = (month - datetime.timedelta(1)).replace(day=1)
        first = datetime.datetime.fromtimestamp(BEGIN, datetime.timezone.utc).date()
        found = {datetime.datetime.fromtimestamp(item.moment, datetime.timezone.utc).date() for item in there}
        assert found == {day for day in days if day >= first}, number


def test_nights_that_failed_take_nothing_away() -> None:
    """Forty nights, then a year without one: not a single run removes anything."""
    policy = Policy(daily=7, weekly=4, monthly=2)
    there: list[Item] = []
    for number in range(40):
        there = kept([*there, night(number)], policy)
    names = [item.name for item in there]
    assert kept(there, policy) == there
    there = kept([*there, night(400)], policy)
    # the first one after that pushes out no more than one of each kind
    assert len(set(names) - {item.name for item in there}) <= 3
    assert names[-1] in {item.name for item in there}


@pytest.mark.parametrize("policy", [Policy(0, 0, 0), Policy(1, 0, 0)], ids=["nothing", "one day"])
def test_the_newest_and_the_newest_verified_always_stay(policy: Policy) -> None:
    items = [night(number, verified=number in (3, 5)) for number in range(20)]
    assert [item.name for item in kept(items, policy)] == ["0005", "0019"]


def test_of_an_earlier_day_the_newest_stays_and_of_the_last_one_all() -> None:
    """A backup that is made because of a damage does not push out the last one from before it."""
    items = [night(0), Item("later", BEGIN + 3600), Item("latest", BEGIN + 7200)]
    assert [item.name for item in kept(items, Policy(5, 5, 5))] == ["0000", "later", "latest"]
    assert [item.name for item in kept([*items, night(1)], Policy(5, 5, 5))] == ["latest", "0001"]
    assert [item.name for item in kept(items, Policy(0, 0, 0))] == ["latest"]


def test_one_with_a_label_stays_and_takes_no_place() -> None:
    items = [night(0), night(1, label=True), night(2)]
    assert decide(items, Policy(2, 0, 0)) == {
        "0002": ("newest", "same day", "daily"),
        "0001-label": ("labelled",),
        "0000": ("daily",),
    }


def test_the_newest_without_a_label_stays_beside_a_newer_one_with_it() -> None:
    items = [night(0), night(1), night(1, label=True)]
    assert [item.name for item in kept(items, Policy(0, 0, 0))] == ["0001", "0001-label"]


def test_nothing_at_all_is_decided_of_nothing() -> None:
    assert decide([], Policy()) == {}


def test_what_is_dated_in_the_future_stays_and_takes_nobodys_place() -> None:
    policy, now = Policy(2, 0, 0), BEGIN + 3 * DAY
    there = [night(number) for number in range(4)]
    ahead = [night(3 + 2000), night(3 + 2001, verified=True)]
    assert kept([*there, *ahead], policy) == ahead, "what is kept without a clock to tell"
    reasons = decide([*there, *ahead], policy, now=now, made=there[3].name)
    assert {name for name, why in reasons.items() if not why} == {there[0].name, there[1].name}
    assert reasons[there[3].name] == ("just made", "newest", "same day", "daily")
    assert {reasons[item.name] for item in ahead} == {("dated in the future",)}
    # a day ahead is another host's clock, and counts
    assert decide([night(4), night(3)], Policy(0, 0, 0), now=now) == {"0004": ("newest",), "0003": ()}
    assert decide([night(4), night(3)], Policy(0, 0, 0), now=now, made="0003")["0003"] == ("just made",)
