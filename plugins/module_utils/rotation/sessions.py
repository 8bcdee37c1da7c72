# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits until the sessions of stopped services have left the database: what they still do was logged in before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import OpsError
from ..database.server import Server, Session
from .pg_options import PgOptions

__all__ = ["SessionWait", "settle"]

# A session that was told to end is gone at its next look, in milliseconds.
_END_TIMEOUT = 10.0


@dataclass(frozen=True)
class SessionWait:
    """How long it took in seconds, how many sessions there were, how many were ended, and those that were left."""

    seconds: float
    found: int
    terminated: int
    left: list[str]


def settle(
    stack: Stack,
    server: Server,
    options: PgOptions,
    password: str | None,
    addresses: Sequence[str],
    applications: Sequence[str],
) -> SessionWait:
    """Wait for the sessions to end by themselves; after that as ``on_session_timeout`` says.

    Args:
        stack: the stack.
        server: the database.
        options: of the rotation.
        password: the one that is valid now; None to go through the socket.
        addresses: network addresses that the services' containers had.
        applications: names by which their sessions may call themselves.

    Raises:
        OpsError: there are sessions left and the rotation is to be undone, or they cannot be ended.
    """
    began = stack.clock.monotonic()
    seen: list[int] = []
    left: list[Session] = []

    def gone() -> bool | None:
        left[:] = server.sessions(password, addresses, applications)
        seen.extend(item.pid for item in left if item.pid not in seen)
        return None if left else True

    ended = 0
    if wait_for(gone, timeout=options.session_timeout, clock=stack.clock, interval=0.05) is None:
        told = "; ".join(str(item) for item in left)
        if options.on_session_timeout == "undo":
            raise OpsError(
                "Sessions of the stopped services are still in the database after "
                f"{options.session_timeout:g} seconds: {told}",
                hint="Let them end, or end them (on_session_timeout: terminate; what they have not committed is lost), "
                "or wait longer (session_timeout), or leave them alone (on_session_timeout: continue).",
                facts={"sessions": [str(item) for item in left]},
            )
        if options.on_session_timeout == "terminate":
            ended = len(server.sessions(password, addresses, applications, end=True))
            if wait_for(gone, timeout=_END_TIMEOUT, clock=stack.clock) is None:
                raise OpsError(f"Sessions of the stopped services could not be ended: {told}")
    seconds = round(stack.clock.monotonic() - began, 3)
    return SessionWait(seconds, len(seen), ended, [str(item) for item in left])
