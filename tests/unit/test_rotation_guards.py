# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forbids a rotation to begin; a guard that cannot be asked forbids it, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Refused
from ansible_collections.titan.ops.plugins.module_utils.rotation import hmac
from ansible_collections.titan.ops.plugins.module_utils.rotation.drain import Drain
from ansible_collections.titan.ops.plugins.module_utils.rotation.guards import (
    Guard,
    check_guards,
    check_replacement,
    check_well,
)
from ansible_collections.titan.ops.plugins.module_utils.rotation.hmac_options import HmacOptions
from ansible_collections.titan.ops.tests.unit.fake_host import OLD, SERVICES, Host
from ansible_collections.titan.ops.tests.unit.loopback import serve

BRAIN, EXECUTION, OPSD = "titan-brain", "titan-execution", "titan-opsd"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "titan")


def options(**changes: Any) -> HmacOptions:
    return HmacOptions(**{"drain": Drain(enabled=False), "probes": (), "counters": (), **changes})


def refusal(host: Host, chosen: HmacOptions | None = None) -> str:
    with pytest.raises(Refused) as caught:
        hmac.plan(host.stack(), chosen or options())
    assert "Nothing was changed." in str(caught.value)
    assert OLD not in str(caught.value)
    return str(caught.value)


def test_an_armed_engine_refuses_the_rotation_and_says_how_to_go_on(host: Host) -> None:
    host.layer(EXECUTION)["/app/execution.armed"] = b""
    said = refusal(host)
    assert said.startswith(
        "HMAC_SECRET is not rotated: The trading engine is armed: /app/execution.armed exists in titan-execution."
    )
    assert "docker exec titan-execution rm /app/execution.armed" in said
    assert "force: true" in said


def test_force_goes_on_and_warns(host: Host) -> None:
    host.layer(EXECUTION)["/app/execution.armed"] = b""
    [warning] = hmac.plan(host.stack(), options(force=True)).warnings
    assert warning.startswith("Forced although: The trading engine is armed")


def test_a_stack_that_is_not_well_is_left_alone_and_every_trouble_is_named(host: Host) -> None:
    host.one(BRAIN)["State"]["Health"]["Status"] = "unhealthy"
    host.one(EXECUTION)["State"]["Status"] = "restarting"
    host.one(OPSD)["State"]["Health"]["Status"] = "starting"
    said = refusal(host)
    assert "titan-brain runs, but its health check says unhealthy." in said
    assert "titan-execution is restarting." in said
    assert "titan-opsd runs, but its health check says starting." in said
    host.remove(host.one(BRAIN)["Id"])
    assert "titan-brain has no container." in refusal(host)


def test_every_reason_of_every_kind_is_told_at_once(host: Host) -> None:
    host.layer(EXECUTION)["/app/execution.armed"] = b""
    host.one(BRAIN)["State"]["Health"]["Status"] = "unhealthy"
    host.images["titan/opsd:1"] = "sha256:another"
    with pytest.raises(Refused) as caught:
        hmac.plan(host.stack(), options())
    reasons = caught.value.facts["reasons"]
    assert len(reasons) == 3
    assert reasons[0].startswith("The trading engine is armed: ")
    assert reasons[1] == "titan-brain runs, but its health check says unhealthy."
    assert reasons[2].startswith("titan/opsd:1 is another image by now than the one that titan-opsd runs")
    assert all(reason in str(caught.value) for reason in reasons)
    warnings = hmac.plan(host.stack(), options(force=True)).warnings
    assert list(warnings) == [f"Forced although: {reason}" for reason in reasons]


@pytest.mark.parametrize("service", [BRAIN, OPSD])
def test_another_image_would_come_with_the_secret_so_it_refuses_the_rotation(host: Host, service: str) -> None:
    host.images[SERVICES[service]["image"]] = "sha256:another"
    said = refusal(host)
    assert f"is another image by now than the one that {service} runs: recreate {service} first." in said
    assert "force: true" in said
    [warning] = hmac.plan(host.stack(), options(force=True)).warnings
    assert warning.startswith("Forced although: titan/")


@pytest.mark.parametrize("status", ["exited", "created", "dead"])
def test_another_holder_that_does_not_run_is_no_reason(host: Host, status: str) -> None:
    host.one(OPSD)["State"]["Status"] = status
    assert hmac.plan(host.stack(), options()).warnings == (
        "titan-opsd does not run: it gets the new secret and stays stopped",
    )


@pytest.mark.parametrize("status", ["paused", "restarting"])
def test_another_holder_that_runs_badly_is_a_reason(host: Host, status: str) -> None:
    host.one(OPSD)["State"]["Status"] = status
    assert f"titan-opsd is {status}." in refusal(host)


@pytest.mark.parametrize("status", ["exited", "created", "paused", "restarting", "dead"])
def test_only_a_running_container_is_well(host: Host, status: str) -> None:
    host.one(BRAIN)["State"]["Status"] = status
    assert check_well(host.stack(), [BRAIN, EXECUTION]) == [f"titan-brain is {status}."]


def test_a_health_check_that_is_not_there_or_passes_is_fine(host: Host) -> None:
    host.one(BRAIN)["State"].pop("Health")
    assert check_well(host.stack(), [BRAIN, EXECUTION]) == []


def test_a_service_that_is_not_touched_may_be_as_ill_as_it_likes(host: Host) -> None:
    host.one("titan-nats")["State"]["Health"]["Status"] = "unhealthy"
    hmac.plan(host.stack(), options())


def test_an_image_that_is_not_here_forbids_and_a_pending_change_warns(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_replacement(host.stack(), [BRAIN]) == ([], [], [])
    monkeypatch.setitem(SERVICES, BRAIN, {**SERVICES[BRAIN], "stop_grace_period": "50s"})
    assert check_replacement(host.stack(), [BRAIN, EXECUTION]) == (
        [],
        [],
        ["titan-brain: its configuration changed since it was made; its replacement applies that, too"],
    )
    stack = host.stack()
    stack.engine.image_id = lambda image: None  # type: ignore[method-assign]
    forbidding, changing, _pending = check_replacement(stack, [EXECUTION])
    assert forbidding == [
        "The image titan/execution:1 of titan-execution is not on this host (docker pull titan/execution:1)."
    ]
    assert changing == []
    with pytest.raises(Refused, match="not on this host") as caught:
        hmac.plan(stack, options(force=True))
    assert "force: true" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "forbids"),
    [
        ((200, {"engine": {"armed": True}}), "Armed: engine.armed is true at titan-brain:"),
        ((503, {"engine": {"armed": True}}), "Armed: engine.armed is true at titan-brain:"),
        ((200, {"engine": {"armed": False}}), None),
        ((503, {"engine": {"armed": False}}), None),
        ((200, {"engine": {"armed": "true"}}), "Armed: engine.armed is true at titan-brain:"),
        ((200, {"engine": {"armed": None}}), None),
        ((200, {"engine": {}}), "cannot be asked (status 200, no field engine.armed)"),
        ((200, {"engine": True}), "cannot be asked (status 200, no field engine.armed)"),
        ((500, b"<html>"), "cannot be asked (status 500, no field engine.armed)"),
        ((404, [1]), "cannot be asked (status 404, no field engine.armed)"),
    ],
)
def test_a_field_of_an_http_answer_forbids_by_its_value_or_when_it_is_not_there(
    host: Host, answer: tuple[int, Any], forbids: str | None
) -> None:
    host.address = "127.0.0.1"
    host.stop(host.one(BRAIN)["Id"])
    host.start(host.one(BRAIN)["Id"])
    with serve(lambda request: answer if request.path == "/status" else (404, b"")) as port:
        guard = Guard(
            BRAIN, "/status", port=port, field="engine.armed", value="true", reason="Armed", hint="Disarm it."
        )
        reasons = check_guards(host.stack(), [guard])
    if forbids is None:
        assert reasons == []
    else:
        [reason] = reasons
        assert forbids in reason
        assert reason.endswith("Disarm it.")


def test_a_guard_whose_service_does_not_answer_forbids(host: Host) -> None:
    host.address = "127.0.0.1"
    host.stop(host.one(BRAIN)["Id"])
    guard = Guard(BRAIN, "/status", port=1, field="armed", value="true")
    [reason] = check_guards(host.stack(), [guard])
    assert "has no running container" in reason
    host.start(host.one(BRAIN)["Id"])
    [reason] = check_guards(host.stack(), [guard])
    assert "cannot be asked" in reason
    assert "Connection refused" in reason


def test_a_guard_of_an_unknown_service_is_a_mistake(host: Host) -> None:
    with pytest.raises(InvalidInput, match="no service or container named titan-brian"):
        check_guards(host.stack(), [Guard("titan-brian", "/x")])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Guard("a", "/status", port=3100),
        lambda: Guard("a", "/status", port=3100, field="armed"),
        lambda: Guard("a", "/status", port=3100, value="true"),
        lambda: Guard("a", "/app/file", field="armed", value="true"),
    ],
)
def test_a_guard_that_could_never_forbid_anything_is_a_mistake(make: Callable[[], Guard]) -> None:
    with pytest.raises(InvalidInput, match="port, field and value belong together"):
        make()
