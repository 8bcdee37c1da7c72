# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server of the database, found and, where it sleeps, brought up: also for a run that comes after a crash."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from ..compose.container import Container
from ..compose.project import members
from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import InvalidInput, OpsError
from .options import Database
from .session import Way, find_way, locate_server

__all__ = ["Server", "awake", "reach"]

# Every server has them; a database can only be renamed from another one.
_OTHERS = ("postgres", "template1")


@dataclass(frozen=True)
class Server:
    """The server's container, and the way into a database that is not the one to be renamed."""

    container: Container
    admin: Way


def reach(stack: Stack, target: Database) -> Server:
    """Find the server, and log in.

    Raises:
        OpsError: it does not run, or does not let us in.
    """
    container = locate_server(members(stack.options, stack.engine.project_containers()), target.service)
    trouble: OpsError | None = None
    for name in _OTHERS:
        if name != target.database:
            try:
                way = find_way(container, replace(target, database=name), stack.options)
            except InvalidInput:
                raise
            except OpsError as exc:
                trouble = trouble or exc
                continue
            if way.password is not None:
                stack.redact.add(way.password)
            return Server(container, way)
    raise trouble or OpsError(
        f"The server {container.name} has no database from which {target.database} can be renamed"
    )


def awake(stack: Stack, target: Database, *, timeout: float) -> Server:
    """The same after whatever has happened: the Docker Engine and the server may only be coming up again.

    Raises:
        OpsError: they did not, in time.
    """
    last: list[OpsError] = []

    def there() -> Server | None:
        try:
            for item in members(stack.options, stack.engine.project_containers()):
                if target.service in (item.service, item.name) and item.status in ("exited", "created", "paused"):
                    with contextlib.suppress(OpsError):
                        stack.engine.unpause(item.id) if item.status == "paused" else stack.engine.start(item.id)
            return reach(stack, target)
        except OpsError as exc:
            last.append(exc)
            return None

    found = wait_for(there, timeout=timeout, clock=stack.clock, interval=0.2)
    if found is None:
        raise last[-1]
    return found
