# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database's container is brought up, whatever state it is in; and not waited for where it will not come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.container import Container
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.database.login import LoginFailed
from ansible_collections.titan.ops.plugins.module_utils.database.server import Server, Target
from ansible_collections.titan.ops.plugins.module_utils.rotation import pg
from ansible_collections.titan.ops.tests.unit import fakes
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock, FakeEngine, container

DATABASE = "titan-postgres"


class Engine(FakeEngine):
    """With what a paused container and a start of several need."""

    def unpause(self, name: str) -> None:
        self._answer("unpause", self._find(name).name)
        self.change(name, status="running")

    def start_together(self, names: Sequence[str]) -> None:
        for name in names:
            self.start(name)


def server(*containers: Container) -> tuple[Server, Engine, FakeClock]:
    stack = fakes.stack({DATABASE: {"image": "postgres:17"}})
    engine: Any = Engine(containers)
    stack.engine = engine
    clock: Any = stack.clock
    return Server(stack, Target()), engine, clock


@pytest.mark.parametrize("status", ["exited", "dead", "created"])
def test_one_that_has_ended_is_started(status: str) -> None:
    database, engine, _clock = server(container(DATABASE, status=status))
    assert database.wake(timeout=5) is True
    assert engine.calls == [("start", DATABASE)]
    assert database.running()
    assert database.wake(timeout=5) is False


def test_one_that_is_paused_goes_on() -> None:
    database, engine, _clock = server(container(DATABASE, status="paused"))
    assert database.wake(timeout=5) is True
    assert engine.calls == [("unpause", DATABASE)]
    assert database.running()


def test_one_that_docker_restarts_is_waited_for() -> None:
    database, engine, clock = server(container(DATABASE, status="restarting"))
    clock.on_sleep = lambda: engine.change(DATABASE, status="running")
    assert database.wake(timeout=5) is True
    assert engine.calls == []
    assert database.running()


def test_one_that_does_not_come_up_is_told() -> None:
    database, _engine, _clock = server(container(DATABASE, status="restarting"))
    with pytest.raises(OpsError, match="titan-postgres is restarting after 5 seconds"):
        database.wake(timeout=5)
    database, _engine, _clock = server()
    with pytest.raises(OpsError, match="has no container"):
        database.wake(timeout=5)


@pytest.mark.parametrize("status", ["exited", "paused", "dead"])
def test_a_login_is_not_tried_for_minutes_where_the_container_has_ended(status: str) -> None:
    database, _engine, clock = server(container(DATABASE, status=status))
    with pytest.raises(LoginFailed, match="does not run"):
        database.accepts("x", timeout=300)
    assert clock.sleeps == []


def test_a_login_is_tried_again_while_docker_restarts_it() -> None:
    database, _engine, clock = server(container(DATABASE, status="restarting"))
    with pytest.raises(LoginFailed, match="does not run"):
        database.accepts("x", timeout=30)
    assert sum(clock.sleeps) == pytest.approx(30)


def test_one_that_ends_after_it_was_looked_at_is_brought_up_once_more() -> None:
    """A stop takes its time: the container runs, and then it does not."""
    database, engine, _clock = server(container(DATABASE))
    asked: list[str] = []

    def ask() -> bool:
        asked.append(engine.containers[0].status)
        if len(asked) == 1:
            engine.change(DATABASE, status="exited")
            raise LoginFailed("Connection refused", passing=True)
        return True

    assert pg.awake(database, ask, 5) is True
    assert asked == ["running", "running"]
    assert engine.calls == [("start", DATABASE)]


def test_one_that_ends_again_and_again_is_told() -> None:
    database, engine, _clock = server(container(DATABASE))

    def ask() -> bool:
        engine.change(DATABASE, status="exited")
        raise LoginFailed("Connection refused", passing=True)

    with pytest.raises(OpsError, match="The database titan-postgres ends again and again"):
        pg.awake(database, ask, 5)
    assert len(engine.calls) == 2


@pytest.mark.parametrize("failure", [LoginFailed("no role", wrong_password=True), LoginFailed("slow", passing=True)])
def test_what_has_another_cause_is_told_at_once(failure: LoginFailed) -> None:
    database, _engine, _clock = server(container(DATABASE))

    def ask() -> bool:
        raise failure

    with pytest.raises(LoginFailed) as caught:
        pg.awake(database, ask, 5)
    assert caught.value is failure
