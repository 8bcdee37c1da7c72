# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time, passed into the engine so that tests can own it."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterator
from typing import Callable, TypeVar

__all__ = ["Clock", "parse_timestamp", "wait_for"]

T = TypeVar("T")


class Clock:
    """The real clock: wall time for records, monotonic time for waiting (both in seconds)."""

    _interrupt: Callable[[], None] | None = None

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Give the processor away for so many seconds."""
        time.sleep(seconds)

    @contextlib.contextmanager
    def interrupted_by(self, ask: Callable[[], None]) -> Iterator[None]:
        """Let every wait of the body be ended by an error that ``ask`` raises; it is asked before each pause."""
        self._interrupt = ask
        try:
            yield
        finally:
            self._interrupt = None

    def heed(self) -> None:
        """End the wait, if it is to end."""
        if self._interrupt is not None:
            self._interrupt()

    def utc(self) -> str:
        """The present moment as RFC 3339 in UTC, to the second."""
        moment = datetime.datetime.fromtimestamp(self.now(), datetime.timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def wait_for(probe: Callable[[], T | None], *, timeout: float, clock: Clock, interval: float = 0.05) -> T | None:
    """Ask ``probe`` until it answers something other than None.

    Args:
        probe: returns None for "not yet".
        timeout: seconds to keep asking; the probe is asked at least once.
        clock: the source of time.
        interval: first pause between questions in seconds; it grows to at most ten times that.

    Returns:
        The probe's answer, or None when the time ran out.
    """
    deadline = clock.monotonic() + timeout
    pause = interval
    while True:
        answer = probe()
        if answer is not None:
            return answer
        left = deadline - clock.monotonic()
        if left <= 0:
            return None
        clock.heed()
        clock.sleep(min(pause, left))
        pause = min(pause * 1.3, interval * 10)


_TIMESTAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$")


def parse_timestamp(text: str) -> float | None:
    """Seconds since the epoch for one of Docker's RFC 3339 timestamps (nanosecond digits allowed).

    Docker writes the zero time ``0001-01-01T00:00:00Z`` for "never" (Engine API, ContainerInspect); that gives None.
    """
    match = _TIMESTAMP.match(text)
    if match is None or text.startswith("0001-"):
        return None
    base, fraction, zone = match.groups()
    moment = datetime.datetime.fromisoformat(base + ("+00:00" if zone == "Z" else zone))
    return moment.timestamp() + (float(fraction) if fraction else 0.0)
