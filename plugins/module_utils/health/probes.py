# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks health probes, all at the same time, and waits until every answer is the right one."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Callable

from ..compose.container import Container
from ..compose.stack import Stack
from ..core.clock import Clock, wait_for
from ..core.errors import InvalidInput, OpsError, Unhealthy
from ..core.redact import MASK, Redactor
from .ask import Answer, ask_host, ask_service
from .probe import Probe

__all__ = ["check", "default_probes"]

# A try that keeps to its own limit byte by byte and yet does not end is given up after this many seconds more.
_SLACK = 1.0


def default_probes(stack: Stack) -> list[Probe]:
    """The health endpoints of runbook 2.3, asked inside the containers: not every host publishes the ports.

    Brain counts as well when it is degraded, too: it says so under mere memory pressure.

    Raises:
        InvalidInput: the stack lacks one of the services.
    """
    endpoints: list[dict[str, Any]] = [
        {"service": "titan-brain", "port": 3100, "path": "/health", "json": {"status": ["healthy", "degraded"]}},
        {"service": "titan-execution", "port": 3002, "path": "/health"},
        {"service": "titan-nats", "port": 8222, "path": "/healthz"},
    ]
    return [
        Probe.from_params({**endpoint, "via": "inside", "service": stack.model.resolve(endpoint["service"])})
        for endpoint in endpoints
    ]


def check(
    probes: Sequence[Probe], *, stack: Stack | None, clock: Clock, timeout: float, interval: float = 0.3
) -> dict[str, Any]:
    """Ask all probes at the same time, again and again until all pass in the same round.

    Args:
        probes: what to ask, as ``Probe.from_params`` made them.
        stack: finds the services; None when no probe names one.
        clock: the source of time.
        timeout: seconds to wait; 0 asks once. A try that is under way when they are over is still awaited.
        interval: seconds between the first two rounds; it grows to at most ten times that.

    Returns:
        ``probes``, one dict each in the order given, and ``waited_seconds`` (the module health_check documents both).

    Raises:
        InvalidInput: no probe, an unknown service, or a time that makes no sense.
        Unhealthy: at least one did not pass; a sentence each, and the last log lines of the containers that failed.
    """
    if not probes:
        raise InvalidInput("There is no probe to ask")
    if timeout < 0 or interval <= 0:
        raise InvalidInput("timeout must not be negative, and interval must be more than 0 seconds")
    services = [_service(probe, stack) for probe in probes]
    rounds = 0
    tries: list[_Try | None] = [None] * len(probes)
    # In which round a probe began to pass for good.
    since: list[int | None] = [None] * len(probes)
    answers: list[Answer] = []

    def all_pass() -> bool | None:
        nonlocal rounds, answers
        rounds += 1
        answers = _round(probes, services, stack, clock, tries)
        for index, answer in enumerate(answers):
            since[index] = (since[index] or rounds) if answer.ok else None
        return True if all(answer.ok for answer in answers) else None

    began = clock.monotonic()
    passed = wait_for(all_pass, timeout=timeout, clock=clock, interval=interval)
    waited = round(clock.monotonic() - began, 3)
    redact = _redactor(probes, stack)
    told = []
    for probe, service, answer, first in zip(probes, services, answers, since):
        head = {"name": probe.name, "kind": probe.kind, "service": service, "ok": answer.ok, "tries": first or rounds}
        told.append({**head, **_masked(asdict(answer), redact)})
    if not passed:
        raise _unhealthy(told, waited, stack)
    return {"probes": told, "waited_seconds": waited}


def _service(probe: Probe, stack: Stack | None) -> str | None:
    if probe.service is None:
        return None
    if stack is None:
        raise InvalidInput(f"The probe {probe.name} names a service, but there is no stack to look for it in")
    return stack.model.resolve(probe.service)


def _round(
    probes: Sequence[Probe],
    services: Sequence[str | None],
    stack: Stack | None,
    clock: Clock,
    tries: list[_Try | None],
) -> list[Answer]:
    """Ask every probe once, each in a thread of its own; ``tries`` are those of the last round, replaced by this one's.

    A try that is still under way is not joined by another: a command that hangs would pile up in its container.
    """
    named = [name for name in services if name is not None]
    found: dict[str, list[Container]] = {}
    unreadable: str | None = None
    if stack is not None and named:
        try:
            found = stack.containers_of(named)
        except OpsError as exc:  # the engine may be restarting, and that is worth waiting for
            unreadable = exc.msg

    def ask(probe: Probe, service: str | None) -> Answer:
        if service is None or stack is None:
            return ask_host(probe, clock)
        if unreadable is not None:
            return Answer(reason=unreadable)
        return ask_service(probe, found[service], stack)

    current = []
    for index, (probe, service) in enumerate(zip(probes, services)):
        last = tries[index]
        attempt = last if last is not None and last.under_way else _Try(ask, probe, service)
        tries[index] = attempt
        current.append(attempt)
    return [attempt.answer() for attempt in current]


class _Try:
    """One question in a thread of its own, for which nobody waits longer than it may take."""

    def __init__(self, ask: Callable[[Probe, str | None], Answer], probe: Probe, service: str | None) -> None:
        self._answer: Answer | None = None
        self._failure: BaseException | None = None
        self._late = False
        self._probe = probe
        self._thread = threading.Thread(target=self._run, args=(ask, service), daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        return self._thread.is_alive()

    def answer(self) -> Answer:
        if not self._late:
            self._thread.join(self._probe.timeout + _SLACK)
            self._late = self.under_way
        if self._failure is not None:
            raise self._failure
        if self._late or self._answer is None:
            return Answer(reason=f"it did not end answering within {self._probe.timeout:g} seconds")
        return self._answer

    def _run(self, ask: Callable[[Probe, str | None], Answer], service: str | None) -> None:
        try:
            self._answer = ask(self._probe, service)
        except OpsError as exc:
            self._answer = Answer(reason=exc.msg)
        except BaseException as exc:  # a defect of ours: told in the caller's thread, not lost in this one
            self._failure = exc


def _redactor(probes: Sequence[Probe], stack: Stack | None) -> Callable[[str], str]:
    own = Redactor(value for probe in probes for value in probe.headers.values())
    return (lambda text: own(stack.redact(text))) if stack is not None else own


def _masked(value: Any, redact: Callable[[str], str], name: str = "") -> Any:
    """A JSON value without secrets: known ones anywhere, and every text whose field is named like a secret."""
    if isinstance(value, dict):
        return {key: _masked(item, redact, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(item, redact, name) for item in value]
    if not isinstance(value, str):
        return value
    # The redactor knows such names in running text: ask it what it makes of this one there.
    told = f"{name}=x"
    if redact(told) != told:
        return MASK
    # In the answer itself it stood in quotes, and a short secret is known by these.
    return MASK if redact(f'"{value}"') == f'"{MASK}"' else redact(value)


def _unhealthy(told: Sequence[Mapping[str, Any]], waited: float, stack: Stack | None) -> Unhealthy:
    failed = [item for item in told if not item["ok"]]
    logs = _logs({item["service"] for item in failed}, stack)
    sentences = [f"{item['name']}: {item['reason']}." for item in failed]
    sentences += [f"The last log lines of {name}: {' | '.join(lines[-3:])}." for name, lines in logs.items() if lines]
    return Unhealthy(
        f"{len(failed)} of {len(told)} health probes failed: {' '.join(sentences)}",
        state="This check changed nothing.",
        hint="The services' logs tell why; a service that is only slow to start gets longer with timeout.",
        facts={"probes": list(told), "logs": logs, "waited_seconds": waited},
    )


def _logs(services: set[str | None], stack: Stack | None) -> dict[str, list[str]]:
    """The last log lines, redacted, of every container of some services."""
    if stack is None:
        return {}
    try:
        found = stack.containers_of(sorted(name for name in services if name is not None))
    except OpsError:
        return {}  # no engine, no log: the sentence says so already
    return {container.name: stack.tail(container) for items in found.values() for container in items}
