# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transaction of a rotation: journal, quiesce, switch, prove, finish; from any failure roll back, prove, report.

What differs between secrets is passed in: how traffic is drained, and how the new secret is proved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ..compose.container import Container
from ..compose.engine import EngineGone
from ..compose.holders import carries, env_carries
from ..compose.operations import must_isolate
from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import NOTHING_CHANGED, OpsError, Refused
from ..core.files import drop_staging, read_regular
from ..core.journal import Journal
from .carry import CarryStore
from .envsecret import current_value, put_back, put_new, stage_both
from .handling import Handling
from .originals import Originals
from .outcome import Outcome
from .switch import Switch

__all__ = ["Authority", "Outcome", "Transaction"]

_AGAIN = "Mend the cause and run the same playbook again: it begins by recovering."
# Seconds between the attempts of an undo that the Docker daemon broke off.
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


@dataclass(frozen=True)
class Authority:
    """Who decides beside the env file which secret is right, and must be told the new one: a database.

    Attributes:
        settle: called when the services have stopped, before the change; raises to undo.
        put: called with (secret to take, the other one), any number of times; brings it up first where it does not run.
        accepts: whether it takes this secret now.
        lost: whether it took another one than the env file's before. Until it was told one of ours, an undo leaves it
            alone: nobody knows that other one, and a holder may live on it.
    """

    settle: Callable[[], None]
    put: Callable[[str, str], None]
    accepts: Callable[[str], bool]
    lost: bool = False


class Transaction:
    """Switches a secret everywhere, or nowhere.

    Args:
        stack: the stack.
        journal: the operation's journal.
        switch: what changes.
        drain: called between the stop of the producers and the stop of the rest; raises to undo. None: no drain.
        prove: called with (right secret, wrong secret, services that must prove it) when everything runs; raises when
            the proof fails.
        cancelled: asked before each step and while something is waited for; True undoes what was done so far.
        stop_timeout: seconds of grace where the Compose file declares none.
        authority: told the secret right before the env file is, and again whenever a run finishes or undoes; None
            where only the env file decides.
    """

    def __init__(
        self,
        stack: Stack,
        journal: Journal,
        switch: Switch,
        *,
        drain: Callable[[], None] | None,
        prove: Callable[[str, str, Sequence[str]], None],
        cancelled: Callable[[], bool] = lambda: False,
        stop_timeout: float | None = None,
        authority: Authority | None = None,
    ) -> None:
        self._stack = stack
        self._journal = journal
        self._switch = switch
        self._drain = drain
        self._prove = prove
        self._cancelled = cancelled
        self._authority = authority
        self._carry = CarryStore.beside(journal.path, switch.carry)
        self._originals = Originals(stack, journal.record.get("snapshots", {}))
        if "project" in journal.record:  # nothing else may tell it when recovering
            stack.known_as(journal.record["project"])
        self._handling = Handling(stack, self._carry, self._originals, stop_timeout=stop_timeout)
        self._needed: list[str] = journal.record.get("needed", [])
        self._isolated = True
        self._outcome = Outcome(carried=self._handling.carried)
        for secret in (switch.old, switch.new):
            stack.redact.add(secret)

    def run(self) -> Outcome:
        """Do it all.

        Raises:
            OpsError: it failed; the message says whether the old secret is back everywhere.
        """
        switch = self._switch
        self._isolated = must_isolate(self._stack, switch.services, changing=tuple(switch.holders))
        self._originals.take(switch.everyone)
        self._needed = self._handling.needed_by(switch.everyone)
        found: dict[str, Any] = {"utc": self._stack.clock.utc(), "project": self._stack.name, "needed": self._needed}
        found["snapshots"] = self._originals.taken
        found["told"] = False
        found["began"] = self._stack.began
        self._begin({**found, **switch.to_record()})
        try:
            with self._stack.clock.interrupted_by(self._heed):
                self._quiesce()
                self._replace()
                return self.finish()
        except Exception as exc:  # whatever it is, a stack with half a secret must not stay
            failure = exc if isinstance(exc, OpsError) else OpsError(_words(exc))
            raise self._rolled_back(failure) from exc

    def _begin(self, record: dict[str, Any]) -> None:
        """The journal, and what lets the rest do without more space; it is refused where that cannot be written."""
        switch = self._switch
        try:
            self._journal.begin(record)
            stage_both(switch.env_file, old_data=switch.old_data, new_data=switch.new_data)
        except Exception as exc:
            self._journal.end()
            hint = exc.hint if isinstance(exc, OpsError) else None
            raise Refused(f"The rotation of {switch.key} was not begun: {_words(exc)}", hint=hint) from exc

    def recover(self) -> str:
        """Finish or undo what an interrupted run left, whichever is nearer by what is true now.

        Where finishing would need Compose, and it refuses the files by now, it is undone, for that needs no Compose.

        Returns:
            "finished" or "undone", or "superseded" when somebody gave everyone a third value since.

        Raises:
            OpsError: none was possible; the journal stays for the next run.
        """
        self._originals.conceal()
        try:
            # Somebody may have made or started containers before their files were in them.
            self._handling.place(self._switch.everyone)
            if self._superseded():
                self._end("superseded")
                return "superseded"
            made = [*self._switch.first, *self._switch.services]
            if self._file_says_new() and all(self._carries_new(name) for name in made):
                with contextlib.suppress(Exception):  # the new containers cannot run: back to the old ones
                    self._handling.wake(self._needed, timeout=self._switch.health_timeout)
                    if self._authority:
                        self._authority.put(self._switch.new, self._switch.old)
                    self.finish()
                    return "finished"
            self._undo()
            return "undone"
        except Exception as exc:
            told = exc if isinstance(exc, OpsError) else OpsError(_words(exc))
            own = told.state if told.state != NOTHING_CHANGED else None  # true of that step, not of the stack
            raise OpsError(
                f"An interrupted rotation of {self._switch.key} was found and could not be undone: {told.msg}",
                state=f"{own.rstrip('.')}. {self._half_done()}" if own else self._half_done(),
                hint=told.hint or _AGAIN,
                facts=told.facts,
            ) from exc

    def finish(self) -> Outcome:
        """From "the new containers exist" to the end: started together, then the other holders, then the proof."""
        switch = self._switch
        if switch.first:
            self._step("recreate the database")
            self._handling.recreate([name for name in switch.first if not self._carries_new(name)])
            self._handling.start(switch.first)
            self._stack.wait_well(switch.first, timeout=switch.health_timeout)
        self._step("start")
        self._handling.start(switch.services)
        # The other holders wait until these are well: their own replacement would only slow them down.
        wells = self._stack.wait_well(self._provable(switch.services), timeout=switch.health_timeout)
        if switch.stale:
            self._step("recreate the other holders")
            self._handling.recreate([name for name in switch.stale if not self._carries_new(name)])
            self._handling.start([name for name in switch.stale if self._originals.ran(name)])
        self._step("prove")
        everyone = switch.everyone
        self._check_environment(everyone, switch.new, switch.old)
        self._stack.wait_well(self._provable(everyone), timeout=switch.health_timeout)
        self._prove(switch.new, switch.old, self._provable(everyone))
        self._outcome.measure(switch.services, wells, self._handling.stopping)
        self._end("finished")
        return self._outcome

    def _quiesce(self) -> None:
        switch = self._switch
        if switch.producers:
            self._step("stop the producers")
            self._handling.stop(switch.producers)
            if self._drain:
                self._step("drain")
                self._drain()
        self._step("stop the rest" if switch.producers else "stop the services")
        self._handling.stop([name for name in switch.services if name not in switch.producers])

    def _replace(self) -> None:
        switch = self._switch
        self._step("save files")
        again = self._handling.active(switch.services)
        if again:
            raise OpsError(
                f"{', '.join(again)} was started again by somebody else while the rotation was under way (Docker does "
                "so when its daemon is restarted)"
            )
        self._handling.save(switch.services)
        if self._authority:
            self._step("wait for their sessions to end")
            self._authority.settle()
            self._step("set the role's password")
            self._journal.note(told=True)
            self._authority.put(switch.new, switch.old)
        self._step("replace the env file")
        put_new(switch.env_file, old_data=switch.old_data, new_data=switch.new_data)
        self._step("create the new containers")
        self._handling.create(switch.services, isolated=self._isolated)
        self._check_environment(switch.services, switch.new, switch.old)

    def _provable(self, services: Sequence[str]) -> list[str]:
        """Those of the services of which health can be asked: they were well before, or had no container at all."""
        return [name for name in services if self._originals.was_well(name) or not self._originals.names(name)]

    def _rolled_back(self, failure: OpsError) -> OpsError:
        """Undo after a failure; the error to raise says how that went."""
        failed_at, alone = self._at, self._left_alone
        try:
            self._undo()
        except Exception as second:
            return OpsError(
                f'The rotation of {self._switch.key} failed at "{failed_at}": {failure.msg.rstrip(".")}. '
                f"Undoing it failed, too: {_words(second)}",
                state=self._half_done(),
                hint=(second.hint if isinstance(second, OpsError) else None) or _AGAIN,
                facts={**failure.facts, "rolled_back": False},
            )
        everyone = self._switch.everyone
        sick = [name for name in everyone if not self._originals.was_well(name)]
        return OpsError(
            f'The rotation of {self._switch.key} failed at "{failed_at}": {failure.msg}',
            state=f"It was undone: the old secret is back in {self._switch.env_file} and in every holder "
            f"({', '.join(everyone)}), and they are healthy again"
            + (f", except what was not before ({', '.join(sick)})" if sick else "")
            + (". The database was not changed yet: it has the password that it had, not this one" if alone else ""),
            hint=failure.hint or "Mend the cause and run again.",
            facts={
                **failure.facts,
                "rolled_back": True,
                "steps": self._outcome.steps,
                "interruption": self._outcome.interruption,
            },
        )

    def _half_done(self) -> str:
        return (
            f"The stack may be stopped or hold two values of {self._switch.key}; the journal {self._journal.path} "
            "has what is needed to finish or undo"
        )

    def _undo(self) -> None:
        """Undo; while the Docker daemon is gone, wait for it, and should it go meanwhile, begin again."""
        clock, pause = self._stack.clock, _PAUSE
        deadline = clock.monotonic() + self._switch.health_timeout
        while True:
            self._await_docker(deadline)
            try:
                return self._rollback()
            except Exception as exc:
                left, answers = deadline - clock.monotonic(), self._stack.engine.answers()
                if left <= 0 or (answers and not isinstance(exc, EngineGone)):
                    raise
                clock.sleep(min(pause, left))  # it may say that it is there, and break off all the same
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _await_docker(self, deadline: float) -> None:
        clock, engine = self._stack.clock, self._stack.engine
        left = deadline - clock.monotonic()
        if wait_for(lambda: engine.answers() or None, timeout=left, clock=clock, interval=0.2) is None:
            raise OpsError(
                f"The Docker Engine did not come back within {self._switch.health_timeout:g} seconds",
                hint="Start it (systemctl start docker) and run the same playbook again: it begins by recovering.",
            )

    def _rollback(self) -> None:
        """Everything as it was before: the file, and the containers, which are then what the snapshots say."""
        switch = self._switch
        if self._at != "undo":
            with contextlib.suppress(OpsError):  # a full disk must not keep the services from starting again
                self._note("undo")
        put_back(
            switch.env_file,
            old_data=switch.old_data,
            new_data=switch.new_data,
            key=switch.key,
            old=switch.old,
            new=switch.new,
        )
        # What the holders need, a database for example, may have been stopped meanwhile: they would not become well.
        self._handling.wake(self._needed, timeout=switch.health_timeout)
        for group in (switch.first, switch.services, switch.stale):
            if group is switch.services and self._authority:
                self._stack.wait_well(self._provable(switch.first), timeout=switch.health_timeout)
                if not self._left_alone:
                    self._authority.put(switch.old, switch.new)
            self._handling.bring_back(group)
        everyone = switch.everyone
        if not self._originals.are_back(everyone):
            raise OpsError("The containers are not those from before the rotation")
        well = [name for name in everyone if self._originals.was_well(name)]
        wells = self._stack.wait_well(well, timeout=switch.health_timeout)
        if not self._left_alone:
            # Other holders may have held yet another value before.
            self._prove(switch.old, switch.new, [name for name in well if name in switch.services])
        self._outcome.measure(switch.services, wells, self._handling.stopping)
        self._end("undone")

    @property
    def _left_alone(self) -> bool:
        """Whether the authority takes the secret that it took before, which is neither of the two."""
        return self._authority is not None and self._authority.lost and not self._journal.record.get("told", True)

    def _superseded(self) -> bool:
        """Whether the file has a third value by now and everyone carries that: then there is nothing left to do."""
        value = current_value(self._switch.env_file, self._switch.key)
        if not value or value in (self._switch.old, self._switch.new):
            return False
        found = self._stack.containers_of(self._switch.everyone)
        if not all(items and all(self._has(item, name, value) for item in items) for name, items in found.items()):
            return False
        return self._authority is None or self._authority.accepts(value)

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
        names = self._originals.names(service) or {item.name for item in found}
        # What gets the secret by a file only (a mount) has no variable that could tell.
        fresh = self._switch.holders.get(service) or not self._originals.any_left(service)
        return bool(
            found and fresh and all(self._has(item, service, self._switch.new) and item.name in names for item in found)
        )

    def _file_says_new(self) -> bool:
        return read_regular(self._switch.env_file, what="env file").data == self._switch.new_data

    def _step(self, name: str) -> None:
        """Begin a step of the way forward, unless somebody wants us to end."""
        self._note(name)
        self._heed()

    def _heed(self) -> None:
        if self._cancelled():
            raise OpsError("It was asked to end by a signal")

    def _note(self, name: str) -> None:
        self._outcome.steps.append(name)
        self._journal.note(step=name)

    @property
    def _at(self) -> str:
        return self._outcome.steps[-1] if self._outcome.steps else "begin"

    def _end(self, how: str) -> None:
        drop_staging(self._switch.env_file)  # before the journal goes, which alone tells where it is
        self._journal.conclude(how, ended=self._stack.clock.now(), secret=self._switch.key)
        self._carry.clear()


def _words(exc: Exception) -> str:
    return exc.msg if isinstance(exc, OpsError) else f"{type(exc).__name__}: {exc}"
