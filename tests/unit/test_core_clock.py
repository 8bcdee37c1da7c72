# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time: Docker's timestamps, and waiting for a condition."""

from __future__ import annotations

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock, parse_timestamp, wait_for
from ansible_collections.titan.ops.tests.unit.fakes import NOW, FakeClock


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-02-06T14:03:12Z", NOW),
        ("2026-02-06T14:03:12.5Z", NOW + 0.5),
        ("2026-02-06T14:03:12.123456789Z", NOW + 0.123456789),
        ("2026-02-06T15:03:12.000000001+01:00", NOW + 0.000000001),
        ("2026-02-06T08:33:12-05:30", NOW),
        ("1970-01-01T00:00:00Z", 0.0),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00.000000000Z", None),
        ("", None),
        ("2026-02-06 14:03:12", None),
        ("2026-02-06T14:03:12", None),
        ("a moment ago", None),
    ],
)
def test_dockers_timestamps_are_read_to_the_microsecond(text: str, seconds: float | None) -> None:
    read = parse_timestamp(text)
    assert read is None if seconds is None else read == pytest.approx(seconds, abs=1e-6)


def test_two_moments_less_than_a_millisecond_apart_differ() -> None:
    first, second = parse_timestamp("2026-02-06T14:03:12.100100Z"), parse_timestamp("2026-02-06T14:03:12.100350Z")
    assert first is not None
    assert second is not None
    assert second - first == pytest.approx(0.00025, abs=1e-6)


def test_the_real_clock_tells_utc() -> None:
    text = Clock().utc()
    assert parse_timestamp(text) == pytest.approx(Clock().now(), abs=2)
    assert FakeClock().utc() == "2026-02-06T14:03:12Z"


def test_waiting_asks_at_least_once_and_at_the_end_once_more() -> None:
    clock, asked = FakeClock(), []
    assert wait_for(lambda: asked.append(1), timeout=0, clock=clock) is None
    assert len(asked) == 1
    assert clock.sleeps == []
    # What becomes true in the very last pause is still seen.
    assert wait_for(lambda: True if clock.now() >= NOW + 3 else None, timeout=3, clock=clock) is True


def test_waiting_never_lasts_longer_than_it_was_told() -> None:
    clock = FakeClock()
    assert wait_for(lambda: None, timeout=7.3, clock=clock, interval=0.5) is None
    assert clock.now() == pytest.approx(NOW + 7.3)
    assert clock.sleeps[0] == 0.5
    assert max(clock.sleeps) <= 5.0
    assert sorted(clock.sleeps[:-1]) == clock.sleeps[:-1]


def test_an_answer_that_is_false_is_an_answer() -> None:
    assert wait_for(lambda: 0, timeout=10, clock=FakeClock()) == 0
    assert wait_for(lambda: False, timeout=10, clock=FakeClock()) is False
