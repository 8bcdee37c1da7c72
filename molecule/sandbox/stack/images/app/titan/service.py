# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every service does alike: its log, its environment, its metrics, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable
from typing import Callable

log = logging.getLogger("titan")


class Fatal(Exception):
    """The service cannot run; the message is its last log line."""


def required_secret(name: str) -> str:
    """The value of a secret; an empty one ends the service, as it ends the originals."""
    value = os.environ.get(name, "")
    if not value:
        raise Fatal(f"{name} is empty or not set: refusing to start")
    return value


def number(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        return float(text)
    except ValueError:
        raise Fatal(f"{name} must be a number, not {text!r}") from None


class Metrics(dict[str, float]):
    """Counters and gauges by name, in Prometheus' text format; a name that ends in _total is a counter."""

    def text(self) -> str:
        lines = []
        for name, value in self.items():
            lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
            lines.append(f"{name} {value:g}" if value != int(value) else f"{name} {int(value)}")
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def wait_for(event: asyncio.Event, timeout: float) -> bool:
    """Wait until the event is set, at most `timeout` seconds; whether it was."""
    try:
        await asyncio.wait_for(event.wait(), max(timeout, 0))
    except asyncio.TimeoutError:
        return False
    return True


async def attend(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for the stop event; a task that fails before it ends the service rather than leave it half alive."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in tasks:
        if task.done() and task.exception():
            raise Fatal(f"{task.get_name()} failed") from task.exception()


def run(name: str, main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a service until SIGTERM or SIGINT sets its stop event; exit 1 with one clear line when it cannot run."""
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format=f"%(asctime)sZ %(levelname)s [{name}] %(message)s"
    )
    logging.Formatter.converter = time.gmtime

    async def supervised() -> None:
        stop = asyncio.Event()
        for number_ in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number_, stop.set)
        await main(stop)

    try:
        asyncio.run(supervised())
    except Fatal as error:
        log.critical("FATAL %s", error, exc_info=error.__cause__)
        sys.exit(1)
    log.info("stopped")
