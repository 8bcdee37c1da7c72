# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HMAC rotation: its options, its plan, and once through with a real drain and a real signed probe."""

from __future__ import annotations

import contextlib
import hashlib
import hmac as signatures
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.core.lock import host_lock
from ansible_collections.titan.ops.plugins.module_utils.rotation import hmac, recovery
from ansible_collections.titan.ops.plugins.module_utils.rotation.drain import Drain
from ansible_collections.titan.ops.plugins.module_utils.rotation.frame import interrupted
from ansible_collections.titan.ops.plugins.module_utils.rotation.guards import Guard
from ansible_collections.titan.ops.plugins.module_utils.rotation.hmac_options import Counter, HmacOptions
from ansible_collections.titan.ops.plugins.module_utils.rotation.signed import SignedProbe
from ansible_collections.titan.ops.plugins.module_utils.rotation.switch import Switch
from ansible_collections.titan.ops.tests.unit.fake_host import ENV, OLD, SERVICES, Host, Killed
from ansible_collections.titan.ops.tests.unit.loopback import Request, serve

BRAIN, EXECUTION, OPSD = "titan-brain", "titan-execution", "titan-opsd"
NEW = "1" * 64


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "titan")


def options(**changes: Any) -> HmacOptions:
    return HmacOptions(**{"drain": Drain(enabled=False), "probes": (), "counters": (), **changes})


# Options


def test_options_that_are_not_given_have_the_runbooks_defaults() -> None:
    made = HmacOptions.from_params({"key": None, "guards": None, "services": None, "project_src": "/x"})
    assert made == HmacOptions()
    assert (made.key, made.length, made.stale) == ("HMAC_SECRET", 32, "recreate")
    assert made.services == (BRAIN, EXECUTION)
    assert made.producers == (BRAIN,)
    assert [guard.path for guard in made.guards] == ["/app/execution.armed"]
    assert made.carry_files == {EXECUTION: ("/app/system.halt", "/app/titan_execution.redb")}


def test_options_that_are_given_are_taken() -> None:
    made = HmacOptions.from_params(
        {
            "guards": [],
            "services": ["a"],
            "drain": {"timeout": 120.0, "enabled": False},
            "carry_files": {"a": "/x", "b": ["/y", "/z"]},
            "probes": [{"service": "a", "port": 1, "path": "/p", "method": "POST", "body": "b"}],
        }
    )
    assert made.guards == ()
    assert made.services == ("a",)
    assert made.drain == Drain(timeout=120.0, enabled=False)
    assert made.carry_files == {"a": ("/x",), "b": ("/y", "/z")}
    assert made.probes == (SignedProbe("a", 1, "/p", "POST", "b"),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"length": 15}, "length is 15 bytes; an HMAC secret needs at least 16"),
        ({"length": 1025}, "length is 1025 bytes"),
        ({"stale": "ignore"}, "stale must be one of warn, fail, recreate, not ignore"),
        ({"key": "A B"}, "key is not a variable name: A B"),
        ({"key": "1A"}, "key is not a variable name"),
        ({"key": ""}, "key is not a variable name"),
        ({"carry_files": {"a": ["app/x"]}}, "must be absolute paths of files, not: app/x"),
        ({"carry_files": {"a": ["/app/"]}}, "must be absolute paths of files"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        HmacOptions.from_params(given)


def test_what_a_journal_holds_is_read_back_the_same() -> None:
    switch = Switch(
        key="K",
        env_file="/e",
        old="o",
        new="n",
        old_data=b"\xff\r\n",
        new_data=b"\x00",
        producers=("a",),
        services=("a", "b"),
        stale=("c",),
        holders={"a": ["X", "Y"]},
        carry={"b": ["/f"]},
        health_timeout=1.5,
    )
    assert Switch.from_record(json.loads(json.dumps(switch.to_record()))) == switch
    assert "old='o'" not in repr(switch)


# Plan


def test_the_plan_names_every_holder_and_what_happens_to_it(host: Host) -> None:
    planned = hmac.plan(host.stack(), options())
    assert planned.holders() == [
        {"service": BRAIN, "variables": ["HMAC_SECRET"], "action": "switched"},
        {"service": EXECUTION, "variables": ["HMAC_SECRET"], "action": "switched"},
        {"service": OPSD, "variables": ["OPS_SECRET"], "action": "recreated"},
    ]
    assert planned.carry == {EXECUTION: ("/app/system.halt", "/app/titan_execution.redb")}
    assert planned.warnings == ()


def test_the_diff_shows_places_never_values_and_survives_the_redaction(host: Host) -> None:
    stack = host.stack()
    diff = hmac.plan(stack, options(stale="warn")).diff()
    file = host.env_file
    assert diff["before"].splitlines() == [
        f"{file}: HMAC_SECRET (old secret)",
        "titan-brain: HMAC_SECRET (old secret)",
        "titan-execution: HMAC_SECRET (old secret)",
        "titan-opsd: OPS_SECRET (old secret)",
    ]
    assert diff["after"] == diff["before"].replace("(old", "(new", 3)
    assert {name: stack.redact.known(text) for name, text in diff.items()} == diff


def test_no_services_means_every_holder(host: Host) -> None:
    planned = hmac.plan(host.stack(), options(services=()))
    assert (planned.services, planned.stale) == ((BRAIN, EXECUTION, OPSD), ())


def test_producers_that_do_not_hold_the_secret_are_not_stopped_first(host: Host) -> None:
    chosen = options(services=(EXECUTION,), producers=("titan-nats", EXECUTION))
    assert hmac.plan(host.stack(), chosen).producers == (EXECUTION,)


def test_a_producer_that_is_not_switched_would_sign_with_the_old_secret_so_it_is_refused(host: Host) -> None:
    with pytest.raises(InvalidInput) as caught:
        hmac.plan(host.stack(), options(services=(EXECUTION,), producers=(BRAIN, EXECUTION)))
    assert "The service titan-brain signs with HMAC_SECRET and is not among the services" in str(caught.value)
    assert "Add it to services" in str(caught.value)


@pytest.mark.parametrize("drained", [True, False])
def test_the_steps_planned_are_those_of_the_check_and_of_the_run(
    host: Host, titan: tuple[Titan, HmacOptions], drained: bool
) -> None:
    chosen = replace(titan[1], drain=replace(titan[1].drain, enabled=drained))
    planned = hmac.rotate(host.stack(), chosen, check_mode=True)
    assert ("drain" in planned["steps"]) is drained
    assert OLD in host.env_file.read_text()
    done = hmac.rotate(host.stack(), chosen)
    assert done["steps"] == planned["steps"]
    assert (done["drained"] is not None) is drained


def test_a_service_that_holds_nothing_is_refused_and_the_holders_are_named(host: Host) -> None:
    with pytest.raises(InvalidInput) as caught:
        hmac.plan(host.stack(), options(services=("titan-nats",)))
    assert "The service titan-nats does not hold HMAC_SECRET" in str(caught.value)
    assert "The holders are: titan-brain, titan-execution, titan-opsd." in str(caught.value)


def test_an_unknown_service_is_refused(host: Host) -> None:
    with pytest.raises(InvalidInput, match="no service or container named titan-brian"):
        hmac.plan(host.stack(), options(services=("titan-brian",)))


def test_with_stale_fail_other_holders_refuse_the_rotation(host: Host) -> None:
    with pytest.raises(Refused, match="Other services hold HMAC_SECRET, too: titan-opsd"):
        hmac.plan(host.stack(), options(stale="fail"))
    assert hmac.plan(host.stack(), options(stale="fail", services=())).stale == ()


def test_a_container_by_hand_refuses_the_rotation_unless_it_may_keep_the_old_secret(host: Host) -> None:
    host.start(host.create("by-hand", {**host.body(BRAIN), "Labels": {"com.docker.compose.service": BRAIN}}))
    with pytest.raises(Refused, match=r"outside of the stack's services hold .*by-hand"):
        hmac.plan(host.stack(), options())
    for chosen in (options(force=True), options(stale="warn")):
        assert "by-hand; they keep the old one" in " ".join(hmac.plan(host.stack(), chosen).warnings)


def test_check_mode_refuses_what_a_run_would_refuse(host: Host) -> None:
    """A copy that stands twice cannot be exchanged; that is known before anything is stopped."""
    host.env_file.write_bytes(f"HMAC_SECRET={OLD}\nC={OLD}\nC={OLD}\n".encode())
    with pytest.raises(InvalidInput, match="C stands more than once"):
        hmac.plan(host.stack(), options())


def test_a_backlog_that_cannot_be_read_refuses_the_rotation(host: Host) -> None:
    host.stop(host.one("titan-nats")["Id"])
    with pytest.raises(Refused) as caught:
        hmac.plan(host.stack(), options(drain=Drain()))
    assert "its backlog cannot be read" in str(caught.value)
    assert "drain.enabled: false" in str(caught.value)


@pytest.mark.parametrize("length", [16, 32, 64])
def test_the_new_secret_is_random_hexadecimal_of_the_length_asked_for(host: Host, length: int) -> None:
    stack, chosen = host.stack(), options(length=length)
    hmac.apply(stack, chosen, hmac.plan(stack, chosen))
    value = host.environment(BRAIN)["HMAC_SECRET"]
    assert len(value) == 2 * length
    assert set(value) <= set("0123456789abcdef")
    assert value != OLD


def test_an_interrupted_rotation_is_noticed(host: Host) -> None:
    assert interrupted(host.stack(), hmac.JOURNAL) is False
    state = host.src / "state"
    state.mkdir()
    (state / "hmac_rotate.journal").write_text("{}")
    with pytest.raises(OpsError, match="another version"):
        interrupted(host.stack(), hmac.JOURNAL)


# The whole operation


def interrupt(host: Host, when: str) -> None:
    """A rotation that was killed before it did this."""

    def at(_count: int, name: str) -> None:
        if name == when:
            raise Killed

    host.at = at
    with pytest.raises(Killed):
        hmac.rotate(host.stack(), options())
    host.at = lambda number, name: None


def test_check_mode_that_can_make_a_plan_warns_of_an_interrupted_rotation(host: Host) -> None:
    interrupt(host, "Compose creates titan-brain")
    host.env_file.write_bytes(ENV.encode())
    for name in (BRAIN, EXECUTION):
        host.start(host.one(name)["Id"])
    before = len(host.operations)
    result = hmac.rotate(host.stack(), options(), check_mode=True)
    assert result["warnings"] == ["An interrupted rotation was found: a real run finishes or undoes it first."]
    assert result["recovered"] is None
    assert len(host.operations) == before
    assert interrupted(host.stack(), hmac.JOURNAL)


def test_check_mode_that_cannot_make_a_plan_names_the_interruption_and_what_to_do(host: Host) -> None:
    interrupt(host, "Compose creates titan-brain")
    before = len(host.operations)
    with pytest.raises(Refused) as caught:
        hmac.rotate(host.stack(), options(), check_mode=True)
    said = str(caught.value)
    assert said.startswith("An interrupted rotation of HMAC_SECRET was found, so that no plan can be made: ")
    assert "Nothing was changed. Run the same playbook without --check: it finishes or undoes" in said
    assert caught.value.facts["warnings"] == [
        "An interrupted rotation was found: a real run finishes or undoes it first."
    ]
    assert len(host.operations) == before
    result = hmac.rotate(host.stack(), options())
    assert result["recovered"] == "undone"
    assert result["warnings"] == ["An interrupted rotation was found and undone first."]


def test_check_mode_calls_a_rotation_that_is_under_way_so(host: Host) -> None:
    """Check mode takes no lock: the journal that it finds may be of a rotation that runs."""
    interrupt(host, "Compose creates titan-brain")
    stack = host.stack()
    lock = stack.options.lock_file
    with host_lock(lock, reason="rotate", holder="alice", timeout=0, clock=Clock()):
        with pytest.raises(Refused) as caught:
            hmac.rotate(stack, options(), check_mode=True)
        said = str(caught.value)
        assert said.startswith("An operation is under way (alice (process ") and "nterrupted" not in said
        assert "Run again when it has ended." in said
        assert caught.value.facts["warnings"][0].startswith("An operation is under way")
        assert recovery.recover_all(host.stack(), check_mode=True) == {"hmac_rotate": "under way"}
        with pytest.raises(Refused, match=r"Another operation is under way \(hmac_rotate\).*alice"):
            recovery.recover_others(host.stack(), "pg_password", check_mode=True)
    assert recovery.recover_all(host.stack(), check_mode=True) == {"hmac_rotate": "interrupted"}


def test_a_refusal_after_a_recovery_says_that_something_was_changed(host: Host) -> None:
    interrupt(host, "Compose creates titan-brain")
    with pytest.raises(InvalidInput) as caught:
        hmac.rotate(host.stack(), options(services=("titan-nats",)))
    assert "An interrupted rotation was undone by this run; beyond that nothing was changed." in str(caught.value)
    assert "Nothing was changed." not in str(caught.value)
    assert caught.value.facts["warnings"] == ["An interrupted rotation was found and undone first."]


def test_an_operation_that_fails_hands_on_its_warnings(host: Host) -> None:
    host.stop(host.one(OPSD)["Id"])
    host.sick = lambda service, environment: OLD not in environment.values() and service == BRAIN
    with pytest.raises(OpsError, match="It was undone") as caught:
        hmac.rotate(host.stack(), options())
    assert caught.value.facts["warnings"] == ["titan-opsd does not run: it gets the new secret and stays stopped"]
    assert caught.value.facts["rolled_back"] is True


def test_copies_under_other_names_change_along_and_are_told(host: Host) -> None:
    host.env_file.write_bytes(
        ENV.encode() + f"\nTITAN_HMAC={OLD}\nURL=http://x:{OLD}@h/\nMINE=${{HMAC_SECRET}}\n".encode()
    )
    host.remake(BRAIN, EXECUTION, OPSD)
    result = hmac.rotate(host.stack(), options())
    assert result["variables"] == ["HMAC_SECRET", "TITAN_HMAC", "URL"]
    assert OLD not in host.env_file.read_text()
    new = host.environment(OPSD)["OPS_SECRET"]
    assert host.environment(BRAIN)["TITAN_HMAC"] == host.environment(BRAIN)["MINE"] == new
    assert host.environment(BRAIN)["URL"] == f"http://x:{new}@h/"
    assert new not in str(result)


def test_a_rotation_past_a_variable_named_like_the_key_leaves_it_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"HMAC_SECRET": "${OTHER_SECRET}", "OPS_SECRET": "${HMAC_SECRET}"}
    monkeypatch.setitem(SERVICES, OPSD, {"image": "titan/opsd:1", "environment": environment})
    host.env_file.write_bytes(ENV.encode() + b"\nOTHER_SECRET=another\n")
    host.remake(BRAIN, EXECUTION, OPSD)
    result = hmac.rotate(host.stack(), options())
    assert result["warnings"] == ["titan-opsd has a variable HMAC_SECRET with another value: it was left alone"]
    assert host.environment(OPSD)["HMAC_SECRET"] == "another"
    assert host.environment(OPSD)["OPS_SECRET"] == host.environment(BRAIN)["HMAC_SECRET"] != OLD


# Once through


class Titan:
    """What brain and NATS answer on this host: brain checks signatures with the secret in its own environment."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.backlog = [4, 2, 0]
        self.deaf = False
        self.on_drain: Callable[[], object] = lambda: None

    def brain(self, request: Request) -> tuple[int, Any]:
        if request.path == "/metrics":
            return (
                200,
                b'# TYPE x counter\nx_total{a="1"} 2\nx_total{a="2"} 3\nx_total{a="3"} NaN\nx_total{a="4"} +Inf\n'
                b'x_total{a="5"} none\nx_totals 9\n',
            )
        secret = self.host.environment(BRAIN)["HMAC_SECRET"] if not self.deaf else OLD
        text = f"{request.headers['x-timestamp']}.".encode() + request.body
        good = signatures.new(secret.encode(), text, hashlib.sha256).hexdigest() == request.headers["x-signature"]
        return (200, []) if good else (401, {})

    def nats(self, request: Request) -> tuple[int, Any]:
        stopped = self.host.one(BRAIN)["State"]["Status"] != "running"
        left = self.backlog[0]
        if stopped and len(self.backlog) > 1:
            self.backlog.pop(0)
        if stopped:
            self.on_drain()
        consumer = {"name": "EXECUTION_CORE", "num_pending": left, "num_ack_pending": 0}
        stream = {"name": "TITAN_CMD", "state": {}, "consumer_detail": [consumer]}
        return 200, {"account_details": [{"stream_detail": [stream]}]}


@pytest.fixture
def titan(host: Host) -> Iterator[tuple[Titan, HmacOptions]]:
    host.address = "127.0.0.1"
    for raw in host.containers.values():
        host.stop(raw["Id"])
        host.start(raw["Id"])
    there = Titan(host)
    with contextlib.ExitStack() as servers:
        brain, nats = servers.enter_context(serve(there.brain)), servers.enter_context(serve(there.nats))
        yield (
            there,
            HmacOptions(
                drain=Drain(port=nats),
                probes=(SignedProbe(BRAIN, brain, "/services"), SignedProbe("titan-nats", 1, "/never")),
                counters=(Counter(BRAIN, brain, "x_total"), Counter("titan-nats", 1, "y"), Counter("nowhere", 1, "z")),
                health_timeout=20,
            ),
        )


def test_a_rotation_drains_switches_and_is_proved_by_signed_requests(
    host: Host, titan: tuple[Titan, HmacOptions]
) -> None:
    stack, chosen = host.stack(), titan[1]
    assert hmac.counters(stack, chosen) == {"x_total": 5}
    outcome, drained = hmac.apply(stack, chosen, hmac.plan(stack, chosen), token_hex=lambda _bytes: NEW)
    facts = asdict(drained)
    assert facts is not None
    assert (facts["waiting"], facts["left"]) == (4, 0)
    assert host.environment(BRAIN)["HMAC_SECRET"] == host.environment(OPSD)["OPS_SECRET"] == NEW
    assert set(outcome.interruption) == {BRAIN, EXECUTION}


def test_the_result_says_what_was_proved_or_that_no_request_was_made(
    host: Host, titan: tuple[Titan, HmacOptions]
) -> None:
    chosen = replace(titan[1], counters=())
    proved = "titan-brain: GET /services accepted when signed with the new secret, refused with the old one"
    done = hmac.rotate(host.stack(), chosen)
    assert done["proved"] == [proved] and done["warnings"] == []
    host.one(BRAIN)["State"]["Health"]["Status"] = "unhealthy"  # so nothing can be asked of it
    done = hmac.rotate(host.stack(), replace(chosen, force=True))
    assert done["proved"] == []
    assert any(text.startswith("No signed request has proved the new HMAC_SECRET") for text in done["warnings"])


def test_a_brain_that_still_checks_with_the_old_secret_undoes_the_rotation(
    host: Host, titan: tuple[Titan, HmacOptions]
) -> None:
    there, chosen = titan
    there.deaf = True
    stack = host.stack()
    with pytest.raises(OpsError, match=r"does not hold the secret\. It was undone") as caught:
        hmac.apply(stack, chosen, hmac.plan(stack, chosen), token_hex=lambda _bytes: NEW)
    assert caught.value.facts["rolled_back"] is True
    assert host.environment(BRAIN)["HMAC_SECRET"] == OLD


def test_a_backlog_that_is_not_worked_off_undoes_the_rotation(host: Host, titan: tuple[Titan, HmacOptions]) -> None:
    there, chosen = titan
    there.backlog = [4]
    before = {name: host.one(name)["Id"] for name in (BRAIN, EXECUTION, OPSD)}
    stack = host.stack()
    with pytest.raises(OpsError, match='failed at "drain": 4 messages of TITAN_CMD were not worked off'):
        hmac.apply(stack, chosen, hmac.plan(stack, chosen), token_hex=lambda _bytes: NEW)
    assert {name: host.one(name)["Id"] for name in before} == before
    assert all(host.one(name)["State"]["Status"] == "running" for name in before)


def test_an_engine_that_is_armed_while_the_backlog_is_worked_off_undoes_the_rotation(
    host: Host, titan: tuple[Titan, HmacOptions]
) -> None:
    there, chosen = titan
    there.on_drain = lambda: host.layer(EXECUTION).update({"/app/execution.armed": b""})
    before = {name: host.one(name)["Id"] for name in (BRAIN, EXECUTION, OPSD)}
    with pytest.raises(OpsError, match='failed at "drain": The trading engine is armed') as caught:
        hmac.rotate(host.stack(), chosen)
    assert caught.value.facts["rolled_back"] is True
    assert {name: host.one(name)["Id"] for name in before} == before
    hmac.rotate(host.stack(), replace(chosen, force=True))
    assert host.environment(BRAIN)["HMAC_SECRET"] != OLD


def test_a_guard_that_asks_a_producer_is_not_asked_again_when_that_is_stopped(
    host: Host, titan: tuple[Titan, HmacOptions]
) -> None:
    """It could not answer, and a guard that cannot be asked forbids: no rotation would ever succeed."""
    there, chosen = titan
    with serve(lambda request: (200, {"armed": False})) as port:
        guard = Guard(BRAIN, "/status", port=port, field="armed", value="true")
        hmac.rotate(host.stack(), replace(chosen, guards=(guard,)))
        assert host.environment(BRAIN)["HMAC_SECRET"] != OLD
    with serve(lambda request: (200, {"armed": host.one(BRAIN)["State"]["Status"] != "running"})) as port:
        guard = Guard(EXECUTION, "/status", port=port, field="armed", value="true", reason="Armed")
        there.backlog = [4, 2, 0]
        with pytest.raises(OpsError, match='failed at "drain": Armed: armed is true'):
            hmac.rotate(host.stack(), replace(chosen, guards=(guard,)))
