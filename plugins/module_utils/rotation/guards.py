# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Conditions under which a rotation must not begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..compose.operations import drift_of
from ..compose.stack import Stack
from ..core.errors import InvalidInput, OpsError, Refused
from ..health.http import request

__all__ = ["Guard", "check_guards", "check_replacement", "check_well", "refuse"]


@dataclass(frozen=True)
class Guard:
    """A declared "do not touch": a file in a service's container, or a field of its HTTP answer.

    Attributes:
        service: Compose service or container name.
        path: with ``port``: the HTTP path; without: a file whose presence forbids the rotation.
        port: the HTTP port inside the service's network.
        field: dotted path of a field in the JSON answer.
        value: the field's value, as text, that forbids the rotation.
        reason: what the condition means.
        hint: how to end the condition.
    """

    service: str
    path: str
    port: int | None = None
    field: str | None = None
    value: str | None = None
    reason: str | None = None
    hint: str | None = None

    def __post_init__(self) -> None:
        if (self.port is None) != (self.field is None) or (self.field is None) != (self.value is None):
            raise InvalidInput(
                f"The guard of {self.service} on {self.path} is incomplete: port, field and value belong together",
                hint="Give all three for a field of an HTTP answer, none for a file in the container.",
            )


def check_guards(stack: Stack, guards: Iterable[Guard]) -> list[str]:
    """Which guards forbid the rotation: one sentence each; an empty list when none does.

    A guard that cannot be asked (its HTTP endpoint does not answer, or not with that field) forbids, too.
    """
    reasons = []
    for guard in guards:
        service = stack.model.resolve(guard.service)
        reason = _http(stack, service, guard) if guard.port else _file(stack, service, guard)
        if reason:
            reasons.append(reason + (f" {guard.hint.rstrip('.')}." if guard.hint else ""))
    return reasons


def check_well(stack: Stack, services: Sequence[str]) -> list[str]:
    """Which services are not well to begin with: one sentence each."""
    troubles = []
    for name, found in stack.containers_of(services).items():
        if not found:
            troubles.append(f"{name} has no container.")
        for container in found:
            if container.status != "running":
                troubles.append(f"{name} is {container.status}.")
            elif container.health not in (None, "healthy"):
                troubles.append(f"{name} runs, but its health check says {container.health}.")
    return troubles


def check_active(stack: Stack, service: str) -> bool:
    """Whether any container of a service runs; a finished job, or a service stopped on purpose, has none."""
    found = stack.containers_of([service])[service]
    return any(item.running or item.status == "restarting" for item in found)


def check_replacement(stack: Stack, services: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """What stands against replacing the services' containers now.

    Returns:
        Reasons that forbid it (an image that is not on this host would be pulled in the middle of the interruption);
        reasons that forbid it unless forced (another image, or another secret than the env file says, would come with
        it); and warnings about pending changes of configuration, which a replacement applies as well.
    """
    forbidding, changing, warnings = [], [], []
    hashes = stack.cli.known_hashes(stack.name)
    for name, found in stack.containers_of(services).items():
        image = stack.model.services[name].image
        if image and stack.engine.image_id(image) is None:
            forbidding.append(f"The image {image} of {name} is not on this host (docker pull {image}).")
        elif image and any(item.label("image") not in (None, stack.engine.image_id(image)) for item in found):
            changing.append(f"{image} is another image by now than the one that {name} runs: recreate {name} first.")
        elif drift_of(stack, name, found, hashes):
            warnings.append(f"{name}: its configuration changed since it was made; its replacement applies that, too")
    return forbidding, changing, warnings


def refuse(reasons: Sequence[str], *, what: str, forcible: bool = True) -> Refused:
    """The error that tells every reason at once."""
    force = ", or override it with force: true (-e force=true) if you accept the consequences" if forcible else ""
    return Refused(
        f"{what}: {' '.join(reasons)}",
        hint=f"Mend that{force}.",
        facts={"reasons": list(reasons)},
    )


def _file(stack: Stack, service: str, guard: Guard) -> str | None:
    for container in stack.containers_of([service])[service]:
        if stack.engine.path_exists(container.id, guard.path):
            return f"{guard.reason or 'A guard forbids it'}: {guard.path} exists in {container.name}."
    return None


def _http(stack: Stack, service: str, guard: Guard) -> str | None:
    where = f"{service}:{guard.port}{guard.path}"
    try:
        response = request(f"http://{stack.address(service)}:{guard.port}{guard.path}", clock=stack.clock)
    except OpsError as exc:
        return f"The guard at {where} cannot be asked ({exc.msg})."
    answer = response.json()
    for part in (guard.field or "").split("."):
        if not isinstance(answer, dict) or part not in answer:
            return f"The guard at {where} cannot be asked (status {response.status}, no field {guard.field})."
        answer = answer[part]
    text = ("true" if answer else "false") if isinstance(answer, bool) else str(answer)
    if text == guard.value:
        return f"{guard.reason or 'A guard forbids it'}: {guard.field} is {text} at {where}."
    return None
