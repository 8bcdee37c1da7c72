# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start, stop, restart and recreate: planned from the model and the containers, applied by Compose, proved after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.errors import InvalidInput, OpsError, Refused
from .container import Container
from .stack import Stack

__all__ = ["STATES", "Action", "Plan", "apply", "drift_of", "must_isolate", "plan"]

STATES = ("started", "stopped", "restarted", "recreated")


@dataclass(frozen=True)
class Action:
    """What happens to one service: create, recreate, start, restart, stop or nothing; and why."""

    service: str
    action: str
    reason: str
    before: str


@dataclass(frozen=True)
class Plan:
    """A planned change of a stack. ``explicit`` is False when the whole stack was meant."""

    state: str
    services: tuple[str, ...]
    explicit: bool
    dependencies: bool
    actions: tuple[Action, ...]
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything would change."""
        return any(action.action != "none" for action in self.actions)

    def diff(self) -> dict[str, str]:
        """Before and after, one line a service."""
        after = {"create": "running", "recreate": "running (new container)", "start": "running", "stop": "exited"}
        after["restart"] = "running (restarted)"
        return {
            "before": "".join(f"{item.service}: {item.before}\n" for item in self.actions),
            "after": "".join(f"{item.service}: {after.get(item.action, item.before)}\n" for item in self.actions),
        }


def plan(stack: Stack, state: str, services: Sequence[str], *, dependencies: bool = False) -> Plan:
    """Say what reaching ``state`` would change; changes nothing.

    Args:
        stack: the stack.
        state: started, stopped, restarted or recreated.
        services: service or container names; none means the whole stack.
        dependencies: also start (or recreate, where they diverged) what the services depend on.

    Raises:
        InvalidInput: an unknown service, or a restart of something that has no container.
        Refused: the stack would come up on new, empty volumes beside those that it has.
    """
    if stack.project.name is None and state in ("started", "recreated"):
        _refuse_new_volumes(stack)
    names = stack.model.resolve_all(services) or list(stack.model.services)
    touched = _with_dependencies(stack, names) if dependencies else names
    found = stack.containers_of(touched)
    hashes = stack.cli.known_hashes(stack.name) if state != "stopped" else {}
    actions, warnings = [], []
    for name in touched:
        drift = drift_of(stack, name, found[name], hashes)
        before = ", ".join(item.status for item in found[name]) or "absent"
        action, reason = _decide(state, name in names, found[name], drift)
        if state == "restarted" and not found[name]:
            raise InvalidInput(
                f"The service {name} has no container that could be restarted", hint="Start it (state: started)."
            )
        if state == "restarted" and drift:
            warnings.append(
                f"{name}: {drift}; a restart keeps the old configuration and environment, "
                "only a recreate applies the new"
            )
        actions.append(Action(name, action, reason, before))
    return Plan(state, tuple(names), bool(services), dependencies, tuple(actions), tuple(warnings))


def apply(
    stack: Stack, planned: Plan, *, wait: bool = True, timeout: float = 300, stop_timeout: float | None = None
) -> list[Action]:
    """Carry out a plan and prove it: containers in the wanted state, healthy where that can be asked.

    Args:
        stack: the stack.
        planned: what ``plan`` returned.
        wait: wait until what was started is healthy.
        timeout: seconds for becoming healthy.
        stop_timeout: seconds of grace for stopping; the Compose file's, else 30, without it.

    Returns:
        What really happened to each service, read from the containers before and after.

    Raises:
        CommandFailed: Compose failed.
        Unhealthy: a service did not become healthy.
            Both carry the last log lines of the service that failed, and say what state all of them are in.
    """
    touched = [action.service for action in planned.actions]
    before = stack.containers_of(touched)
    grace = stop_timeout if stop_timeout is not None else max((stack.grace(name) for name in touched), default=30.0)
    try:
        if planned.changed:
            _carry_out(stack, planned, grace=grace, timeout=600 + timeout)
        if planned.state == "stopped":
            _prove_stopped(stack, touched)
        else:
            stack.wait_well(touched, timeout=timeout, healthy=wait)
    except OpsError as exc:
        raise _explained(stack, touched, exc) from exc
    after = stack.containers_of(touched)
    return [_outcome(action, before[action.service], after[action.service]) for action in planned.actions]


def _refuse_new_volumes(stack: Stack) -> None:
    """Of a project whose name neither a container nor the operator tells, the volumes that exist must bear the name.

    Compose's own rule makes one from the directory's name, which is another one with each release.
    """
    there = stack.engine.volumes()
    own = {key: body.get("name") for key, body in stack.model.volumes.items() if not body.get("external")}
    if any(name in there for name in own.values()):
        return
    others = {
        labels.get("com.docker.compose.project", ""): name
        for name, labels in sorted(there.items(), reverse=True)
        if labels.get("com.docker.compose.volume") in own
    }
    if others:
        told = ", ".join(f"{project} ({volume})" for project, volume in sorted(others.items()))
        raise Refused(
            f"No container of {stack.project.src} is there to tell the Compose project's name, and as {stack.name} the "
            f"stack would start on new, empty volumes, although there are volumes of the project {told}",
            hint=f"Say which one is meant with project_name (in titan_stack); {stack.name} is right for a new stack.",
        )


def _carry_out(stack: Stack, planned: Plan, *, grace: float, timeout: float) -> None:
    services = planned.services if planned.explicit else ()
    if planned.state == "stopped":
        stack.cli.stop(stack.name, services, grace=grace)
    elif planned.state == "restarted":
        stack.cli.restart(stack.name, services, dependencies=planned.dependencies, grace=grace)
    else:
        _bring_up(stack, planned, grace=grace, timeout=timeout)


def _bring_up(stack: Stack, planned: Plan, *, grace: float, timeout: float) -> None:
    """Create, replace and start what the plan says, and nothing else.

    Left to itself, Compose would also replace a container that only bears the label of an earlier ``--no-deps``.
    """
    touched = [item.service for item in planned.actions]
    replaced = [item.service for item in planned.actions if item.action == "recreate"]
    services = touched if planned.explicit else []
    isolated = planned.explicit and must_isolate(stack, services)
    if len(replaced) > 1 and not _to_be_pulled(stack, replaced):
        # Compose replaces what others depend on first, and a service whose message bus is gone cannot end gracefully. A
        # stop goes the other way round.
        stack.cli.stop(stack.name, replaced, grace=grace)
    if replaced == touched:  # everything at once is what the runbook does by hand
        stack.cli.up(stack.name, services, isolated=isolated, recreate=True, stop_timeout=grace, timeout=timeout)
        return
    if replaced:
        stack.cli.up(
            stack.name,
            replaced,
            isolated=must_isolate(stack, replaced, start=False),
            recreate=True,
            start=False,
            stop_timeout=grace,
            timeout=timeout,
        )
    # All are named, those that stay as well, so that each is started after those that it depends on.
    stack.cli.up(stack.name, services, isolated=isolated, keep=True, timeout=timeout)


def _to_be_pulled(stack: Stack, services: Sequence[str]) -> bool:
    """Whether an image is not there yet: Compose gets it before it stops anything, and may fail to."""
    images = [stack.model.services[name].image for name in services]
    return not all(image and stack.engine.image_id(image) for image in images)


def must_isolate(stack: Stack, services: Sequence[str], *, changing: Sequence[str] = (), start: bool = True) -> bool:
    """Whether Compose must be kept from the dependencies of ``services`` (``--no-deps``) so as not to change them.

    Where all of them run just as Compose would make them now, it leaves them alone by itself, and labels the new
    containers so that its next plain ``up`` leaves those alone, too.

    Args:
        stack: the stack.
        services: Compose service names.
        changing: services whose configuration is about to change.
        start: Compose is to start the services, and with them whatever they depend on.
    """
    others = [name for name in _with_dependencies(stack, services) if name not in services]
    if not others:
        return False
    full = {name: {value} for name, value in stack.cli.hashes(stack.name).items()}
    return any(
        name in changing
        or not found
        or (start and not all(item.running for item in found))
        or drift_of(stack, name, found, full) is not None
        for name, found in stack.containers_of(others).items()
    )


def _decide(state: str, named: bool, found: Sequence[Container], drift: str | None) -> tuple[str, str]:
    running = bool(found) and all(_active(item) for item in found)
    if state == "stopped":
        return ("stop", "is running") if any(_active(item) for item in found) else ("none", "is not running")
    if state == "restarted":
        done = "restart" if any(_active(item) for item in found) else "start"
        return (done, "asked for") if named else ("none", "dependency")
    if not found:
        return "create", "has no container"
    if state == "recreated" and named:
        return "recreate", "asked for"
    if drift:
        return "recreate", drift
    return ("none", "is running") if running else ("start", f"is {found[0].status}")


def _active(container: Container) -> bool:
    """Whether Docker counts it as running: it does not start such a one again, and a stop stops it."""
    return container.running or container.status == "restarting"


def drift_of(stack: Stack, name: str, found: Sequence[Container], hashes: Mapping[str, set[str]]) -> str | None:
    """Why Compose would replace a service's containers, asking what Compose itself asks (its ``mustRecreate``).

    Args:
        stack: the stack.
        name: the service.
        found: its containers.
        hashes: what ``ComposeCli.known_hashes`` returned.
    """
    service = stack.model.services[name]
    for container in found:
        if name in hashes and container.label("config-hash") not in {None, *hashes[name]}:
            return "its configuration or environment changed since the container was made"
        current = stack.engine.image_id(service.image) if service.image else None
        recorded = container.label("image")
        if current and recorded and recorded != current:
            return "its image changed since the container was made"
    return None


def _with_dependencies(stack: Stack, names: Sequence[str]) -> list[str]:
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order or name not in stack.model.services:
            return
        depends = stack.model.services[name].definition.get("depends_on") or {}
        for other in depends:
            visit(other)
        order.append(name)

    for name in names:
        visit(name)
    return order


def _prove_stopped(stack: Stack, services: Sequence[str]) -> None:
    running = [item.name for found in stack.containers_of(services).values() for item in found if _active(item)]
    if running:
        raise OpsError(
            f"Still running after the stop: {', '.join(running)}",
            state="The other services are stopped.",
            hint="Look at what restarts them (docker events), then stop again.",
        )


def _explained(stack: Stack, services: Sequence[str], error: OpsError) -> OpsError:
    """The error with what an operator asks next: the last words of the service that failed, the state of all."""
    try:
        found = stack.containers_of(services)
    except OpsError:  # the engine is gone, as the error says
        return error
    msg, facts = error.msg, dict(error.facts)
    failed = [(name, item) for name, items in found.items() for item in items if _failed(item)]
    if failed and "log" not in facts:
        name, container = failed[0]
        unhealthy = stack.unhealthy(name, str(stack.trouble(container)), container)
        msg, facts = f"{msg}. {unhealthy.msg}", {**facts, **unhealthy.facts}
    troubles = {name: [stack.trouble(item) for item in items] or ["has no container"] for name, items in found.items()}
    told = [f"{name} {trouble}" for name, all_told in troubles.items() for trouble in all_told if trouble]
    well = [name for name, all_told in troubles.items() if not any(all_told)]
    state = "; ".join([*told, f"well: {', '.join(well)}"] if well else told)
    return type(error)(
        msg,
        state=error.state or f"The state now: {state}",
        hint=error.hint or "Mend the cause, then run the same again.",
        facts=facts,
    )


def _failed(container: Container) -> bool:
    ended = container.status in ("exited", "dead", "restarting") and not container.completed
    return ended or container.health == "unhealthy"


def _outcome(action: Action, before: Sequence[Container], after: Sequence[Container]) -> Action:
    """The action as the containers tell it, whatever was predicted."""
    old, new = {item.id for item in before}, {item.id for item in after}
    was = any(_active(item) for item in before)
    now = any(_active(item) for item in after)
    if not old and new:
        done = "create"
    elif old != new:
        done = "recreate"
    elif was and not now:
        done = "stop"
    elif now and not was:
        done = "start"
    elif [item.started_at for item in before] != [item.started_at for item in after]:
        done = "restart" if was else "start"  # the latter has ended again: a one-shot service
    else:
        done = "none"
    return Action(action.service, done, action.reason, action.before)
