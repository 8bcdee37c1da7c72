# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks a health probe once, and says in words why an answer is not the right one."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..compose.container import Container
from ..compose.stack import Stack
from ..core.clock import Clock
from ..core.errors import OpsError
from .http import Response, in_network_of, request
from .probe import Probe

__all__ = ["Answer", "ask_host", "ask_service"]

# A bigger JSON body is no fact but a document: of it only the fields that are asked about are kept.
_SMALL = 32 * 1024
_MISSING = object()


@dataclass(frozen=True)
class Answer:
    """How one try ended; ``reason`` says why it did not pass.

    Attributes:
        reason: a clause; None when the probe passed.
        status: HTTP status code, exit code, or the container's health (its status where it has no health check).
        latency_seconds: what the question took.
        facts: the JSON body; secrets are still in it.
    """

    reason: str | None = None
    status: int | str | None = None
    latency_seconds: float | None = None
    facts: Any = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the probe passed."""
        return self.reason is None


def ask_host(probe: Probe, clock: Clock) -> Answer:
    """Ask an http or tcp probe of the host itself."""
    return _network(probe, "localhost", "", clock)


def ask_service(probe: Probe, containers: Sequence[Container], stack: Stack) -> Answer:
    """Ask a probe of a service.

    Args:
        probe: what to ask.
        containers: the service's containers as just read; a container probe looks at all of them, the others at the
            first that runs.
        stack: where they belong.

    Raises:
        OpsError: Docker refuses, or the container's network cannot be entered.
    """
    if not containers:
        return Answer(reason="the service has no container")
    if probe.kind == "container":
        troubles = [f"{item.name} {trouble}" for item in containers if (trouble := stack.trouble(item))]
        return Answer(reason="; ".join(troubles) or None, status=containers[0].health or containers[0].status)
    container = next((item for item in containers if item.running), None)
    if container is None:
        return Answer(reason=f"{containers[0].name} {stack.trouble(containers[0]) or 'has ended'}")
    if probe.kind == "command":
        return _command(probe, container, stack)
    if probe.via == "inside":
        where = f" inside {container.name}"
        return in_network_of(container.pid, lambda: _network(probe, "localhost", where, stack.clock))
    if probe.via == "address":
        if container.address is None:
            return Answer(reason=f"{container.name} has no network address")
        return _network(probe, container.address, f" ({container.name})", stack.clock)
    return ask_host(probe, stack.clock)


def _command(probe: Probe, container: Container, stack: Stack) -> Answer:
    began = stack.clock.monotonic()
    code, output = stack.engine.execute(container.id, probe.argv, timeout=probe.timeout)
    latency = round(stack.clock.monotonic() - began, 4)
    if code == 0:
        return Answer(status=code, latency_seconds=latency)
    said = output.strip().splitlines()
    reason = f"`{' '.join(probe.argv)}` in {container.name} ended with exit code {code}"
    return Answer(reason + (f": {said[-1].strip()}" if said else ""), code, latency)


def _network(probe: Probe, host: str, where: str, clock: Clock) -> Answer:
    return _http(probe, host, where, clock) if probe.kind == "http" else _tcp(probe, host, where, clock)


def _http(probe: Probe, host: str, where: str, clock: Clock) -> Answer:
    url = f"http://{host}:{probe.port}{probe.path}"
    try:
        response = request(url, headers=probe.headers, timeout=probe.timeout, clock=clock)
    except OpsError as exc:
        return Answer(reason=exc.msg.replace(url, url + where, 1))
    body = response.json()
    wrong = [] if response.status in probe.status else [f"status {response.status} instead of {_either(probe.status)}"]
    wrong += [trouble for path, value in probe.json.items() if (trouble := _field_trouble(body, path, value))]
    return Answer(
        reason=f"{url}{where} answers with {', '.join(wrong)}" if wrong else None,
        status=response.status,
        latency_seconds=round(response.latency, 4),
        facts=_facts(response, body, probe.json),
    )


def _tcp(probe: Probe, host: str, where: str, clock: Clock) -> Answer:
    began = clock.monotonic()
    try:
        with socket.create_connection((host, probe.port or 0), timeout=probe.timeout):
            return Answer(latency_seconds=round(clock.monotonic() - began, 4))
    except OSError as exc:
        # Python 3.9 has two classes of time-outs; both are this one.
        late = isinstance(exc, socket.timeout)
        cause = f"no answer within {probe.timeout:g} seconds" if late else exc.strerror or str(exc)
        return Answer(reason=f"{host}:{probe.port}{where} takes no connection: {cause}")


def _facts(response: Response, body: Any, asked: Mapping[str, Any]) -> Any:
    if len(response.body) <= _SMALL:
        return body
    return {path: value for path in asked if (value := _field(body, path)) is not _MISSING} or None


def _field(body: Any, path: str) -> Any:
    """The field at a dotted path; a number steps into a list."""
    for part in path.split("."):
        if isinstance(body, dict) and part in body:
            body = body[part]
        elif isinstance(body, list) and part.isdigit() and int(part) < len(body):
            body = body[int(part)]
        else:
            return _MISSING
    return body


def _field_trouble(body: Any, path: str, expected: Any) -> str | None:
    if body is None:
        return "a body that is not JSON"
    accepted = expected if isinstance(expected, list) else [expected]
    value = _field(body, path)
    if value is _MISSING:
        return f"no field {path}"
    if _text(value) in [_text(item) for item in accepted]:
        return None
    return f"{path}={_text(value)} instead of {_either(accepted)}"


def _text(value: Any) -> str:
    """A JSON value as an operator writes it: YAML and templates turn true and 1 into text and back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _either(values: Sequence[Any]) -> str:
    return " or ".join(_text(value) for value in values)
