# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What both kinds of rotations say of the same trouble: the same, with their own words for the secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError
from ansible_collections.titan.ops.plugins.module_utils.health.probe import Probe
from ansible_collections.titan.ops.plugins.module_utils.rotation import hmac, transaction
from ansible_collections.titan.ops.plugins.module_utils.rotation.originals import Originals
from ansible_collections.titan.ops.plugins.module_utils.rotation.pg_plan import plan
from ansible_collections.titan.ops.plugins.module_utils.rotation.signed import SignedProbe
from ansible_collections.titan.ops.tests.unit import fake_host, rotating, test_rotation_pg
from ansible_collections.titan.ops.tests.unit.fake_host import Host

ROOT = Path(__file__).resolve().parents[2]
BRAIN, EXECUTION = "titan-brain", "titan-execution"
Planned = Callable[..., Any]


@pytest.fixture(params=["hmac", "pg"])
def kind(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Host, Planned, dict[str, str]]:
    """A host, what plans on it, and its words: key, secret, another holder and its variable, the value."""
    if request.param == "hmac":
        host = rotating.new_host(tmp_path / "titan", monkeypatch)
        words = {"key": "HMAC_SECRET", "what": "secret", "other": "titan-opsd", "value": fake_host.OLD}
        return host, lambda **changes: hmac.plan(host.stack(), rotating.options(**changes)), words
    run = test_rotation_pg.made(tmp_path / "titan", monkeypatch)
    words = {"key": "TITAN_DB_PASSWORD", "what": "password", "other": "titan-ai-quant", "value": test_rotation_pg.OLD}

    def planned(**changes: Any) -> Any:
        stack, chosen = run.host.stack(), test_rotation_pg.options(**changes)
        return plan(stack, chosen, run.database.connect(stack, chosen.target))

    return run.host, planned, words


Kind = tuple[Host, Planned, "dict[str, str]"]


def refused(planned: Planned, **changes: Any) -> str:
    with pytest.raises(OpsError) as caught:
        planned(**changes)
    return str(caught.value)


def actions(planned: Any) -> dict[str, str]:
    return {item["service"]: item["action"] for item in planned.holders() if item["service"] != "titan-postgres"}


def test_other_holders_are_recreated_left_or_refused_as_the_policy_says(kind: Kind) -> None:
    _host, planned, words = kind
    key, other = words["key"], words["other"]
    done = planned()
    assert done.stale == (other,) and done.left == ()
    assert actions(done) == {BRAIN: "switched", EXECUTION: "switched", other: "recreated"}
    kept = planned(stale="warn")
    assert kept.stale == () and kept.left == (other,)
    assert actions(kept) == {BRAIN: "switched", EXECUTION: "switched", other: "left"}
    assert f"These services keep the old {key} until they are recreated: {other}" in kept.warnings
    for text in (kept.diff("titan") if words["what"] == "password" else kept.diff()).values():
        assert next(line for line in text.splitlines() if line.startswith(other)).endswith("(old secret)")
    assert refused(planned, stale="fail").startswith(f"Other services hold {key}, too: {other}. Nothing was changed.")


def test_a_holder_without_a_container_or_that_does_not_run_is_told(kind: Kind) -> None:
    host, planned, words = kind
    [raw] = host.of(words["other"])
    host.stop(raw["Id"])
    assert f"{words['other']} does not run: it gets the new {words['what']} and stays stopped" in planned().warnings
    host.remove(raw["Id"])
    done = planned()
    assert f"{words['other']} has no container: it gets the new {words['what']} when one is made" in done.warnings
    assert actions(done)[words["other"]] == "none"


def test_a_container_outside_of_the_stack_is_refused_unless_told(kind: Kind) -> None:
    host, planned, words = kind
    made = host.create("elsewhere", {**host.body("titan-nats"), "Env": [f"X={words['value']}"]})
    host.containers[made]["Config"]["Labels"] = {}
    host.containers[made]["State"]["Status"] = "running"
    said = refused(planned)
    assert f"Containers outside of the stack's services hold {words['key']}: elsewhere" in said
    assert f"give them the {words['what']} by hand afterwards" in said
    for changes in ({"force": True}, {"stale": "warn"}):
        assert any(text.endswith("elsewhere; they keep the old one") for text in planned(**changes).warnings)


def test_what_is_not_well_or_has_another_image_by_now_is_refused_with_every_reason_unless_forced(kind: Kind) -> None:
    host, planned, words = kind
    host.one(BRAIN)["State"]["Health"]["Status"] = "unhealthy"
    host.images["titan/execution:1"] = "sha256:other"
    said = refused(planned)
    assert said.startswith(f"{words['key']} is not rotated: titan-brain runs, but its health check says unhealthy.")
    assert "titan/execution:1 is another image by now" in said
    assert len([text for text in planned(force=True).warnings if text.startswith("Forced although: ")]) == 2


def test_services_that_were_made_with_another_value_are_refused(kind: Kind) -> None:
    host, planned, words = kind
    config = host.one(EXECUTION)["Config"]
    config["Env"] = [entry.replace(words["value"], "9" * 30) for entry in config["Env"]]
    said = refused(planned, force=True)
    assert f"they hold another {words['key']}: titan-execution. Nothing was changed. Recreate them first" in said
    assert ("recover: true" in said) is (words["what"] == "password")


def test_a_name_that_is_no_service_is_refused_before_anything_is_stopped(kind: Kind) -> None:
    """A run finds it later at the latest, and a check that lets it pass has promised too much."""
    host, planned, words = kind
    entry = {"service": "titan-brian", "port": 3100, "path": "/health"}
    probe = Probe.from_params(entry) if words["what"] == "password" else SignedProbe(**entry)
    wrong: list[dict[str, Any]] = [{"probes": (probe,)}, {"carry_files": {"titan-brian": ("/app/x",)}}]
    for changes in wrong:
        assert "no service or container named titan-brian" in refused(planned, **changes), changes
    assert host.operations == []


@pytest.mark.parametrize("where", ["plan", "snapshot"])
def test_an_error_before_the_transaction_says_that_nothing_was_changed_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Of Docker, or of Compose, while the plan is made or just before the journal is written."""
    host = rotating.new_host(tmp_path / "titan", monkeypatch)

    def broken(*_args: object, **_more: object) -> None:
        raise OpsError("The Docker Engine said no")

    place = (hmac, "read_secret") if where == "plan" else (Originals, "take")
    monkeypatch.setattr(*place, broken)
    with pytest.raises(OpsError) as caught:
        hmac.rotate(host.stack(), rotating.options())
    assert str(caught.value) == (
        "The Docker Engine said no. Nothing was changed. Mend the cause and run the same playbook again."
    )
    assert host.operations == []


def test_an_error_after_the_transaction_began_keeps_its_own_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = rotating.new_host(tmp_path / "titan", monkeypatch)
    host.sick = lambda service, environment: fake_host.OLD not in environment.values()
    with pytest.raises(OpsError, match="It was undone") as caught:
        hmac.rotate(host.stack(), rotating.options())
    assert "Nothing was changed" not in str(caught.value)


def test_a_recovery_that_is_refused_does_not_say_that_nothing_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = rotating.new_host(tmp_path / "titan", monkeypatch)
    rotating.killed_before(host, f"Compose creates {BRAIN}", rotating.options())

    def broken(*_args: object, **_more: object) -> None:
        raise InvalidInput("The env file is a directory")

    monkeypatch.setattr(transaction, "put_back", broken)
    with pytest.raises(OpsError) as caught:
        hmac.rotate(host.stack(), rotating.options())
    said = str(caught.value)
    assert "could not be undone: The env file is a directory. The stack may be stopped or hold two values" in said
    assert "Nothing was changed" not in said


def test_what_a_failure_returns_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a service that fails, of a refusal with reasons, and of a copy that the env file does not reach."""
    host = rotating.new_host(tmp_path / "titan", monkeypatch)
    seen: set[str] = {"reason", "state", "hint"}  # which the bridge adds to each

    def failed() -> None:
        with pytest.raises(OpsError) as caught:
            hmac.rotate(host.stack(), rotating.options())
        seen.update(set(caught.value.facts) - {"warnings"})

    host.sick = lambda service, environment: fake_host.OLD not in environment.values()
    failed()
    host.sick = lambda service, environment: False
    host.one(BRAIN)["State"]["Health"]["Status"] = "unhealthy"
    failed()
    assert {"rolled_back", "steps", "interruption", "service", "log", "reasons"} <= seen
    for name in ("hmac_rotate", "pg_password"):
        text = (ROOT / "plugins" / "modules" / f"{name}.py").read_text(encoding="utf-8")
        documented = yaml.safe_load(text.partition('RETURN = r"""')[2].partition('"""')[0])
        assert {*seen, "literals"} - set(documented) == set(), name


def test_a_pending_change_of_configuration_is_warned_of(kind: Kind) -> None:
    host, planned, _words = kind
    host.one(BRAIN)["Config"]["Labels"]["com.docker.compose.config-hash"] = "another"
    assert any("titan-brain: its configuration changed since it was made" in text for text in planned().warnings)
