# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Docker daemon is restarted while a rotation is under way: the undo waits for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests.exceptions

from ansible_collections.titan.ops.plugins.module_utils.compose.engine import Engine, EngineGone
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.rotation import transaction
from ansible_collections.titan.ops.tests.unit import test_rotation_pg
from ansible_collections.titan.ops.tests.unit.fake_host import OLD, Host
from ansible_collections.titan.ops.tests.unit.rotating import (
    BRAIN,
    EXECUTION,
    NEW,
    Process,
    assert_one_secret,
    direct,
    let_live,
    new_host,
    options,
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return new_host(tmp_path / "titan", monkeypatch)


def dies(host: Host, number: int, *, back_after: float, policy: str = "unless-stopped") -> Callable[[], None]:
    """The daemon goes before the operation of that number, once, and is back after so many seconds."""
    for raw in host.containers.values():
        raw["HostConfig"]["RestartPolicy"]["Name"] = policy
    since: list[float] = []

    def at(now: int, name: str) -> None:
        if now >= number and not since and name.split()[0] not in ("write", "rename", "delete"):
            since.append(host.clock.monotonic())
            host.gone = True

    def passing() -> None:
        if host.gone and host.clock.monotonic() - since[0] >= back_after:
            host.clock.on_sleep = lambda: None
            host.restart_docker()
            host.clock.on_sleep = passing

    host.at, host.clock.on_sleep = at, passing
    return lambda: None


@pytest.mark.parametrize("policy", ["unless-stopped", "always", "no"])
def test_whenever_the_daemon_is_restarted_the_same_run_undoes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    undone = 0
    for number in range(2, 60):
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)
        dies(host, number, back_after=8, policy=policy)
        try:
            Process(host, options()).rotate()
            break
        except OpsError as exc:
            assert exc.facts["rolled_back"] is True, str(exc)
            assert "It was undone" in str(exc)
            undone += 1
        for raw in host.containers.values():  # what is none of the rotation's is nobody's to start
            if policy == "no" and raw["Name"] == "/titan-nats":
                host.start(raw["Id"])
        host.one("titan-nats")["State"]["StartedAt"] = "2026-02-06T14:03:12Z"
        assert_one_secret(host, OLD)
    assert undone > 15


def test_whenever_the_daemon_is_restarted_the_password_is_the_old_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone = 0
    for number in range(2, 60):
        monkeypatch.undo()
        run = test_rotation_pg.made(tmp_path / str(number), monkeypatch)
        dies(run.host, number, back_after=8, policy="no")  # nor does the database come up by itself
        try:
            run.rotate()
            break
        except OpsError as exc:
            assert exc.facts["rolled_back"] is True, str(exc)
            undone += 1
        let_live(run.host)
        for raw in list(run.host.containers.values()):
            if raw["Name"] == "/titan-nats":
                run.host.start(raw["Id"])
        run.assert_one_secret(test_rotation_pg.OLD)
    assert undone > 15


def test_a_daemon_that_does_not_come_back_is_told_and_the_next_run_recovers(host: Host) -> None:
    dies(host, 6, back_after=1e9)
    began = host.clock.monotonic()
    with pytest.raises(OpsError) as caught:
        Process(host, options(health_timeout=30)).rotate()
    assert caught.value.facts["rolled_back"] is False
    said = str(caught.value)
    assert "Undoing it failed, too: The Docker Engine did not come back within 30 seconds" in said
    assert "the journal" in said
    assert "Start it (systemctl start docker) and run the same playbook again" in said
    assert 30 <= host.clock.monotonic() - began < 45
    let_live(host)
    host.restart_docker()
    host.one("titan-nats")["State"]["StartedAt"] = "2026-02-06T14:03:12Z"
    assert Process(host, options()).recover() == "undone"
    assert_one_secret(host, OLD)


def test_a_daemon_that_goes_during_the_undo_is_waited_for_as_well(host: Host) -> None:
    def fail() -> None:
        dies(host, len(host.operations) + 2, back_after=5)
        raise OpsError("3 messages were not worked off")

    with pytest.raises(OpsError, match=r'failed at "drain": 3 messages were not worked off\. It was undone') as caught:
        direct(host, drain=fail).run()
    assert caught.value.facts["rolled_back"] is True
    assert caught.value.facts["steps"].count("undo") == 1
    host.one("titan-nats")["State"]["StartedAt"] = "2026-02-06T14:03:12Z"
    assert_one_secret(host, OLD)


def test_an_engine_that_answers_and_breaks_off_again_and_again_is_asked_with_pauses(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def broken_off(_self: object) -> None:
        asked.append(host.clock.monotonic())
        assert len(asked) < 1000, "it is asked without a pause"
        raise EngineGone("Connection aborted")

    def fail() -> None:
        raise OpsError("3 messages were not worked off")

    monkeypatch.setattr(transaction.Transaction, "_rollback", broken_off)
    with pytest.raises(OpsError, match="Undoing it failed, too: Connection aborted") as caught:
        direct(host, drain=fail).run()
    assert caught.value.facts["rolled_back"] is False
    assert 5 <= len(asked) <= 15
    assert asked[-1] - asked[0] >= 20


def test_services_that_the_daemon_started_again_while_it_drained_are_noticed(host: Host) -> None:
    """Nothing failed: it was restarted between two questions. Brain signs with the old secret again."""
    for raw in host.containers.values():
        raw["HostConfig"]["RestartPolicy"]["Name"] = "always"
    stopped: list[str] = []

    def at(_now: int, name: str) -> None:
        if name == f"stop {EXECUTION}" and not stopped:
            stopped.append(name)
            host.restart_docker()

    host.at = at
    with pytest.raises(OpsError, match=f"{BRAIN} was started again by somebody else while") as caught:
        Process(host, options()).rotate()
    assert caught.value.facts["rolled_back"] is True
    assert "rename .env.prod" not in host.operations
    assert NEW not in str(host.containers)


class Api:
    """Answers everything with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, _name: str) -> Any:
        def call(*_args: Any, **_options: Any) -> None:
            raise self.error

        return call


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (requests.exceptions.ConnectionError("Connection aborted."), True),
        (requests.exceptions.ReadTimeout("read timed out"), True),
        (docker.errors.APIError("no such thing"), False),
    ],
)
def test_an_engine_that_is_gone_is_told_from_one_that_refuses(error: Exception, gone: bool) -> None:
    engine = Engine(Api(error))
    assert engine.answers() is False
    for call in (
        lambda: engine.start("x"),
        lambda: engine.start_together(["x", "y"]),
        lambda: engine.stop_together({"x": 1.0}),
        lambda: engine.unpause("x"),
        engine.version,
    ):
        with pytest.raises(OpsError) as caught:
            call()
        assert isinstance(caught.value, EngineGone) is gone
