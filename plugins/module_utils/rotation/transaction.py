# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transaction of a rotation: journal, quiesce, switch, prove, finish; from any failure roll back, prove, report.

What differs between secrets is passed in: how traffic is drained, and how the new secret is proved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ..compose.container import Container
from ..compose.holders import carries, env_carries
from ..compose.operations import must_isolate
from ..compose.replica import recall, snapshot
from ..compose.stack import Stack
from ..core.errors import OpsError
from ..core.files import read_regular, write_atomic
from ..core.journal import Journal
from .carry import CarryStore
from .envsecret import put_back
from .switch import Switch

__all__ = ["Outcome", "Transaction"]

_AGAIN = "Mend the cause and run the same playbook again: it begins by recovering."


@dataclass
class Outcome:
    """What a transaction did; times in seconds."""

    interruption: dict[str, dict[str, float]] = field(default_factory=dict)
    skew_seconds: float | None = None
    carried: dict[str, list[str]] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)


class Transaction:
    """Switches a secret everywhere, or nowhere.

    Args:
        stack: the stack.
        journal: the operation's journal.
        switch: what changes.
        drain: called between the stop of the producers and the stop of the rest; raises to undo.
        prove: called with (right secret, wrong secret) when everything runs; raises when the proof fails.
        stop_timeout: seconds of grace where the Compose file declares none.
    """

    def __init__(
        self,
        stack: Stack,
        journal: Journal,
        switch: Switch,
        *,
        drain: Callable[[], None],
        prove: Callable[[str, str], None],
        stop_timeout: float | None = None,
    ) -> None:
        self._stack = stack
        self._journal = journal
        self._switch = switch
        self._drain = drain
        self._prove = prove
        self._stop_timeout = stop_timeout
        self._carry = CarryStore.beside(journal.path, switch.carry)
        self._stopping: dict[str, float] = {}
        self._failed_at = ""
        self._isolated = True
        self._snapshots: dict[str, list[Any]] = journal.record.get("snapshots", {})
        self._outcome = Outcome()
        for secret in (switch.old, switch.new):
            stack.redact.add(secret)

    def run(self) -> Outcome:
        """Do it all.

        Raises:
            OpsError: it failed; the message says whether the old secret is back everywhere.
        """
        switch = self._switch
        self._isolated = must_isolate(self._stack, switch.services, changing=tuple(switch.holders))
        self._snapshots = {
            name: [snapshot(self._stack.engine, container.id) for container in found]
            for name, found in self._stack.containers_of([*switch.services, *switch.stale]).items()
        }
        record = {"utc": self._stack.clock.utc(), "snapshots": self._snapshots, **switch.to_record()}
        self._journal.begin(record)
        try:
            self._quiesce()
            self._replace()
            return self.finish()
        except Exception as exc:  # whatever it is, a stack with half a secret must not stay
            failure = exc if isinstance(exc, OpsError) else OpsError(_words(exc))
            raise self._rolled_back(failure) from exc

    def recover(self) -> str:
        """Finish or undo what an interrupted run left, whichever is nearer by what is true now.

        Returns:
            "finished" or "undone".

        Raises:
            OpsError: neither was possible; the journal stays for the next run.
        """
        try:
            if self._file_says_new() and all(self._carries_new(name) for name in self._switch.services):
                with contextlib.suppress(Exception):  # the new containers cannot run: back to the old ones
                    self.finish()
                    return "finished"
            self._rollback()
            return "undone"
        except Exception as exc:
            raise OpsError(
                f"An interrupted rotation of {self._switch.key} was found and could not be undone: {_words(exc)}",
                state=self._half_done(),
                hint=_AGAIN,
            ) from exc

    def finish(self) -> Outcome:
        """From "the new containers exist" to the end: files carried in, started together, stale holders, proof."""
        switch = self._switch
        self._step("start")
        self._start(switch.services)
        stale = [name for name in switch.stale if not self._carries_new(name)]
        if stale:
            self._step("recreate the other holders")
            self._recreate(stale)
        self._start(switch.stale)
        self._step("prove")
        everyone = [*switch.services, *switch.stale]
        self._check_environment(everyone, switch.new, switch.old)
        wells = self._stack.wait_well(everyone, timeout=switch.health_timeout)
        self._prove(switch.new, switch.old)
        self._measure(wells)
        self._end()
        return self._outcome

    def _quiesce(self) -> None:
        switch = self._switch
        if switch.producers:
            self._step("stop the producers")
            self._stop(switch.producers)
            self._step("drain")
            self._drain()
        self._step("stop the rest")
        self._stop([name for name in switch.services if name not in switch.producers])

    def _replace(self) -> None:
        switch = self._switch
        self._step("save files")
        self._save(switch.services)
        self._step("replace the env file")
        state = read_regular(switch.env_file, what="env file")
        if state.data != switch.old_data:
            raise OpsError(f"{switch.env_file} was edited by somebody else while the rotation was under way")
        write_atomic(switch.env_file, switch.new_data, mode=state.mode, uid=state.uid, gid=state.gid)
        self._step("create the new containers")
        self._stack.cli.up(self._stack.name, switch.services, recreate=True, start=False, isolated=self._isolated)
        self._check_environment(switch.services, switch.new, switch.old)

    def _start(self, services: Sequence[str]) -> None:
        """Start the containers of services together; into those that never ran, the saved files are put first."""
        ready = []
        for name, found in self._stack.containers_of(services).items():
            for container in found:
                if container.running:
                    continue
                if container.started_at is None:
                    placed = self._carry.load(self._stack.engine, name, container)
                    if placed:
                        self._outcome.carried[name] = placed
                ready.append(container.id)
        self._stack.engine.start_together(ready)

    def _save(self, services: Sequence[str]) -> None:
        for name, found in self._stack.containers_of(services).items():
            for container in found:
                if container.started_at is not None:  # else it has nothing of its own, and may wait for what is saved
                    self._carry.save(self._stack.engine, name, container)

    def _recreate(self, services: Sequence[str]) -> None:
        """Replace containers by new ones, not yet started."""
        self._stop(services)
        self._save(services)
        isolated = must_isolate(self._stack, services)
        self._stack.cli.up(self._stack.name, services, recreate=True, start=False, isolated=isolated)

    def _stop(self, services: Sequence[str]) -> None:
        graces: dict[str, float] = {}
        for name, found in self._stack.containers_of(services).items():
            for container in found:
                if container.status in ("running", "paused", "restarting"):
                    graces[container.id] = self._stack.grace(name, self._stop_timeout)
                    self._stopping.setdefault(name, self._stack.clock.now())
        self._stack.engine.stop_together(graces)

    def _rolled_back(self, failure: OpsError) -> OpsError:
        """Undo after a failure; the error to raise says how that went."""
        try:
            self._rollback()
        except Exception as second:
            return OpsError(
                f'The rotation of {self._switch.key} failed at "{self._failed_at}": {failure.msg.rstrip(".")}. '
                f"Undoing it failed, too: {_words(second)}",
                state=self._half_done(),
                hint=_AGAIN,
                facts={**failure.facts, "rolled_back": False},
            )
        return OpsError(
            f'The rotation of {self._switch.key} failed at "{self._failed_at}": {failure.msg}',
            state=f"It was undone: the old secret is back in {self._switch.env_file} and in every holder "
            f"({', '.join([*self._switch.services, *self._switch.stale])}), and they are healthy again.",
            hint=failure.hint or "Mend the cause and run again.",
            facts={**failure.facts, "rolled_back": True, "steps": self._outcome.steps},
        )

    def _half_done(self) -> str:
        return (
            f"The stack may be stopped or hold two values of {self._switch.key}; the journal {self._journal.path} "
            "has what is needed to finish or undo"
        )

    def _rollback(self) -> None:
        switch = self._switch
        self._failed_at = self._at
        with contextlib.suppress(OpsError):  # a full disk must not keep the services from starting again
            self._step("undo")
        put_back(
            switch.env_file,
            old_data=switch.old_data,
            new_data=switch.new_data,
            key=switch.key,
            old=switch.old,
            new=switch.new,
        )
        for group in (switch.services, switch.stale):
            self._bring_back(group)
            self._start(group)
        everyone = [*switch.services, *switch.stale]
        self._check_environment(everyone, switch.old, switch.new)
        self._stack.wait_well(everyone, timeout=switch.health_timeout)
        self._prove(switch.old, switch.new)
        self._end()

    def _bring_back(self, services: Sequence[str]) -> None:
        """The services' old containers again: those that are still there, else new ones made just like them."""
        engine, found = self._stack.engine, self._stack.containers_of(services)
        strangers = {
            name: [item for item in containers if not self._is_old(item, self._snapshots[name])]
            for name, containers in found.items()
        }
        engine.stop_together(
            {
                item.id: self._stack.grace(name, self._stop_timeout)
                for name, containers in strangers.items()
                for item in containers
                if item.status in ("running", "restarting", "paused")
            }
        )
        for name, containers in strangers.items():
            for container in containers:
                if container.started_at is not None:  # what it has changed since it started counts
                    self._carry.save(engine, name, container)
                engine.remove(container.id)
            kept = {item.name for item in found[name] if item not in containers}
            for taken in self._snapshots[name]:
                if taken["name"] not in kept:
                    recall(engine, taken)

    @staticmethod
    def _is_old(container: Container, snapshots: Sequence[Mapping[str, Any]]) -> bool:
        """Whether it is from before the rotation, or was made from such a snapshot by an undo that was interrupted."""
        return any(
            container.id == taken["id"]
            or (
                container.name == taken["name"]
                and container.labels == (taken["config"].get("Labels") or {})
                and container.env_list() == sorted(taken["config"].get("Env") or [])
            )
            for taken in snapshots
        )

    def _check_environment(self, services: Sequence[str], value: str, other: str) -> None:
        """Every holder's containers carry the value wherever its environment had the secret, and the other nowhere."""
        for name, found in self._stack.containers_of(services).items():
            for container in found or [None]:  # type: ignore[list-item]
                if container is None or not self._has(container, name, value):
                    raise OpsError(f"The container of {name} does not carry the right value of {self._switch.key}")
                if env_carries(container.environment, other):
                    raise OpsError(f"The container of {name} still carries the other value of {self._switch.key}")

    def _has(self, container: Container, service: str, value: str) -> bool:
        variables = self._switch.holders.get(service, ())
        return all(carries(container.environment.get(variable, ""), value) for variable in variables)

    def _carries_new(self, service: str) -> bool:
        """Whether its containers are the new ones; Compose gives them their final names last."""
        found = self._stack.containers_of([service])[service]
        names = {taken["name"] for taken in self._snapshots.get(service, ())} or {item.name for item in found}
        return bool(found) and all(self._has(item, service, self._switch.new) and item.name in names for item in found)

    def _file_says_new(self) -> bool:
        return read_regular(self._switch.env_file, what="env file").data == self._switch.new_data

    def _measure(self, wells: Mapping[str, Container]) -> None:
        """Interruptions from the stop request (or Docker's FinishedAt) to the first passed health check."""
        started = []
        for name in self._switch.services:
            container = wells[name]
            if container.started_at is None:
                continue
            started.append(container.started_at)
            if name in self._stopping:
                well = container.healthy_at or container.started_at
                self._outcome.interruption[name] = {
                    "until_started_seconds": round(container.started_at - self._stopping[name], 3),
                    "until_healthy_seconds": round(well - self._stopping[name], 3),
                }
        if started:
            self._outcome.skew_seconds = round(max(started) - min(started), 3)

    def _step(self, name: str) -> None:
        self._outcome.steps.append(name)
        self._journal.note(step=name)

    @property
    def _at(self) -> str:
        return self._outcome.steps[-1] if self._outcome.steps else "begin"

    def _end(self) -> None:
        self._journal.end()
        self._carry.clear()


def _words(exc: Exception) -> str:
    return exc.msg if isinstance(exc, OpsError) else f"{type(exc).__name__}: {exc}"
