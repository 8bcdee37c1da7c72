# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The containers as they were before a rotation, and the way back to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from ..compose.container import Container
from ..compose.replica import recall, snapshot
from ..compose.stack import Stack
from ..core.redact import secret_values

__all__ = ["Originals"]

_ACTIVE = ("running", "restarting", "paused")


class Originals:
    """Snapshots of containers, by service; they hold environments, so they live in the journal only.

    Args:
        stack: the stack.
        taken: the snapshots.
    """

    def __init__(self, stack: Stack, taken: Mapping[str, list[dict[str, Any]]]) -> None:
        self._stack = stack
        self.taken = dict(taken)

    def take(self, services: Sequence[str]) -> None:
        """Take snapshots of the services' containers as they are now."""
        engine, found = self._stack.engine, self._stack.containers_of(services)
        self.taken = {name: [snapshot(engine, item.id) for item in items] for name, items in found.items()}

    def conceal(self) -> None:
        """Keep the secrets of their environments out of all messages."""
        for taken in (item for items in self.taken.values() for item in items):
            pairs = (entry.partition("=")[::2] for entry in taken["config"].get("Env") or [])
            for value in secret_values(dict(pairs)):
                self._stack.redact.add(value)

    def stop_timeout(self, service: str) -> float | None:
        """Seconds that Docker was told to give the service's containers to stop (stop_grace_period in Compose)."""
        told = [taken["config"].get("StopTimeout") for taken in self.taken.get(service, ())]
        return max((float(seconds) for seconds in told if seconds is not None), default=None)

    def has(self, container: Container) -> bool:
        """Whether it is one of these very containers, which never lost its own files."""
        return any(container.id == taken["id"] for items in self.taken.values() for taken in items)

    def names(self, service: str) -> set[str]:
        """The names of the service's containers."""
        return {taken["name"] for taken in self.taken.get(service, ())}

    def ran(self, service: str) -> bool:
        """Whether any of its containers ran: a finished job, or a service stopped on purpose, is not to be started."""
        return any(taken["status"] in _ACTIVE for taken in self.taken.get(service, ()))

    def was_well(self, service: str) -> bool:
        """Whether all of its containers ran and passed their health checks: of others no more can be asked."""
        found = self.taken.get(service, ())
        return bool(found) and all(
            taken["status"] == "running" and taken["health"] in (None, "none", "healthy") for taken in found
        )

    def are_back(self, services: Iterable[str]) -> bool:
        """Whether the services' containers are these, and no others."""
        return all(
            bool(items) == bool(self.taken.get(name)) and all(self._is_original(name, item) for item in items)
            for name, items in self._stack.containers_of(services).items()
        )

    def any_left(self, service: str) -> bool:
        """Whether any of these very containers is still there."""
        ids = {taken["id"] for taken in self.taken.get(service, ())}
        return any(item.id in ids for item in self._stack.containers_of([service])[service])

    def bring_back(
        self,
        services: Sequence[str],
        *,
        save: Callable[[str, Container], object],
        grace: Callable[[str], float],
    ) -> None:
        """Make them the services' containers again: those that are still there, else new ones made just like them.

        Args:
            services: Compose service names.
            save: keeps the files of a container that has run, before it is removed.
            grace: seconds that a service gets to stop.
        """
        engine, found = self._stack.engine, self._stack.containers_of(services)
        strangers = {
            name: [item for item in items if not self._is_original(name, item)] for name, items in found.items()
        }
        active = [(name, item) for name, items in strangers.items() for item in items if item.status in _ACTIVE]
        engine.stop_together({item.id: grace(name) for name, item in active})
        for name, items in strangers.items():
            for item in items:
                if item.started_at is not None:  # what it has changed since it started counts
                    save(name, item)
                engine.remove(item.id)
            kept = {item.name for item in found[name] if item not in items}
            for taken in self.taken.get(name, ()):
                if taken["name"] not in kept:
                    recall(engine, taken)

    def _is_original(self, service: str, container: Container) -> bool:
        """Whether it is from before, or was made from its snapshot by an undo that was interrupted."""
        return any(
            container.id == taken["id"]
            or (
                container.name == taken["name"]
                and container.labels == (taken["config"].get("Labels") or {})
                and container.env_list() == sorted(taken["config"].get("Env") or [])
            )
            for taken in self.taken.get(service, ())
        )
