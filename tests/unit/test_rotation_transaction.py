# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One secret everywhere, whatever happens: the rotation killed and failed at every single operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.rotation import hmac
from ansible_collections.titan.ops.plugins.module_utils.rotation.hmac_options import HmacOptions
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
    let_live,
    new_host,
    options,
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host whose file system counts as well: a rename and a removal of a file are operations."""
    made = new_host(tmp_path / "titan", monkeypatch)
    yield made


# Success


@pytest.mark.parametrize("group", GROUPS)
def test_a_rotation_ends_with_the_new_secret_everywhere(host: Host, group: str) -> None:
    Process(host, options(group)).rotate()
    assert_one_secret(host, NEW)


def test_the_order_of_what_is_done_is_the_designs(host: Host) -> None:
    Process(host, options()).rotate()
    done = [item for item in host.operations if "journal" not in item]
    assert done == [
        "stop titan-brain",
        "stop titan-execution",
        f"write titan-execution-1{HALT.replace('/', '%')}.tar",
        "rename .env.prod",
        "Compose creates titan-brain",
        "Compose stops the old titan-brain",
        "Compose removes the old titan-brain",
        "Compose renames the new titan-brain",
        "Compose creates titan-execution",
        "Compose stops the old titan-execution",
        "Compose removes the old titan-execution",
        "Compose renames the new titan-execution",
        "put files into titan-execution",
        "start titan-brain",
        "start titan-execution",
        "stop titan-opsd",
        "Compose creates titan-opsd",
        "Compose stops the old titan-opsd",
        "Compose removes the old titan-opsd",
        "Compose renames the new titan-opsd",
        "start titan-opsd",
        "delete ..env.prod.titan-old",
        "write rotate_hmac-1770390192000.ended",
        f"delete titan-execution-1{HALT.replace('/', '%')}.tar",
    ]
    assert host.operations[0] == "write hmac_rotate.journal"
    assert host.operations[host.operations.index("rename .env.prod") - 1] == "write hmac_rotate.journal"


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("producers", [(BRAIN,), ()])
def test_the_steps_taken_are_those_planned(host: Host, group: str, producers: tuple[str, ...]) -> None:
    chosen = options(group, producers=producers)
    planned = hmac.plan(host.stack(), chosen)
    outcome = Process(host, chosen).rotate()
    assert outcome.steps == planned.steps()


def test_the_outcome_tells_interruption_skew_and_what_was_carried(host: Host) -> None:
    host.layer(EXECUTION)[REDB] = b"shadow positions"
    start = host.start

    def slow(made: str) -> None:
        start(made)
        host.clock.sleep(0.125)

    host.start = slow  # type: ignore[method-assign]
    outcome = Process(host, options()).rotate()
    assert outcome.skew_seconds == pytest.approx(0.125)
    assert outcome.carried == {EXECUTION: [HALT, REDB]}
    # Each stop takes half a second here: brain is down while execution stops, too.
    assert outcome.interruption == {
        BRAIN: {"until_started_seconds": 1.0, "until_healthy_seconds": 1.25},
        EXECUTION: {"until_started_seconds": 0.625, "until_healthy_seconds": 0.875},
    }
    assert host.layer(EXECUTION)[REDB] == b"shadow positions"


def test_the_files_of_a_holder_that_is_recreated_later_are_carried_too(host: Host) -> None:
    outcome = Process(host, options("brain alone")).rotate()
    assert outcome.carried == {EXECUTION: [HALT]}
    assert host.layer(EXECUTION)[HALT] == b"halted by the operator"


def test_being_armed_is_not_carried(host: Host) -> None:
    host.layer(EXECUTION)["/app/execution.armed"] = b""
    Process(host, options(force=True)).rotate()
    assert "/app/execution.armed" not in host.layer(EXECUTION)


def test_a_second_rotation_rotates_again(host: Host) -> None:
    Process(host, options()).rotate()
    stack = host.stack()
    hmac.apply(stack, options(), hmac.plan(stack, options()), token_hex=lambda _bytes: OLD)
    assert_one_secret(host, OLD)


def test_a_plan_changes_nothing(host: Host) -> None:
    hmac.plan(host.stack(), options())
    assert host.operations == []
    assert_one_secret(host, OLD)


def test_with_stale_warn_the_other_holders_keep_the_old_secret(host: Host) -> None:
    chosen = options(stale="warn")
    stack = host.stack()
    planned = hmac.plan(stack, chosen)
    assert planned.warnings == ("These services keep the old HMAC_SECRET until they are recreated: titan-opsd",)
    hmac.apply(stack, chosen, planned, token_hex=lambda _bytes: NEW)
    assert host.environment(OPSD) == {"OPS_SECRET": OLD}
    assert host.environment(BRAIN)["HMAC_SECRET"] == host.environment(EXECUTION)["HMAC_SECRET"] == NEW


def test_compose_is_kept_from_a_dependency_that_is_to_keep_the_old_secret(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the new env file it has another configuration, and a plain ``up`` of brain would recreate it."""
    monkeypatch.setitem(SERVICES, BRAIN, {**SERVICES[BRAIN], "depends_on": {OPSD: {}}})
    for name in (BRAIN, EXECUTION, OPSD):
        host.remove(host.one(name)["Id"])
        host.start(host.create(name, host.body(name)))
    stack, chosen = host.stack(), options(stale="warn")
    hmac.apply(stack, chosen, hmac.plan(stack, chosen), token_hex=lambda _bytes: NEW)
    assert host.isolated == [True]


def test_compose_labels_containers_as_usual_where_no_dependency_changes(host: Host) -> None:
    Process(host, options()).rotate()
    assert host.isolated == [False, False]


# Failure


def count(src: Path, monkeypatch: pytest.MonkeyPatch, chosen: HmacOptions) -> int:
    """How many operations an undisturbed rotation takes."""
    rehearsal = new_host(src, monkeypatch)
    Process(rehearsal, chosen).rotate()
    return len(rehearsal.operations)


def failure_of(name: str) -> Exception:
    if name.startswith("Compose"):
        return OpsError(f"`docker compose up` failed: {name}")
    if name.split()[0] in ("write", "rename", "delete"):
        return OSError(28, "No space left on device")
    return docker.errors.APIError(f"cannot {name}")


@pytest.mark.parametrize("group", GROUPS)
def test_any_one_operation_may_fail_and_the_old_secret_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    total = count(tmp_path / "rehearsal", monkeypatch, options(group))
    assert total > 25
    for number in range(1, total + 1):
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)

        def at(now: int, name: str, number: int = number) -> None:
            if now == number:
                raise failure_of(name)

        host.at = at
        error = None
        try:
            Process(host, options(group)).rotate()
        except OpsError as exc:
            error = exc
        failed = host.operations[number - 1]
        if failed.endswith(".ended"):  # a note for the history: what has ended well is not undone for that
            assert error is None
            assert_one_secret(host, NEW)
            continue
        assert error is not None, failed
        assert_one_secret(host, OLD)
        if number > 1:  # the first is the journal itself: nothing has begun
            assert error.facts["rolled_back"] is True, failed
            said = str(error)
            assert said.startswith('The rotation of HMAC_SECRET failed at "'), failed
            assert "It was undone: the old secret is back in" in said
            assert OLD not in said
            assert NEW not in said


@pytest.mark.parametrize(
    ("broken", "failed_at"), [(EXECUTION, "start"), (BRAIN, "start"), (OPSD, "recreate the other holders")]
)
def test_a_container_that_cannot_start_brings_everything_back(host: Host, broken: str, failed_at: str) -> None:
    def unable(service: str, environment: Mapping[str, str]) -> bool:
        return service == broken and NEW in environment.values()

    host.unable = unable
    with pytest.raises(OpsError) as caught:
        Process(host, options()).rotate()
    assert caught.value.facts["rolled_back"] is True
    assert f'failed at "{failed_at}": ' in str(caught.value)
    assert f"OCI runtime create failed in {broken}" in str(caught.value)
    assert_one_secret(host, OLD)


@pytest.mark.parametrize(("sick", "failed_at"), [(BRAIN, "start"), (EXECUTION, "start"), (OPSD, "prove")])
def test_a_service_that_does_not_become_healthy_brings_everything_back(host: Host, sick: str, failed_at: str) -> None:
    host.sick = lambda service, environment: service == sick and NEW in environment.values()
    with pytest.raises(OpsError) as caught:
        Process(host, options()).rotate()
    assert caught.value.facts["rolled_back"] is True
    assert f'failed at "{failed_at}": The service {sick} is unhealthy' in str(caught.value)
    assert caught.value.facts["log"] == ["a line"]
    assert_one_secret(host, OLD)


def test_a_compose_file_that_can_no_longer_make_a_good_container_does_not_keep_us_from_the_old_one(host: Host) -> None:
    """The broken command is in the Compose file: what Compose makes now cannot start, whatever the secret."""
    old = {service: host.one(service)["Id"] for service in HOLDERS}
    body = host.body

    def broken_body(service: str) -> dict[str, Any]:
        return {**body(service), **({"Cmd": ["nosuchcommand"]} if service == EXECUTION else {})}

    host.body = broken_body  # type: ignore[method-assign]
    start = host.start

    def start_or_fail(made: str) -> None:
        if host.containers[made]["Config"].get("Cmd"):
            raise docker.errors.APIError("nosuchcommand: not found")
        start(made)

    host.start = start_or_fail  # type: ignore[method-assign]
    with pytest.raises(OpsError) as caught:
        Process(host, options()).rotate()
    assert caught.value.facts["rolled_back"] is True
    assert_one_secret(host, OLD)
    assert host.one(OPSD)["Id"] == old[OPSD]


def test_files_that_changed_while_the_new_container_ran_are_kept_by_the_undo(host: Host) -> None:
    """The operator lifts the halt of the new engine, and then opsd fails."""
    host.sick = lambda service, environment: service == OPSD and NEW in environment.values()
    start = host.start

    def lift(made: str) -> None:
        start(made)
        if host.containers[made]["Name"] == f"/{EXECUTION}" and NEW in str(host.containers[made]):
            del host.layers[made][HALT]
            host.layers[made][REDB] = b"positions"

    host.start = lift  # type: ignore[method-assign]
    with pytest.raises(OpsError):
        Process(host, options()).rotate()
    assert host.layer(EXECUTION) == {REDB: b"positions"}


def test_the_drain_comes_when_producers_are_stopped_and_consumers_still_run(host: Host) -> None:
    seen: list[tuple[str, ...]] = []
    direct(host, drain=lambda: seen.append(tuple(host.one(name)["State"]["Status"] for name in HOLDERS))).run()
    assert seen == [("exited", "running", "running")]


def test_a_drain_that_fails_starts_the_very_same_containers_again(host: Host) -> None:
    before = {service: host.one(service)["Id"] for service in HOLDERS}

    def fail() -> None:
        raise OpsError("3 messages were not worked off", hint="raise drain.timeout")

    with pytest.raises(OpsError, match=r'failed at "drain": 3 messages were not worked off\. It was undone') as caught:
        direct(host, drain=fail).run()
    assert caught.value.hint == "raise drain.timeout"
    assert {service: host.one(service)["Id"] for service in HOLDERS} == before
    assert_one_secret(host, OLD)


def test_what_is_proved_is_the_new_secret_and_after_an_undo_the_old_one(host: Host) -> None:
    proved: list[tuple[str, str, tuple[str, ...]]] = []

    def prove(right: str, wrong: str, services: Sequence[str]) -> None:
        proved.append((right, wrong, tuple(services)))
        if right == NEW:
            raise OpsError("refused with status 401")

    with pytest.raises(OpsError, match='failed at "prove": refused with status 401'):
        direct(host, prove=prove).run()
    assert proved == [(NEW, OLD, (BRAIN, EXECUTION, OPSD)), (OLD, NEW, (BRAIN, EXECUTION))]
    assert_one_secret(host, OLD)


def test_an_error_of_any_kind_is_undone(host: Host) -> None:
    def broken() -> None:
        raise ZeroDivisionError("oh")

    with pytest.raises(OpsError, match='failed at "drain": ZeroDivisionError: oh'):
        direct(host, drain=broken).run()
    assert_one_secret(host, OLD)


@pytest.mark.parametrize("error", [OpsError("still refused"), RuntimeError("still refused")])
def test_an_undo_that_fails_says_so_keeps_the_journal_and_the_next_run_ends_it(host: Host, error: Exception) -> None:
    def prove(_right: str, _wrong: str, _services: Sequence[str]) -> None:
        raise error

    with pytest.raises(OpsError) as caught:
        direct(host, prove=prove).run()
    said = str(caught.value)
    assert caught.value.facts["rolled_back"] is False
    assert "still refused" in said
    assert "Undoing it failed, too" in said
    assert f"the journal {host.src}/state/hmac_rotate.journal has what is needed" in said
    assert "run the same playbook again" in said
    assert OLD not in said
    assert NEW not in said
    assert Process(host, options()).recover() == "undone"
    assert_one_secret(host, OLD)


def test_an_undo_after_which_a_service_is_ill_is_no_success(host: Host) -> None:
    begun: list[str] = []
    host.sick = lambda service, environment: service == BRAIN and bool(begun)
    with pytest.raises(OpsError) as caught:
        direct(host, drain=lambda: begun.append("x")).run()
    assert caught.value.facts["rolled_back"] is False
    assert "Undoing it failed, too: The service titan-brain is unhealthy" in str(caught.value)
    begun.clear()
    host.stop(host.one(BRAIN)["Id"])
    assert Process(host, options()).recover() == "undone"
    assert_one_secret(host, OLD)


def test_an_env_file_that_somebody_edited_meanwhile_is_left_as_they_made_it(host: Host) -> None:
    edited = ENV.encode() + b"\nADDED=1\n"
    with pytest.raises(OpsError, match="was edited by somebody else while the rotation was under way") as caught:
        direct(host, drain=lambda: host.env_file.write_bytes(edited)).run()
    assert caught.value.facts["rolled_back"] is True
    assert host.env_file.read_bytes() == edited
    assert host.environment(BRAIN)["HMAC_SECRET"] == OLD


def test_what_somebody_added_after_the_switch_survives_the_undo(host: Host) -> None:
    def prove(right: str, _wrong: str, _services: Sequence[str]) -> None:
        if right == NEW:
            host.env_file.write_bytes(host.env_file.read_bytes() + b"\nADDED=1\n")
            raise OpsError("no")

    with pytest.raises(OpsError, match="It was undone"):
        direct(host, prove=prove).run()
    assert host.env_file.read_bytes() == ENV.encode() + b"\nADDED=1\n"


def test_a_third_value_in_the_file_stops_the_undo(host: Host) -> None:
    third = ENV.replace(OLD, "3" * 64).encode()

    def prove(_right: str, _wrong: str, _services: Sequence[str]) -> None:
        host.env_file.write_bytes(third)
        raise OpsError("no")

    with pytest.raises(OpsError, match="neither the value from before the rotation nor the new one") as caught:
        direct(host, prove=prove).run()
    assert caught.value.facts["rolled_back"] is False
    assert host.env_file.read_bytes() == third


# Interruption


def assert_recovered(host: Host, chosen: HmacOptions, killed: str) -> str | None:
    """The next run ends what was interrupted, one way or the other, and the run after it finds nothing to do."""
    let_live(host)
    done = Process(host, chosen).recover()
    assert done in ("finished", "undone", None), killed
    assert_one_secret(host, NEW if done == "finished" or NEW in host.env_file.read_text() else OLD)
    assert (done == "undone") <= (OLD in host.env_file.read_text()), killed
    assert Process(host, chosen).recover() is None, killed
    return done


@pytest.mark.parametrize("group", GROUPS)
def test_killed_before_any_operation_the_next_run_finishes_or_undoes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    total = count(tmp_path / "rehearsal", monkeypatch, options(group))
    ends = []
    for number in range(1, total + 1):
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)
        kill_at(host, number)
        with pytest.raises(Killed):
            Process(host, options(group)).rotate()
        ends.append(assert_recovered(host, options(group), host.operations[number - 1]))
    assert ends[0] is None
    assert set(ends) == {None, "undone", "finished"}
    # Until the new containers exist it is undone, from then on finished.
    middle = [end for end in ends if end is not None]
    assert middle == sorted(middle, reverse=True)


def test_killed_and_then_killed_again_while_recovering_it_still_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every first kill, each with every third second one; "brain alone" has containers and files in both groups."""
    group = "brain alone"
    total = count(tmp_path / "rehearsal", monkeypatch, options(group))
    pairs = 0
    for first in range(2, total + 1):
        for second in range(1 + first % 3, 100, 3):
            monkeypatch.undo()
            host = new_host(tmp_path / f"{first}-{second}", monkeypatch)
            kill_at(host, first)
            with pytest.raises(Killed):
                Process(host, options(group)).rotate()
            kill_at(host, second)
            try:
                Process(host, options(group)).recover()
                break  # recovering takes fewer operations than that
            except Killed:
                assert_recovered(host, options(group), f"{host.operations[first - 1]}, {host.operations[-1]}")
                pairs += 1
    assert pairs > 80


@pytest.mark.parametrize("group", GROUPS)
def test_killed_while_undoing_a_failure_it_still_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    second = 0
    while True:
        second += 1
        monkeypatch.undo()
        host = new_host(tmp_path / str(second), monkeypatch)
        host.sick = lambda service, environment: service == OPSD and NEW in environment.values()
        kill_at(host, second)
        try:
            Process(host, options(group)).rotate()
        except OpsError:
            break
        except Killed:
            let_live(host)
            done = Process(host, options(group)).recover()
            assert done in (None, "undone")
            assert_one_secret(host, OLD)
    assert second > 40


def test_a_rotation_right_after_a_recovery_reaches_every_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Compose model was read while the env file still said the interrupted run's value."""
    total = count(tmp_path / "rehearsal", monkeypatch, options())
    for number in range(1, total + 1):
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)
        kill_at(host, number)
        with pytest.raises(Killed):
            Process(host, options()).rotate()
        let_live(host)
        stack = host.stack()
        done = hmac.recover(stack, options())
        planned = hmac.plan(stack, options())
        assert planned.secret.services() == list(HOLDERS), done
        if done != "finished" and OLD in host.env_file.read_text():
            hmac.apply(stack, options(), planned, token_hex=lambda _bytes: NEW)
            assert_one_secret(host, NEW)


def test_recovery_with_containers_that_cannot_run_goes_back_to_the_old_ones(host: Host) -> None:
    kill_at(host, 1 + [*rehearse(host)].index("start titan-brain"))
    with pytest.raises(Killed):
        Process(host, options()).rotate()
    let_live(host)
    host.unable = lambda service, environment: service == EXECUTION and NEW in environment.values()
    assert Process(host, options()).recover() == "undone"
    assert_one_secret(host, OLD)


def rehearse(host: Host) -> list[str]:
    """The operations of an undisturbed rotation; the host is then as before."""
    Process(host, options()).rotate()
    stack = host.stack()
    done = list(host.operations)
    hmac.apply(stack, options(), hmac.plan(stack, options()), token_hex=lambda _bytes: OLD)
    host.operations.clear()
    return done


def test_a_recovery_that_fails_says_what_it_was_about_and_can_be_repeated(host: Host) -> None:
    kill_at(host, 1 + rehearse(host).index("Compose creates titan-execution"))
    with pytest.raises(Killed):
        Process(host, options()).rotate()
    let_live(host)
    host.unable = lambda service, environment: service == BRAIN
    with pytest.raises(OpsError) as caught:
        Process(host, options()).recover()
    said = str(caught.value)
    assert said.startswith("An interrupted rotation of HMAC_SECRET was found and could not be undone: ")
    assert "run the same playbook again" in said
    assert OLD not in said
    assert NEW not in said
    host.unable = lambda service, environment: False
    assert Process(host, options()).recover() == "undone"
    assert_one_secret(host, OLD)


@pytest.mark.parametrize("group", GROUPS)
def test_a_docker_daemon_that_dies_at_any_time_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    """From some operation on Docker and Compose refuse everything; later they are back, and the next run ends it."""
    total = count(tmp_path / "rehearsal", monkeypatch, options(group))
    outlived(tmp_path, monkeypatch, group, total, ("write", "rename", "delete"))


@pytest.mark.parametrize("group", GROUPS)
def test_a_disk_that_fills_up_at_any_time_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    total = count(tmp_path / "rehearsal", monkeypatch, options(group))
    """It is the env file's and the journal's; Docker has its own."""
    working = ("stop", "start", "remove", "create", "put", "rename", "delete", "Compose")
    undone = outlived(tmp_path, monkeypatch, group, total, working)
    # Nothing needs to be written to go back.
    assert {True, False} == {written for _rolled_back, written in undone.values()}
    assert all(rolled_back for rolled_back, _written in undone.values())


def outlived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, total: int, working: tuple[str, ...]
) -> dict[int, tuple[bool, bool]]:
    """Everything but ``working`` fails from each operation on; gives by number: rolled back, env file written."""
    ends = {}
    for number in range(2, total + 1):
        monkeypatch.undo()
        host = new_host(tmp_path / str(number), monkeypatch)

        def at(now: int, name: str, number: int = number) -> None:
            if now >= number and not name.startswith(working):
                raise failure_of(name)

        host.at = at
        failed = ""
        try:
            Process(host, options(group)).rotate()
        except OpsError as exc:
            failed = str(exc)
            ends[number] = (exc.facts["rolled_back"] is True, "rename .env.prod" in host.operations[: number - 1])
        let_live(host)
        if failed:
            done = Process(host, options(group)).recover()
            assert done == (None if ends[number][0] else done)
        assert_one_secret(host, NEW if NEW in host.env_file.read_text() else OLD)
        assert (not failed) <= (NEW in host.env_file.read_text())
    return ends


# What an undone rotation tells


def test_an_undone_rotation_tells_the_interruption_of_what_it_had_stopped(host: Host) -> None:
    def prove(right: str, _wrong: str, _services: Sequence[str]) -> None:
        host.clock.sleep(10)
        if right == NEW:
            raise OpsError("refused with status 401")

    with pytest.raises(OpsError, match="It was undone") as caught:
        direct(host, prove=prove).run()
    # Each stop takes half a second here: brain, execution, opsd, and then the new ones of them in their turn.
    assert caught.value.facts["interruption"] == {
        BRAIN: {"until_started_seconds": 12.5, "until_healthy_seconds": 12.75},
        EXECUTION: {"until_started_seconds": 12.0, "until_healthy_seconds": 12.25},
    }
    assert_one_secret(host, OLD)


def test_what_was_not_stopped_yet_was_not_interrupted(host: Host) -> None:
    def fail() -> None:
        host.clock.sleep(3)
        raise OpsError("no")

    with pytest.raises(OpsError) as caught:
        direct(host, drain=fail).run()
    assert caught.value.facts["interruption"] == {
        BRAIN: {"until_started_seconds": 3.5, "until_healthy_seconds": 3.75},
    }
