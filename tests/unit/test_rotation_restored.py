# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""As it was before: what was ill, stopped or not there at all, and each container's own files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.clock import wait_for
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.rotation import hmac
from ansible_collections.titan.ops.tests.unit.fake_host import ENV, OLD, SERVICES, Host, Killed
from ansible_collections.titan.ops.tests.unit.rotating import (
    BRAIN,
    EXECUTION,
    GROUPS,
    HALT,
    HOLDERS,
    NEW,
    OPSD,
    REDB,
    Process,
    assert_one_secret,
    direct,
    kill_at,
    killed_before,
    let_live,
    new_host,
    options,
    start_by_hand,
)

THIRD = "3" * 64


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = new_host(tmp_path / "titan", monkeypatch)
    yield made


def refuse_new(right: str, _wrong: str, _services: Sequence[str]) -> None:
    """A proof that fails when all is done, and then passes with the old secret."""
    if right == NEW:
        raise OpsError("refused with status 401")


def status(host: Host, service: str) -> str:
    return str(host.one(service)["State"]["Status"])


def saved(host: Host) -> list[str]:
    return sorted(path.name for path in (host.src / "state").glob("*.files/*"))


# Files of the containers' own layers


def test_whoever_starts_the_new_containers_after_a_kill_the_halt_is_in_them(host: Host) -> None:
    killed_before(host, f"start {BRAIN}", options())
    start_by_hand(host, BRAIN, EXECUTION)
    assert host.layer(EXECUTION)[HALT] == b"halted by the operator"
    assert Process(host, options()).recover() == "finished"
    assert_one_secret(host, NEW)


def test_a_new_container_that_was_started_before_its_files_were_in_it_gets_them_from_the_recovery(host: Host) -> None:
    host.layer(EXECUTION)[REDB] = b"positions"
    killed_before(host, f"put files into {EXECUTION}", options())
    start_by_hand(host, BRAIN, EXECUTION)
    assert HALT not in host.layer(EXECUTION)
    host.layer(EXECUTION)[REDB] = b"positions since"
    assert Process(host, options()).recover() == "finished"
    assert host.layer(EXECUTION)[REDB] == b"positions since"
    assert_one_secret(host, NEW)


def test_the_halt_survives_when_only_some_new_containers_exist_and_one_was_started(host: Host) -> None:
    """Compose makes them in no order of ours: then the rotation is undone, from a container without the file."""
    chosen = options(services=(EXECUTION, BRAIN))
    killed_before(host, f"Compose creates {BRAIN}", chosen)
    start_by_hand(host, EXECUTION)
    assert HALT not in host.layer(EXECUTION)
    assert Process(host, chosen).recover() == "undone"
    assert_one_secret(host, OLD)


def test_a_halt_that_was_lifted_in_the_old_container_after_a_kill_stays_lifted(host: Host) -> None:
    killed_before(host, f"Compose creates {BRAIN}", options())
    start_by_hand(host, BRAIN, EXECUTION)
    del host.layer(EXECUTION)[HALT]
    assert Process(host, options()).recover() == "undone"
    assert host.layer(EXECUTION) == {}


def test_the_halt_survives_a_recreation_by_hand_with_a_third_secret(host: Host) -> None:
    killed_before(host, f"Compose creates {BRAIN}", options())
    assert saved(host) == [f"{EXECUTION}-1{HALT.replace('/', '%')}.tar"]
    host.env_file.write_bytes(ENV.replace(OLD, THIRD).encode())
    host.remake(*HOLDERS)
    assert Process(host, options()).recover() == "superseded"
    assert host.layer(EXECUTION) == {HALT: b"halted by the operator"}


def test_files_of_a_holder_that_does_not_run_are_carried_into_the_new_container_and_back(host: Host) -> None:
    host.stop(host.one(EXECUTION)["Id"])
    chosen = options("brain alone")
    with pytest.raises(OpsError, match="It was undone"):
        direct(host, chosen=chosen, prove=refuse_new).run()
    assert host.layer(EXECUTION) == {HALT: b"halted by the operator"}
    outcome = direct(host, chosen=chosen).run()
    assert outcome.carried == {EXECUTION: [HALT]}
    assert host.layer(EXECUTION) == {HALT: b"halted by the operator"}
    assert status(host, EXECUTION) != "running"


@pytest.fixture
def replicas(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Two of execution, each with files of its own."""
    monkeypatch.setitem(SERVICES, EXECUTION, {**SERVICES[EXECUTION], "scale": 2})
    host.remake(EXECUTION)
    layers = own_files(host)
    layers[0].update({HALT: b"first"})
    layers[1].update({HALT: b"second", REDB: b"positions"})
    return host


def own_files(host: Host) -> list[dict[str, bytes]]:
    return [host.layers[raw["Id"]] for raw in sorted(host.of(EXECUTION), key=lambda raw: str(raw["Name"]))]


def test_each_replica_keeps_its_own_files(replicas: Host) -> None:
    before = {raw["Id"] for raw in replicas.of(EXECUTION)}
    outcome = Process(replicas, options()).rotate()
    assert own_files(replicas) == [{HALT: b"first"}, {HALT: b"second", REDB: b"positions"}]
    assert len(replicas.of(EXECUTION)) == 2
    assert not {raw["Id"] for raw in replicas.of(EXECUTION)} & before
    assert outcome.carried == {EXECUTION: [HALT, REDB]}


def test_each_replica_has_its_own_files_again_after_an_undo(replicas: Host) -> None:
    with pytest.raises(OpsError, match="It was undone"):
        direct(replicas, prove=refuse_new).run()
    assert own_files(replicas) == [{HALT: b"first"}, {HALT: b"second", REDB: b"positions"}]
    assert all(f"HMAC_SECRET={OLD}" in raw["Config"]["Env"] for raw in replicas.of(EXECUTION))
    assert all(raw["State"]["Status"] == "running" for raw in replicas.of(EXECUTION))


# What was not well before


def always_ill(service: str, _environment: Mapping[str, str]) -> bool:
    return service == BRAIN


@pytest.fixture
def ill(host: Host) -> Host:
    """Brain is unhealthy, whatever its secret."""
    host.sick = always_ill
    host.remake(BRAIN)
    return host


def test_a_service_that_was_ill_is_switched_when_forced_and_need_not_be_well(ill: Host) -> None:
    proved: list[tuple[str, ...]] = []
    chosen = options(force=True)
    with pytest.raises(Refused, match="titan-brain runs, but its health check says unhealthy"):
        hmac.plan(ill.stack(), options())
    direct(ill, chosen=chosen, prove=lambda right, wrong, services: proved.append(tuple(services))).run()
    assert proved == [(EXECUTION, OPSD)]
    assert_one_secret(ill, NEW)


def test_a_service_that_was_ill_does_not_keep_the_undo_from_succeeding(ill: Host) -> None:
    proved: list[tuple[str, ...]] = []

    def prove(right: str, wrong: str, services: Sequence[str]) -> None:
        proved.append(tuple(services))
        refuse_new(right, wrong, services)

    with pytest.raises(OpsError) as caught:
        direct(ill, chosen=options(force=True), prove=prove).run()
    assert caught.value.facts["rolled_back"] is True
    assert "they are healthy again, except what was not before (titan-brain)" in str(caught.value)
    assert all(BRAIN not in services for services in proved)
    assert_one_secret(ill, OLD)


@pytest.mark.parametrize("ends", ["well", "undone"])
def test_a_service_that_had_no_container_has_one_after_a_forced_rotation_and_none_after_its_undo(
    host: Host, ends: str
) -> None:
    host.remove(host.one(BRAIN)["Id"])
    chosen = options(force=True)
    if ends == "well":
        direct(host, chosen=chosen).run()
        assert_one_secret(host, NEW)
        return
    with pytest.raises(OpsError) as caught:
        direct(host, chosen=chosen, prove=refuse_new).run()
    assert caught.value.facts["rolled_back"] is True, str(caught.value)
    assert host.of(BRAIN) == []
    assert host.environment(EXECUTION)["HMAC_SECRET"] == OLD


def test_a_service_that_is_new_to_a_forced_rotation_must_become_well(host: Host) -> None:
    host.remove(host.one(BRAIN)["Id"])
    host.sick = always_ill
    with pytest.raises(OpsError, match="titan-brain is unhealthy") as caught:
        direct(host, chosen=options(force=True)).run()
    assert caught.value.facts["rolled_back"] is True
    assert host.of(BRAIN) == []


def test_a_service_that_was_stopped_is_stopped_again_after_the_undo(host: Host) -> None:
    host.stop(host.one(EXECUTION)["Id"])
    with pytest.raises(OpsError, match="It was undone"):
        direct(host, chosen=options(force=True), prove=refuse_new).run()
    assert status(host, EXECUTION) in ("created", "exited")
    assert host.layer(EXECUTION)[HALT] == b"halted by the operator"


# Other holders that do not run


@pytest.fixture(params=["stopped on purpose", "a finished job"])
def idle(host: Host, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Host:
    """opsd does not run."""
    if request.param == "a finished job":
        monkeypatch.setitem(SERVICES, OPSD, {**SERVICES[OPSD], "restart": "no"})
        host.remake(OPSD)
    host.stop(host.one(OPSD)["Id"])
    return host


def test_a_holder_that_does_not_run_gets_the_new_secret_and_is_not_started(idle: Host) -> None:
    planned = hmac.plan(idle.stack(), options())
    assert planned.warnings == ("titan-opsd does not run: it gets the new secret and stays stopped",)
    Process(idle, options()).rotate()
    assert idle.environment(OPSD) == {"OPS_SECRET": NEW}
    assert status(idle, OPSD) == "created"
    assert status(idle, BRAIN) == "running"
    stack = idle.stack()  # one that was made and never started is no trouble either
    hmac.apply(stack, options(), hmac.plan(stack, options()), token_hex=lambda _bytes: OLD)
    assert idle.environment(OPSD) == {"OPS_SECRET": OLD}
    assert status(idle, OPSD) == "created"


def test_a_holder_that_did_not_run_is_not_started_by_the_undo(idle: Host) -> None:
    asked: list[Sequence[str]] = []

    def prove(right: str, wrong: str, services: Sequence[str]) -> None:
        asked.append(services)
        refuse_new(right, wrong, services)

    with pytest.raises(OpsError) as caught:
        direct(idle, prove=prove).run()
    assert caught.value.facts["rolled_back"] is True
    assert idle.environment(OPSD) == {"OPS_SECRET": OLD}
    assert status(idle, OPSD) == "created"
    assert status(idle, BRAIN) == "running"
    assert all(OPSD not in services for services in asked)


def test_whenever_it_is_killed_a_holder_that_did_not_run_is_never_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = set()
    number = 0
    while True:
        number += 1
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)
        host.stop(host.one(OPSD)["Id"])
        kill_at(host, number)
        try:
            Process(host, options()).rotate()
            break
        except Killed:
            let_live(host)
        ends.add(Process(host, options()).recover())
        value = NEW if NEW in host.env_file.read_text() else OLD
        assert host.environment(OPSD) == {"OPS_SECRET": value}
        assert host.environment(BRAIN)["HMAC_SECRET"] == value
        assert "start titan-opsd" not in host.operations
        assert status(host, BRAIN) == status(host, EXECUTION) == "running"
    assert ends == {None, "undone", "finished"}


@pytest.mark.parametrize("force", [True, False])
def test_a_holder_without_a_container_needs_none(host: Host, force: bool) -> None:
    host.remove(host.one(OPSD)["Id"])
    chosen = options(force=force)
    planned = hmac.plan(host.stack(), chosen)
    assert planned.warnings == ("titan-opsd has no container: it gets the new secret when one is made",)
    assert [item["action"] for item in planned.holders()] == ["switched", "switched", "none"]
    with pytest.raises(OpsError) as caught:
        direct(host, chosen=chosen, prove=refuse_new).run()
    assert caught.value.facts["rolled_back"] is True, str(caught.value)
    Process(host, chosen).rotate()
    assert host.of(OPSD) == []
    assert host.environment(BRAIN)["HMAC_SECRET"] == NEW


def test_the_other_holders_are_not_touched_before_the_switched_services_are_well(host: Host) -> None:
    host.sick = lambda service, environment: service == EXECUTION and NEW in environment.values()
    with pytest.raises(OpsError, match=r'failed at "start": The service titan-execution is unhealthy'):
        Process(host, options()).rotate()
    assert not [item for item in host.operations if item.endswith(OPSD)]
    assert_one_secret(host, OLD)


# Another value than the file's


def test_services_that_were_made_with_another_value_than_the_file_has_are_refused(host: Host) -> None:
    host.env_file.write_bytes(ENV.replace(OLD, THIRD).encode())
    host.remake(EXECUTION, OPSD)
    with pytest.raises(Refused) as caught:
        hmac.plan(host.stack(), options(force=True))
    assert "they hold another HMAC_SECRET: titan-brain. Nothing was changed." in str(caught.value)
    assert "Recreate them first" in str(caught.value)
    assert OLD not in str(caught.value)
    assert THIRD not in str(caught.value)


def test_another_holder_that_was_made_with_another_value_gets_the_new_one_and_by_an_undo_its_own(host: Host) -> None:
    host.one(OPSD)["Config"]["Env"] = [f"OPS_SECRET={THIRD}"]
    planned = hmac.plan(host.stack(), options())
    assert planned.warnings == ("titan-opsd holds another HMAC_SECRET than the env file says",)
    with pytest.raises(OpsError) as caught:
        direct(host, prove=refuse_new).run()
    assert caught.value.facts["rolled_back"] is True
    assert host.environment(OPSD) == {"OPS_SECRET": THIRD}
    direct(host).run()
    assert host.environment(OPSD) == {"OPS_SECRET": NEW}


@pytest.mark.parametrize("group", GROUPS)
def test_a_third_value_that_everyone_carries_by_now_ends_the_interrupted_rotation(host: Host, group: str) -> None:
    killed_before(host, f"Compose creates {BRAIN}", options(group))
    host.env_file.write_bytes(ENV.replace(OLD, THIRD).encode())
    host.remake(*HOLDERS)
    ids = {name: host.one(name)["Id"] for name in HOLDERS}
    assert Process(host, options(group)).recover() == "superseded"
    assert host.env_file.read_bytes() == ENV.replace(OLD, THIRD).encode()
    assert {name: host.one(name)["Id"] for name in HOLDERS} == ids
    assert {path.suffix for path in (host.src / "state").iterdir()} == {".ended"}
    result = hmac.rotate(host.stack(), options(group))
    assert result["recovered"] is None


def test_a_rotation_says_that_it_found_one_that_was_superseded(host: Host) -> None:
    killed_before(host, f"Compose creates {BRAIN}", options())
    host.env_file.write_bytes(ENV.replace(OLD, THIRD).encode())
    host.remake(*HOLDERS)
    result = hmac.rotate(host.stack(), options())
    assert result["recovered"] == "superseded"
    assert result["warnings"] == ["An interrupted rotation was found and superseded first."]
    assert THIRD not in host.env_file.read_text()


def test_a_third_value_that_not_everyone_carries_is_nobodys_to_judge(host: Host) -> None:
    killed_before(host, f"Compose creates {BRAIN}", options())
    third = ENV.replace(OLD, THIRD).encode()
    host.env_file.write_bytes(third)
    host.remake(BRAIN, EXECUTION)
    with pytest.raises(OpsError) as caught:
        Process(host, options()).recover()
    said = str(caught.value)
    assert "An interrupted rotation of HMAC_SECRET was found and could not be undone: " in said
    assert "neither the value from before the rotation nor the new one" in said
    assert "The env file was left as it is. The stack may be stopped or hold two values" in said
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Decide by hand which secret is right: write it there, recreate every holder")
    assert host.env_file.read_bytes() == third
    host.remake(OPSD)  # as the hint says
    assert Process(host, options()).recover() == "superseded"


# Asked to end


class Term:
    """SIGTERM came before the question of that number; counts the questions."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked >= self.number


def test_a_request_to_end_is_heard_at_every_step_and_undoes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal = new_host(tmp_path / "rehearsal", monkeypatch)
    never = Term(1000)
    steps = direct(rehearsal, cancelled=never).run().steps
    assert never.asked == len(steps) == 9
    for number, step in enumerate(steps, start=1):
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)
        term = Term(number)
        with pytest.raises(OpsError) as caught:
            direct(host, cancelled=term).run()
        assert str(caught.value).startswith(
            f'The rotation of HMAC_SECRET failed at "{step}": It was asked to end by a signal. It was undone: '
        )
        assert caught.value.facts["rolled_back"] is True
        assert caught.value.facts["steps"] == [*steps[:number], "undo"]
        assert term.asked == number  # and not again during the undo
        assert_one_secret(host, OLD)


def test_the_whole_operation_passes_the_question_on(host: Host) -> None:
    with pytest.raises(OpsError, match=r"It was asked to end by a signal\. It was undone"):
        hmac.rotate(host.stack(), options(), cancelled=lambda: True)
    assert_one_secret(host, OLD)


def test_a_recovery_goes_to_its_end_and_then_the_request_is_heard(host: Host) -> None:
    killed_before(host, f"start {BRAIN}", options())
    with pytest.raises(OpsError, match="It was undone") as caught:
        hmac.rotate(host.stack(), options(), cancelled=lambda: True)
    assert caught.value.facts["warnings"] == ["An interrupted rotation was found and finished first."]
    assert_one_secret(host, NEW)


@pytest.mark.parametrize("waiting", ["drain", "health"])
def test_a_request_to_end_is_heard_during_a_wait_and_the_undo_does_not_hear_it(host: Host, waiting: str) -> None:
    asked: list[float] = []
    slow = [False]

    def drain() -> None:
        if waiting == "drain":
            asked.append(host.clock.monotonic())
            wait_for(lambda: None, timeout=120, clock=host.clock)

    def at(_now: int, name: str) -> None:
        if name == f"start {BRAIN}" and waiting == "health" and not asked:
            slow[0] = True
            asked.append(host.clock.monotonic())
        elif name == f"stop {BRAIN}":
            slow[0] = False

    start = host.start

    def starting(made: str) -> None:
        start(made)
        if slow[0] and "Health" in host.containers[made]["State"]:
            host.containers[made]["State"]["Health"]["Status"] = "starting"

    host.at = at
    host.start = starting  # type: ignore[method-assign]
    heard: list[float] = []

    def cancelled() -> bool:
        late = bool(asked) and host.clock.monotonic() - asked[0] > 3
        if late:
            heard.append(host.clock.monotonic())
        return late

    with pytest.raises(OpsError, match="It was asked to end by a signal") as caught:
        direct(host, drain=drain, cancelled=cancelled).run()
    assert caught.value.facts["rolled_back"] is True
    assert heard[0] - asked[0] < 4
    assert len(heard) == 1
    assert_one_secret(host, OLD)


def test_a_wait_outside_of_a_rotation_hears_nothing(host: Host) -> None:
    direct(host, cancelled=lambda: False).run()
    assert host.clock._interrupt is None


# What the holders need


NATS = "titan-nats"


@pytest.fixture
def depending(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Brain needs opsd, and this the bus: without it neither becomes healthy."""
    monkeypatch.setitem(SERVICES, BRAIN, {**SERVICES[BRAIN], "depends_on": {OPSD: {}}})
    monkeypatch.setitem(SERVICES, OPSD, {**SERVICES[OPSD], "depends_on": {NATS: {}}})
    host.remake(BRAIN, OPSD)
    host.sick = lambda service, _environment: service in (BRAIN, OPSD) and status(host, NATS) != "running"
    return host


@pytest.mark.parametrize("how", ["exited", "paused"])
def test_what_the_holders_need_runs_again_before_they_do_when_it_is_undone(depending: Host, how: str) -> None:
    def drain() -> None:
        depending.one(NATS)["State"]["Status"] = how

    with pytest.raises(OpsError, match="titan-brain is unhealthy") as caught:
        direct(depending, drain=drain).run()
    assert caught.value.facts["rolled_back"] is True
    depending.one(NATS)["State"]["StartedAt"] = "2026-02-06T14:03:12Z"
    assert status(depending, NATS) == "running"
    assert_one_secret(depending, OLD)


@pytest.mark.parametrize("before", ["stop titan-execution", f"start {BRAIN}"])
def test_what_the_holders_need_runs_again_when_it_is_recovered(depending: Host, before: str) -> None:
    killed_before(depending, before, options())
    depending.stop(depending.one(NATS)["Id"])
    done = Process(depending, options()).recover()
    assert done == ("finished" if before.startswith("start") else "undone")
    assert status(depending, NATS) == "running"
    depending.one(NATS)["State"]["StartedAt"] = "2026-02-06T14:03:12Z"
    assert_one_secret(depending, NEW if done == "finished" else OLD)


def test_what_did_not_run_before_is_not_started(depending: Host) -> None:
    depending.stop(depending.one(NATS)["Id"])
    with pytest.raises(OpsError):
        direct(depending, prove=refuse_new).run()
    assert status(depending, NATS) == "exited"
    assert f"start {NATS}" not in depending.operations
