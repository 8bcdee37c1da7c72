# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a transaction does to containers: stopped, replaced with their files carried over, started, brought back."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from ..compose.operations import must_isolate
from ..compose.stack import DEFAULT_GRACE, Stack
from ..core.errors import OpsError
from .carry import CarryStore
from .originals import Originals

__all__ = ["Handling"]

_ACTIVE = ("running", "paused", "restarting")


class Handling:
    """Handles the containers of services.

    Args:
        stack: the stack.
        carry: keeps the containers' own files.
        originals: the containers as they were before.
        stop_timeout: seconds of grace where a container was given none.

    Attributes:
        stopping: when each service was first asked to stop, seconds since the epoch.
        carried: the files that new containers got, by service.
    """

    def __init__(self, stack: Stack, carry: CarryStore, originals: Originals, *, stop_timeout: float | None) -> None:
        self._stack = stack
        self._carry = carry
        self._originals = originals
        self._stop_timeout = stop_timeout
        self.stopping: dict[str, float] = {}
        self.carried: dict[str, list[str]] = {}

    def active(self, services: Sequence[str]) -> list[str]:
        """Those of the services that run."""
        found = self._stack.containers_of(services).items()
        return [name for name, items in found if any(item.status in _ACTIVE for item in items)]

    def needed_by(self, services: Sequence[str]) -> list[str]:
        """The services that these depend on, directly or not, and that run now, these themselves left out."""
        order: list[str] = []
        left = list(services)
        while left:
            service = self._stack.model.services.get(left.pop())
            for name in (service.definition.get("depends_on") or {}) if service else ():
                if name not in order:
                    order.append(name)
                    left.append(name)
        others = self._stack.containers_of([name for name in order if name not in services])
        return [name for name, items in others.items() if any(item.status == "running" for item in items)]

    def wake(self, services: Sequence[str], *, timeout: float) -> None:
        """Let containers run that somebody has stopped or paused meanwhile, and wait until they are well."""
        engine, found = self._stack.engine, self._stack.containers_of(services)
        asleep = [name for name, items in found.items() if any(item.status != "running" for item in items)]
        if not asleep:
            return
        for item in (item for name in asleep for item in found[name]):
            if item.status == "paused":
                engine.unpause(item.id)
        self.start(asleep)
        with contextlib.suppress(OpsError):  # who needs it will tell, or does not need it after all
            self._stack.wait_well(asleep, timeout=timeout)

    def stop(self, services: Sequence[str]) -> None:
        """Stop what runs of them, together."""
        graces: dict[str, float] = {}
        for name, found in self._stack.containers_of(services).items():
            for container in found:
                if container.status in _ACTIVE:
                    graces[container.id] = self._grace(name)
                    self.stopping.setdefault(name, self._stack.clock.now())
        self._stack.engine.stop_together(graces)

    def start(self, services: Sequence[str]) -> None:
        """Start what does not run of them, together."""
        found = self._stack.containers_of(services).values()
        self._stack.engine.start_together([item.id for items in found for item in items if not item.running])

    def save(self, services: Sequence[str]) -> None:
        """Save their files."""
        for name, found in self._stack.containers_of(services).items():
            for container in found:
                self._carry.save(self._stack.engine, name, container)

    def create(self, services: Sequence[str], *, isolated: bool) -> None:
        """Replace containers by new ones, not started, with the saved files in them whoever starts them.

        A rotation changes a secret and no image, whatever ``pull_policy`` says.
        """
        self._stack.cli.up(self._stack.name, services, recreate=True, start=False, isolated=isolated, fetch=False)
        self.place(services)

    def recreate(self, services: Sequence[str]) -> None:
        """Replace containers that may run by new ones, not yet started."""
        if not services:  # which would mean all of them to Compose
            return
        self.stop(services)
        self.save(services)
        self.create(services, isolated=must_isolate(self._stack, services))

    def place(self, services: Sequence[str]) -> None:
        """Put the saved files into the services' new containers; into those that have run already, what they lack."""
        for name, found in self._stack.containers_of(services).items():
            for container in found:
                if self._originals.has(container):
                    continue
                ran = container.started_at is not None
                placed = self._carry.load(self._stack.engine, name, container, missing_only=ran)
                if placed:
                    self.carried[name] = list(dict.fromkeys([*self.carried.get(name, ()), *placed]))

    def bring_back(self, services: Sequence[str]) -> None:
        """Make the containers from before the services' containers again, and start those that ran."""
        self._originals.bring_back(
            services,
            # on a full disk they must come back all the same
            save=lambda name, item: self._carry.save(self._stack.engine, name, item, durably=False),
            grace=self._grace,
        )
        self.place(services)
        self.start([name for name in services if self._originals.ran(name)])

    def _grace(self, service: str) -> float:
        """Seconds to stop: what its containers themselves were given, which needs no Compose file to be readable."""
        own = self._originals.stop_timeout(service)
        default = self._stop_timeout if self._stop_timeout is not None else DEFAULT_GRACE
        return own if own is not None else default
