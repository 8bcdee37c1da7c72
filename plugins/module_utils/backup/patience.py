# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements that take their time, in a thread: who waits for them still hears when the run is to end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ..core.clock import Clock
from ..core.errors import OpsError
from ..database.login import Connection
from .tools import Cancelled

__all__ = ["Patience", "attended", "under_way"]

# Seconds: between two looks at a thread, and until one that was told to end is left alone.
_LOOK, _PATIENCE = 0.2, 5.0
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long one waits.

    Attributes:
        clock: time.
        cancelled: whether the run was asked to end.
        timeout: seconds.
    """

    clock: Clock
    cancelled: Callable[[], bool]
    timeout: float


def attended(session: Connection, work: Callable[[], T], patience: Patience, what: str) -> T:
    """Wait for work in a session.

    Raises:
        Cancelled: the run was asked to end; so was the statement.
        OpsError: the server refused it, or it took too long.
    """
    with under_way(session, work, patience, f"{what} took longer than {patience.timeout:g} seconds") as wait:
        return wait()


@contextlib.contextmanager
def under_way(session: Connection, work: Callable[[], T], patience: Patience, late: str) -> Iterator[Callable[[], T]]:
    """Work in a session while the body does something else; gives what waits for the result.

    Args:
        session: which nobody else uses meanwhile.
        work: what is done in it.
        patience: of who waits.
        late: the error when that is at its end.
    """
    found: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as exc:  # pylint: disable=broad-exception-caught  # handed on to whoever waits
            errors.append(exc)

    def wait() -> T:
        deadline = patience.clock.monotonic() + patience.timeout
        while thread.is_alive():
            thread.join(_LOOK)
            if patience.cancelled():
                raise Cancelled("The run was asked to end")
            if patience.clock.monotonic() > deadline:
                raise OpsError(late)
        if errors:
            raise errors[0]
        return found[0]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        if thread.is_alive():
            # A server that answers no more, in a paused container, say, must not hold the host's lock.
            helper = threading.Thread(target=session.cancel, daemon=True)
            helper.start()
            thread.join(_PATIENCE)
            if thread.is_alive():
                session.abandon()
                thread.join()
