# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start, stop, restart, recreate: what is predicted, what is asked of Compose, what is reported."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose import operations
from ansible_collections.titan.ops.plugins.module_utils.compose.container import Container
from ansible_collections.titan.ops.plugins.module_utils.compose.operations import STATES, Action, Plan, apply, plan
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import (
    CommandFailed,
    InvalidInput,
    OpsError,
    Refused,
    Unhealthy,
)
from ansible_collections.titan.ops.tests.unit.fakes import NOW, FakeCli, container, stack

SERVICES: dict[str, Any] = {
    "nats": {"image": "nats:2"},
    "postgres": {"image": "postgres:17", "container_name": "titan-postgres"},
    "brain": {"image": "brain:1", "depends_on": {"nats": {}, "postgres": {}}, "stop_grace_period": "45s"},
    "execution": {"image": "execution:1", "depends_on": {"nats": {}}},
}


def current(service: str, **changes: Any) -> Container:
    """A container as Compose would make it now."""
    labels = {"config-hash": FakeCli(SERVICES).hash(service), "image": f"sha256:{service}", **changes.pop("labels", {})}
    return container(service, labels=labels, **changes)


def made(containers: Sequence[Container]) -> Stack:
    result = stack(SERVICES, containers)
    engine: Any = result.engine
    engine.images = {body["image"]: {"id": f"sha256:{name}"} for name, body in SERVICES.items()}
    return result


def actions(planned: Plan) -> dict[str, str]:
    return {item.service: item.action for item in planned.actions}


ALL = [current(name) for name in SERVICES]
OLD_HASH = {"labels": {"config-hash": "0"}}
OLD_IMAGE = {"labels": {"image": "sha256:older"}}
# What the one container of a service is -> what each state does with it (started, stopped, restarted, recreated).
DECISIONS: dict[str, tuple[dict[str, Any] | None, str, str, str, str]] = {
    "absent": (None, "create", "none", "-", "create"),
    "running": ({}, "none", "stop", "restart", "recreate"),
    "paused": ({"status": "paused"}, "none", "stop", "restart", "recreate"),
    "exited": ({"status": "exited"}, "start", "none", "start", "recreate"),
    "created": ({"status": "created"}, "start", "none", "start", "recreate"),
    "restarting": ({"status": "restarting"}, "none", "stop", "restart", "recreate"),
    "other configuration": (OLD_HASH, "recreate", "stop", "restart", "recreate"),
    "other image": (OLD_IMAGE, "recreate", "stop", "restart", "recreate"),
    "exited, other configuration": ({"status": "exited", **OLD_HASH}, "recreate", "none", "start", "recreate"),
}


PROJECT, VOLUME = "com.docker.compose.project", "com.docker.compose.volume"
OTHER_STACK = {"2026-01-30_data": {PROJECT: "2026-01-30", VOLUME: "data"}}
# volumes that Compose has made -> whether a stack that no container names may start as "titan-prod"
VOLUMES: dict[str, tuple[dict[str, dict[str, str]], bool]] = {
    "none": ({}, True),
    "its own": ({"titan-prod_data": {PROJECT: "titan-prod", VOLUME: "data"}}, True),
    "its own and another's": ({"titan-prod_data": {PROJECT: "titan-prod", VOLUME: "data"}, **OTHER_STACK}, True),
    "somebody else's": ({"blog_uploads": {PROJECT: "blog", VOLUME: "uploads"}}, True),
    "those of another name": (OTHER_STACK, False),
}


def nameless(volumes: dict[str, dict[str, str]], name: str | None = None) -> Stack:
    result = made([])
    result.project = replace(result.project, name=name)
    declared: dict[str, Any] = {"data": {"name": "titan-prod_data"}, "given": {"name": "given", "external": True}}
    result._model = replace(result.model, volumes=declared)
    engine: Any = result.engine
    engine.volume_labels = volumes
    return result


@pytest.mark.parametrize("state", ["started", "recreated"])
@pytest.mark.parametrize(("volumes", "allowed"), VOLUMES.values(), ids=VOLUMES.keys())
def test_without_a_container_that_tells_its_name_no_stack_is_started_beside_its_data(
    volumes: dict[str, dict[str, str]], allowed: bool, state: str
) -> None:
    if allowed:
        assert plan(nameless(volumes), state, []).changed
        return
    with pytest.raises(Refused, match=r"volumes of the project 2026-01-30 \(2026-01-30_data\)") as caught:
        plan(nameless(volumes), state, [])
    assert "project_name" in str(caught.value)
    # whoever says the name knows what he does
    assert plan(nameless(volumes, "titan-prod"), state, []).changed


@pytest.mark.parametrize(("state", "column"), [(state, column) for column, state in enumerate(STATES, start=1)])
@pytest.mark.parametrize("case", DECISIONS.values(), ids=DECISIONS.keys())
def test_what_a_state_does_is_predicted(case: tuple[Any, ...], state: str, column: int) -> None:
    changes, expected = case[0], case[column]
    there = [] if changes is None else [current("brain", **changes)]
    if expected == "-":
        with pytest.raises(InvalidInput, match="The service brain has no container that could be restarted"):
            plan(made(there), state, ["brain"])
        return
    planned = plan(made(there), state, ["brain"])
    assert actions(planned) == {"brain": expected}
    assert planned.changed is (expected != "none")


def test_containers_without_labels_to_compare_are_not_called_drifted() -> None:
    assert actions(plan(made([container("brain")]), "started", ["brain"])) == {"brain": "none"}


def test_a_restart_of_what_has_drifted_warns_that_nothing_new_is_read() -> None:
    planned = plan(made([current("brain", **OLD_HASH)]), "restarted", ["brain"])
    [warning] = planned.warnings
    assert "brain: its configuration or environment changed" in warning
    assert "only a recreate applies the new" in warning
    assert plan(made(ALL), "restarted", []).warnings == ()


def test_the_whole_stack_is_meant_when_no_service_is_named() -> None:
    planned = plan(made(ALL), "recreated", [])
    assert actions(planned) == dict.fromkeys(SERVICES, "recreate")
    assert planned.explicit is False


def test_names_of_containers_are_taken_and_unknown_ones_refused() -> None:
    assert plan(made(ALL), "stopped", ["titan-postgres"]).services == ("postgres",)
    with pytest.raises(InvalidInput, match="no service or container named brian"):
        plan(made(ALL), "stopped", ["brian"])


def test_dependencies_are_left_alone_unless_asked_for() -> None:
    there = [current("brain"), current("nats", status="exited")]
    assert actions(plan(made(there), "recreated", ["brain"])) == {"brain": "recreate"}
    assert actions(plan(made(there), "recreated", ["brain"], dependencies=True)) == {
        "nats": "start",
        "postgres": "create",
        "brain": "recreate",
    }


def test_a_plan_shows_before_and_after() -> None:
    there = [current("brain"), current("nats", status="exited")]
    assert plan(made(there), "started", []).diff() == {
        "before": "brain: running\nexecution: absent\nnats: exited\npostgres: absent\n",
        "after": "brain: running\nexecution: running\nnats: running\npostgres: running\n",
    }


def run(result: Stack, state: str, services: Sequence[str], **options: Any) -> list[tuple[Any, ...]]:
    """Plan and apply; gives what was asked of Compose."""
    apply(result, plan(result, state, services), **options)
    cli: Any = result.cli
    return list(cli.calls)


def test_nothing_is_asked_of_compose_when_all_is_as_it_should_be() -> None:
    result = made(ALL)
    planned = plan(result, "started", [])
    assert [item.action for item in apply(result, planned)] == ["none"] * 4
    assert result.cli.calls == []  # type: ignore[attr-defined]


def test_the_grace_is_the_longest_declared_else_thirty_seconds_else_what_is_said() -> None:
    def graces(services: list[str], **options: Any) -> list[float]:
        calls = run(made(ALL), "recreated", services, **options)
        return [call[2].get("stop_timeout", call[2].get("grace")) for call in calls]

    assert graces(["brain", "nats"]) == [45, 45]
    assert graces(["nats"]) == [30]
    assert graces(["brain"], stop_timeout=7) == [7]


def ups(containers: Sequence[Container], state: str, services: list[str], **options: Any) -> list[tuple[Any, ...]]:
    """What is asked of ``docker compose up``: (services, isolated from their dependencies, what of its options)."""
    result = made(containers)
    planned = plan(result, state, services, **options)
    with contextlib.suppress(Unhealthy):  # nothing really changes here
        apply(result, planned, timeout=1)
    cli: Any = result.cli
    shown = {"recreate": True, "keep": True, "start": False}
    return [
        (list(asked), given.get("isolated", False), *[name for name in shown if given.get(name) is shown[name]])
        for method, asked, given in cli.calls
        if method == "up"
    ]


def test_a_recreation_is_scoped_to_what_was_named() -> None:
    assert ups(ALL, "recreated", ["brain"]) == [(["brain"], False, "recreate")]
    assert ups(ALL, "recreated", []) == [([], False, "recreate")]


@pytest.mark.parametrize(
    "nats", [None, {"status": "exited"}, OLD_HASH, OLD_IMAGE], ids=["absent", "exited", "configuration", "image"]
)
def test_compose_is_kept_from_dependencies_that_it_would_change(nats: dict[str, Any] | None) -> None:
    there = [item for item in ALL if item.service != "nats"]
    if nats is not None:
        there.append(current("nats", **nats))
    assert ups(there, "recreated", ["brain"]) == [(["brain"], True, "recreate")]
    assert ups(there, "recreated", ["nats"]) == [(["nats"], False, "recreate" if nats else "keep")]


def test_several_are_stopped_before_they_are_replaced_unless_an_image_must_be_fetched_first() -> None:
    """Else a service would lose what it depends on before it has ended."""
    result = made(ALL)
    assert [call[0] for call in run(result, "recreated", ["brain", "nats"])] == ["stop", "up"]
    assert result.cli.calls[0][1] == ("brain", "nats")  # type: ignore[attr-defined]
    result = made(ALL)
    del result.engine.images["nats:2"]  # type: ignore[attr-defined]
    assert [call[0] for call in run(result, "recreated", ["brain", "nats"])] == ["up"]


def test_what_is_not_to_be_replaced_is_kept_from_it() -> None:
    """Compose would replace a container that bears the label of an earlier --no-deps, a stopped one as well."""
    there = [current("brain"), current("postgres"), current("nats", status="exited")]
    assert ups(there, "recreated", ["brain"], dependencies=True) == [
        (["brain"], False, "recreate", "start"),
        (["nats", "postgres", "brain"], False, "keep"),
    ]
    assert ups([*there, current("execution", **OLD_HASH)], "started", []) == [
        (["execution"], False, "recreate", "start"),
        ([], False, "keep"),
    ]
    assert ups([], "started", []) == [([], False, "keep")]


def test_a_service_whose_configuration_is_about_to_change_is_kept_from_compose() -> None:
    result = made(ALL)
    assert operations.must_isolate(result, ["brain"]) is False
    assert operations.must_isolate(result, ["brain"], changing=["nats"]) is True
    assert operations.must_isolate(result, ["brain", "nats"], changing=["nats"]) is False
    assert operations.must_isolate(result, ["nats"], changing=["brain"]) is False


def test_a_stop_that_did_not_stop_is_an_error() -> None:
    with pytest.raises(OpsError, match="Still running after the stop: brain"):
        run(made(ALL), "stopped", ["brain"])


def test_a_service_that_does_not_come_up_fails_with_its_last_words() -> None:
    result = made([current("brain", status="exited", exit_code=3, restart_policy="always")])
    engine: Any = result.engine
    engine.log = {"brain": ["starting", "HMAC_SECRET=hunter2 is bad"]}
    with pytest.raises(Unhealthy, match="The service brain exited with code 3") as caught:
        run(result, "started", ["brain"])
    assert caught.value.facts["log"] == ["starting", "HMAC_SECRET=******** is bad"]
    assert caught.value.state == "The state now: brain exited with code 3"


def test_when_compose_fails_the_service_that_failed_tells_why() -> None:
    result = made([*ALL[:3], current("execution", status="exited", exit_code=4)])
    engine: Any = result.engine
    engine.log = {"execution": ["no route to exchange"]}
    cli: Any = result.cli

    def fail(*_args: Any, **_options: Any) -> None:
        raise CommandFailed("`docker compose up` failed with exit code 1: dependency failed to start")

    cli.up = fail
    with pytest.raises(CommandFailed, match="dependency failed to start") as caught:
        run(result, "started", [])
    assert "The service execution exited with code 4; its last log lines: no route to exchange" in caught.value.msg
    assert caught.value.state == "The state now: execution exited with code 4; well: brain, nats, postgres"


def changed(item: Container, **changes: Any) -> Container:
    return replace(item, **changes)


RUNNING = current("brain")
STOPPED = current("brain", status="exited")
OUTCOMES: dict[str, tuple[list[Container], list[Container], str]] = {
    "nothing": ([RUNNING], [RUNNING], "none"),
    "still absent": ([], [], "none"),
    "created": ([], [RUNNING], "create"),
    "replaced": ([RUNNING], [changed(RUNNING, id="new")], "recreate"),
    "replaced while stopped": ([STOPPED], [changed(RUNNING, id="new")], "recreate"),
    "started": ([STOPPED], [changed(RUNNING, started_at=NOW)], "start"),
    "stopped": ([RUNNING], [STOPPED], "stop"),
    "restarted": ([RUNNING], [changed(RUNNING, started_at=NOW)], "restart"),
    "ran to its end": ([STOPPED], [changed(STOPPED, started_at=NOW)], "start"),
    "scaled": ([RUNNING], [RUNNING, changed(RUNNING, id="new", name="brain-2")], "recreate"),
}


@pytest.mark.parametrize(("before", "after", "done"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_what_is_reported_is_what_the_containers_tell(
    before: list[Container], after: list[Container], done: str
) -> None:
    predicted = Action("brain", "whatever", "asked for", "running")
    assert operations._outcome(predicted, before, after) == Action("brain", done, "asked for", "running")


class DoingCli(FakeCli):
    """Compose that does what it is asked to."""

    engine: Any

    def up(self, project: str, services: Sequence[str] = (), **options: Any) -> None:
        super().up(project, services, **options)
        for name in services or self.services:
            [*there] = [item for item in self.engine.containers if item.service == name]
            fresh = current(name, id=f"new-{name}", started_at=NOW)
            stale = not there or there[0].labels != fresh.labels or options.get("recreate")
            if stale:
                self.engine.put(fresh)
            elif not there[0].running:
                self.engine.change(name, status="running", started_at=NOW)

    def stop(self, project: str, services: Sequence[str] = (), **options: Any) -> None:
        super().stop(project, services, **options)
        for name in services or self.services:
            self.engine.change(name, status="exited")

    def restart(self, project: str, services: Sequence[str] = (), **options: Any) -> None:
        super().restart(project, services, **options)
        for name in services or self.services:
            self.engine.change(name, status="running", started_at=NOW)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("case", DECISIONS.values(), ids=DECISIONS.keys())
def test_what_is_predicted_is_what_happens(case: tuple[Any, ...], state: str) -> None:
    changes, predicted = case[0], case[1 + STATES.index(state)]
    if predicted == "-":
        return
    result = made([] if changes is None else [current("brain", **changes)])
    doing = DoingCli(SERVICES)
    doing.engine = result.engine
    result._cli = doing  # type: ignore[assignment]
    result.clock.sleep(5)
    planned = plan(result, state, ["brain"])
    if predicted == "none" and state == "started" and changes:  # paused, or forever restarting: said at once
        with pytest.raises(Unhealthy, match=r"The service brain is (paused \(docker unpause brain\)|restarting)"):
            apply(result, planned)
        return
    [done] = apply(result, planned)
    assert done.action == predicted
