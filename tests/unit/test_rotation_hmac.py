# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HMAC rotation: its options, its plan, and once through with a real drain and a real signed probe."""

from __future__ import annotations

import contextlib
import hashlib
import hmac as signatures
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.rotation import hmac
from ansible_collections.titan.ops.plugins.module_utils.rotation.drain import Drain
from ansible_collections.titan.ops.plugins.module_utils.rotation.hmac_options import Counter, HmacOptions
from ansible_collections.titan.ops.plugins.module_utils.rotation.signed import SignedProbe
from ansible_collections.titan.ops.plugins.module_utils.rotation.switch import Switch
from ansible_collections.titan.ops.tests.unit.fake_host import OLD, Host
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


def test_producers_that_are_not_switched_are_not_stopped_first(host: Host) -> None:
    assert hmac.plan(host.stack(), options(services=(EXECUTION,), producers=(BRAIN, EXECUTION))).producers == (
        EXECUTION,
    )


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
    assert hmac.interrupted(host.stack()) is False
    state = host.src / "state"
    state.mkdir()
    (state / "hmac_rotate.journal").write_text("{}")
    with pytest.raises(OpsError, match="another version"):
        hmac.interrupted(host.stack())


# Once through


class Titan:
    """What brain and NATS answer on this host: brain checks signatures with the secret in its own environment."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.backlog = [4, 2, 0]
        self.deaf = False

    def brain(self, request: Request) -> tuple[int, Any]:
        if request.path == "/metrics":
            return 200, b'# TYPE x counter\nx_total{a="1"} 2\nx_total{a="2"} 3\nx_totals 9\n'
        secret = self.host.environment(BRAIN)["HMAC_SECRET"] if not self.deaf else OLD
        text = f"{request.headers['x-timestamp']}.".encode() + request.body
        good = signatures.new(secret.encode(), text, hashlib.sha256).hexdigest() == request.headers["x-signature"]
        return (200, []) if good else (401, {})

    def nats(self, request: Request) -> tuple[int, Any]:
        stopped = self.host.one(BRAIN)["State"]["Status"] != "running"
        left = self.backlog[0]
        if stopped and len(self.backlog) > 1:
            self.backlog.pop(0)
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
