# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services that write into the database: stopped while the names are swapped, and started again."""

from __future__ import annotations

from collections.abc import Sequence

from ..compose.container import Container
from ..compose.stack import DEFAULT_GRACE, Stack
from ..core.clock import wait_for
from ..core.errors import OpsError
from ..health.ask import Answer, ask_service
from ..health.probe import Probe
from ..rotation.outcome import Outcome

__all__ = ["Writers", "running"]

_ACTIVE = ("running", "paused", "restarting")
_LONGEST_PROBE = 60.0


def running(stack: Stack, services: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the services that run (also in a crash loop), and those of them that are well."""
    found = stack.containers_of(services)
    active = [name for name, items in found.items() if any(item.status in _ACTIVE for item in items)]
    well = [name for name in active if not any(stack.trouble(item) for item in found[name])]
    return active, well


class Writers:
    """The writers of one restore.

    Args:
        stack: the stack.
        services: those that ran when it began.
        well: those of them that were well.
        probes: their deep health checks.
        timeout: seconds to become well.
        stop_timeout: seconds to stop where the container was given none.
    """

    def __init__(
        self,
        stack: Stack,
        services: Sequence[str],
        well: Sequence[str],
        probes: Sequence[Probe],
        *,
        timeout: float,
        stop_timeout: float | None,
    ) -> None:
        self._stack = stack
        self.services = list(services)
        self._well = [name for name in services if name in well]
        self._probes = probes
        self._timeout = timeout
        self._grace = DEFAULT_GRACE if stop_timeout is None else stop_timeout
        self._stopping: dict[str, float] = {}
        self._wells: dict[str, Container] = {}

    def stop(self) -> None:
        """Stop what runs of them, together.

        Raises:
            OpsError: one did not stop.
        """
        graces: dict[str, float] = {}
        for name, items in self._stack.containers_of(self.services).items():
            for item in items:
                if item.status in _ACTIVE:
                    own = self._stack.engine.inspect_raw(item.id)["Config"].get("StopTimeout")
                    graces[item.id] = self._grace if own is None else float(own)
                    self._stopping.setdefault(name, self._stack.clock.now())
        self._stack.engine.stop_together(graces)

    def start(self) -> None:
        """Start what does not run of them, together.

        Raises:
            OpsError: one did not start.
        """
        found = self._stack.containers_of(self.services).values()
        self._stack.engine.start_together([item.id for items in found for item in items if not item.running])

    def prove(self, *, demand: bool = True) -> tuple[list[str], list[str]]:
        """Wait until those are well that were before, and give the others the same time, without demanding it.

        Args:
            demand: raise when one is not well that was before; else that is a warning, too.

        Returns:
            What was proved, and warnings.

        Raises:
            Unhealthy: one is not well.
        """
        proved: list[str] = []
        warnings: list[str] = []
        for name in self.services:
            try:
                self._prove(name, proved)
            except OpsError as exc:
                if name not in self._well:
                    warnings.append(f"{name} was not well before, and is not now: {exc.msg}")
                elif demand:
                    raise
                else:
                    warnings.append(f"{name} is not well: {exc.msg}")
        return proved, warnings

    def _prove(self, name: str, proved: list[str]) -> None:
        self._wells.update(self._stack.wait_well([name], timeout=self._timeout))
        proved.append(f"{name} is healthy")
        for probe in self._probes:
            if probe.service == name:
                self._ask(name, probe)
                proved.append(f"{name}: GET {probe.path} is well")

    def _ask(self, name: str, probe: Probe) -> None:
        last: list[str] = []

        def well() -> Answer | None:
            answer = ask_service(probe, self._stack.containers_of([name])[name], self._stack)
            last.append(answer.reason or "")
            return answer if answer.ok else None

        if wait_for(well, timeout=min(_LONGEST_PROBE, self._timeout), clock=self._stack.clock) is None:
            raise OpsError(f"{name} is not well with this database: {last[-1]}")

    def interruption(self) -> dict[str, dict[str, float]]:
        """How long each was out, by Docker's clock."""
        outcome = Outcome()
        outcome.measure(self.services, self._wells, self._stopping)
        return outcome.interruption
