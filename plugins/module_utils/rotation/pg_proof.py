# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof that a database password is the right one: logins over TCP, and the deep health of who lives on it."""

from __future__ import annotations

from collections.abc import Sequence

from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import OpsError
from ..database.server import Server
from ..health.ask import Answer, ask_service
from ..health.probe import Probe

__all__ = ["prove"]


def prove(
    stack: Stack,
    server: Server,
    probes: Sequence[Probe],
    right: str,
    wrong: str,
    services: Sequence[str],
    *,
    timeout: float,
) -> None:
    """Show that the database accepts ``right`` and refuses ``wrong``, and that the services work with it.

    Args:
        stack: the stack.
        server: the database.
        probes: deep health checks; those of other services than these are passed over.
        right: the password that must be accepted.
        wrong: the password that must be refused.
        services: Compose service names.
        timeout: seconds that the database and each probe get.

    Raises:
        OpsError: something of that is not so.
    """
    if not server.accepts(right, timeout=timeout):
        raise OpsError("The database refuses the right password")
    if server.accepts(wrong):
        raise OpsError("The database accepts the other password, too: it does not ask for one, or trusts this host")
    stack.wait_well(services, timeout=timeout)
    for probe in probes:
        service = stack.resolve(str(probe.service))
        if service in services:
            _ask(stack, probe, service, timeout)


def _ask(stack: Stack, probe: Probe, service: str, timeout: float) -> None:
    last: list[str] = []

    def well() -> Answer | None:
        answer = ask_service(probe, stack.containers_of([service])[service], stack)
        last.append(answer.reason or "")
        return answer if answer.ok else None

    if wait_for(well, timeout=min(60.0, timeout), clock=stack.clock) is None:
        raise OpsError(f"{service} is not well with the password: {last[-1]}")
