# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database password: role, env file and holders agree, whatever happens; killed and failed at every operation."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.database import hba, server
from ansible_collections.titan.ops.plugins.module_utils.database.login import LoginFailed
from ansible_collections.titan.ops.plugins.module_utils.database.server import Facts, Session, Target
from ansible_collections.titan.ops.plugins.module_utils.health.probe import Probe
from ansible_collections.titan.ops.plugins.module_utils.rotation import pg, recovery
from ansible_collections.titan.ops.plugins.module_utils.rotation.pg_options import ALPHABET, PgOptions
from ansible_collections.titan.ops.plugins.module_utils.rotation.pg_plan import plan
from ansible_collections.titan.ops.plugins.module_utils.rotation.spec import pg_spec
from ansible_collections.titan.ops.tests.unit import fake_host
from ansible_collections.titan.ops.tests.unit.fake_host import Host, Killed
from ansible_collections.titan.ops.tests.unit.loopback import Request, serve
from ansible_collections.titan.ops.tests.unit.rotating import kill_at, let_live, new_host

OLD, NEW, THIRD = "old-password-of-the-role", "NewPasswordOfTheRole", "ThirdPasswordOfTheRole"
BRAIN, EXECUTION, QUANT, DATABASE = "titan-brain", "titan-execution", "titan-ai-quant", "titan-postgres"
URL = "postgres://titan:{}@titan-postgres:5432/titan_brain"
ENV = f"# Titan\r\nTITAN_DB_PASSWORD={OLD}\nDATABASE_URL={URL.format(OLD)}\n\nLAST=1"
SERVICES: dict[str, dict[str, Any]] = {
    BRAIN: {"image": "titan/brain:1", "env_file": True},
    EXECUTION: {"image": "titan/execution:1", "env_file": True},
    QUANT: {"image": "titan/ai-quant:1", "environment": {"PGPASSWORD": "${TITAN_DB_PASSWORD}"}},
    DATABASE: {"image": "titan/postgres:17", "environment": {"POSTGRES_PASSWORD": "${TITAN_DB_PASSWORD}"}},
    "titan-nats": {"image": "nats:2"},
}
RULES = (hba.Rule(1, "host", ("all",), ("all",), "all", "", "scram-sha-256"),)


class Database:
    """The server of such a host: its role's password lasts, and it answers while its container runs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.password = OLD
        self.trusting = False
        self.facts = Facts(170002, False, True, True, False, "172.18.0.1", RULES)
        self.sessions: list[Session] = []
        self.never_again = False  # no more changes of the role

    def connect(self, stack: Stack, target: Target) -> Any:
        return Server(self, stack, target)


class Server:
    """Stands for database.server.Server, which test_database_server.py shows on a real one."""

    def __init__(self, database: Database, stack: Stack, target: Target) -> None:
        self._database, self._stack, self._target = database, stack, target
        self.name = DATABASE

    def _up(self) -> None:
        if self._database.host.one(DATABASE)["State"]["Status"] != "running":
            raise LoginFailed("The database titan-postgres does not run", passing=True)

    def wake(self, *, timeout: float) -> bool:
        return server.Server(self._stack, self._target).wake(timeout=timeout)

    def running(self) -> bool:
        return bool(self._database.host.one(DATABASE)["State"]["Status"] == "running")

    def accepts(self, password: str, *, timeout: float = 0) -> bool:
        self._up()
        return self._database.trusting or password == self._database.password

    def takes_anything(self) -> bool:
        self._up()
        return self._database.trusting

    def look(self, password: str | None) -> Facts:
        assert password in (None, self._database.password)
        return self._database.facts

    def put(self, value: str, other: str, *, timeout: float, stored: str | None = None) -> bool:
        self._up()
        assert stored == (self._database.facts.verifier if value == OLD else None)
        if self._database.password == value:
            return False
        if self._database.password != other and not self._target.socket:
            raise OpsError("The database accepts neither the old nor the new password of titan")
        if self._database.never_again:
            raise OpsError("The database titan-postgres refused: no")
        self._database.host.do("ALTER ROLE")
        self._database.password = value
        return True

    def sessions(
        self, password: str | None, addresses: Iterable[str], applications: Iterable[str], *, end: bool = False
    ) -> list[Session]:
        assert BRAIN in applications
        found = list(self._database.sessions)
        if end:
            self._database.sessions.clear()
        return found


def options(**changes: Any) -> PgOptions:
    return PgOptions(**{"probes": (), "health_timeout": 20, "password": NEW, **changes})


class Run:
    """Runs of the module on one host: what lasts is on the host and in the database."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.database = Database(host)

    def rotate(self, **changes: Any) -> dict[str, Any]:
        check_mode = changes.pop("check_mode", False)
        return pg.rotate(self.host.stack(), options(**changes), check_mode=check_mode, connector=self.database.connect)

    def recover(self, **changes: Any) -> str | None:
        return pg.recover(self.host.stack(), connector=self.database.connect, **changes)

    def assert_one_secret(self, value: str, *, database: str = OLD) -> None:
        """Role, file and every holder say the value and nothing else does; all run; nothing is left behind."""
        host, other = self.host, {OLD: NEW, NEW: OLD}[value]
        assert self.database.password == value
        assert host.env_file.read_bytes() == ENV.replace(OLD, value).encode()
        for service in (BRAIN, EXECUTION, QUANT):
            assert other not in str(host.one(service)), service
            assert value in str(host.one(service)), service
        assert host.environment(DATABASE) == {"POSTGRES_PASSWORD": database}
        for service in SERVICES:
            assert host.one(service)["State"]["Status"] == "running"
            assert host.one(service)["Name"] == f"/{service}"
        found = [path for path in host.src.rglob("*") if path.is_file() and path.parent != host.src]
        notes = [path for path in found if path.suffix == ".ended"]  # until the history says so, not in play here
        assert [path.name for path in found if path not in notes] == [".env.prod"]
        assert not any(secret in path.read_text() for path in notes for secret in (OLD, NEW))


def made(src: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [*fake_host.SERVICES]:
        monkeypatch.delitem(fake_host.SERVICES, name)
    for name, body in SERVICES.items():
        monkeypatch.setitem(fake_host.SERVICES, name, body)
    monkeypatch.setattr(fake_host, "ENV", ENV)
    return Run(new_host(src, monkeypatch))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return made(tmp_path / "titan", monkeypatch)


def test_what_the_database_keeps_of_the_old_password_is_what_an_undo_gives_it(run: Run) -> None:
    """The stand-in for the server asserts it, in this run and in the next one."""
    run.database.facts = replace(run.database.facts, verifier="md5" + "0" * 32)
    fail: list[str] = []

    def at(_number: int, name: str) -> None:
        if name == "rename .env.prod" and not fail:
            fail.append(name)
            assert "md5000" in (run.host.src / "state" / "pg_password.journal").read_text()
            raise Killed

    run.host.at = at
    with pytest.raises(Killed):
        run.rotate()
    assert run.database.password == NEW
    assert run.recover() == "undone"
    run.assert_one_secret(OLD)


def test_an_md5_password_that_may_not_be_read_is_told(run: Run) -> None:
    run.database.facts = replace(run.database.facts, md5=True)
    assert any("as an MD5 verifier" in text for text in run.rotate(check_mode=True)["warnings"])


# Options


def test_options_that_are_not_given_have_the_runbooks_defaults() -> None:
    made_ = PgOptions.from_params({"key": None, "guards": None, "project_src": "/x"})
    assert made_ == PgOptions()
    defaults = {name: spec["default"] for name, spec in pg_spec().items() if "default" in spec}
    assert PgOptions.from_params(defaults) == PgOptions()
    assert (made_.key, made_.role, made_.database, made_.port) == ("TITAN_DB_PASSWORD", "titan", "titan_brain", 5432)
    assert [probe.path for probe in made_.probes] == ["/health"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"password": "abcde"}, "too short: 5 characters, at least 16"),
        ({"password": "x" * 257}, "too long"),
        ({"password": "with a space in it "}, "would not survive every env file"),
        ({"password": "with-a-dollar$-in-it"}, "would not survive"),
        ({"password": "with/a/slash@and:more"}, "would not survive"),
        ({"password": "with-a-quote'-in-it"}, "would not survive"),
        ({"password": "n\u00efn\u00ef" * 8}, "would not survive"),
        ({"password": "-begins-with-a-dash"}, "must begin with a letter or a digit"),
        ({"password": "has-a-tilde~in-it-"}, "would not survive"),
        ({"password": "_begins-with-another"}, "must begin with a letter or a digit"),
        ({"length": 15}, "length is 15 characters; it must be between 16 and 256"),
        ({"alphabet": "ab", "length": 20}, r"can be guessed \(20 bits"),
        ({"alphabet": "abc$"}, r"not survive every env file, URL, shell and SQL text: \$"),
        ({"alphabet": "._-"}, "no letter and no digit"),
        ({"key": "A B"}, "key is not a variable name"),
        ({"stale": "x"}, "stale must be one of"),
        ({"on_session_timeout": "x"}, "on_session_timeout must be one of"),
        ({"port": 0}, "port must be between 1 and 65535"),
        ({"carry_files": {"a": ["app/x"]}}, "must be absolute paths"),
    ],
)
def test_options_out_of_range_are_refused_without_quoting_a_password(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        PgOptions.from_params(given)
    assert str(given.get("password")) not in str(caught.value)
    assert "Nothing was changed." in str(caught.value)


def test_a_password_that_is_made_has_the_length_and_the_alphabet_asked_for() -> None:
    assert len(PgOptions().new_password()) == 40
    assert set(PgOptions().new_password()) <= set(ALPHABET)
    for _attempt in range(200):
        password = PgOptions(length=60, alphabet="-_.ab19x").new_password()
        assert len(password) == 60
        assert set(password) <= set("-_.ab19x")
        assert password[0] in "ab19x"
    assert PgOptions().new_password() != PgOptions().new_password()


# Plan


def test_the_plan_names_every_holder_and_leaves_the_database_itself_alone(run: Run) -> None:
    planned = run.rotate(check_mode=True)
    assert planned["holders"] == [
        {"service": QUANT, "variables": ["PGPASSWORD"], "action": "recreated"},
        {"service": BRAIN, "variables": ["DATABASE_URL", "TITAN_DB_PASSWORD"], "action": "switched"},
        {"service": EXECUTION, "variables": ["DATABASE_URL", "TITAN_DB_PASSWORD"], "action": "switched"},
        {"service": DATABASE, "variables": ["POSTGRES_PASSWORD"], "action": "kept"},
    ]
    assert planned["variables"] == ["TITAN_DB_PASSWORD", "DATABASE_URL"]
    assert "role titan of titan-postgres (new secret)" in planned["diff"]["after"]
    assert "titan-postgres: POSTGRES_PASSWORD (old secret)" in planned["diff"]["after"]
    assert any("titan-postgres itself keeps the old password" in text for text in planned["warnings"])
    assert run.host.operations == []
    run.assert_one_secret(OLD)


def test_what_is_planned_is_what_is_done(run: Run) -> None:
    planned, done = run.rotate(check_mode=True), run.rotate()
    assert {name: done[name] for name in ("holders", "steps", "variables")} == {
        name: planned[name] for name in ("holders", "steps", "variables")
    }
    assert NEW not in str(done) and OLD not in str(done)
    run.assert_one_secret(NEW)


def test_a_service_that_does_not_hold_it_runs_on(run: Run) -> None:
    before = run.host.one("titan-nats")["Id"]
    done = run.rotate(services=(BRAIN, EXECUTION, "titan-nats"))
    assert done["not_stopped"] == ["titan-nats"]
    assert "titan-nats does not hold TITAN_DB_PASSWORD: it is not stopped" in done["warnings"]
    assert run.host.one("titan-nats")["Id"] == before
    with pytest.raises(InvalidInput, match="None of the services titan-nats holds TITAN_DB_PASSWORD"):
        run.rotate(services=("titan-nats",), password=THIRD)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": OLD}, "The given password is the one that is in use"),
        ({"services": (DATABASE,)}, "is the database itself"),
        ({"stale": "fail"}, "Other services hold TITAN_DB_PASSWORD, too: titan-ai-quant"),
        ({"key": "NOPE"}, "does not set NOPE"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(run: Run, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        run.rotate(**changes)
    assert run.host.operations == []
    run.assert_one_secret(OLD)


def test_a_database_that_does_not_run_is_refused(run: Run) -> None:
    run.host.stop(run.host.one(DATABASE)["Id"])
    with pytest.raises(Refused, match="titan-postgres does not run"):
        run.rotate()


def test_a_database_that_trusts_this_host_is_refused(run: Run) -> None:
    run.database.trusting = True
    with pytest.raises(Refused, match="any password \\(trust\\), so that nothing can be proved"):
        run.rotate()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "refuses the current password of titan that the env file has"),
        ({"exists": False}, "The database has no role titan"),
        ({"can_login": False}, "may not log in"),
        ({"expired": True}, "has expired"),
        ({"version": 90500}, r"PostgreSQL 9\.5, which does not know SCRAM"),
    ],
)
def test_a_password_that_the_database_refuses_is_told_with_its_reason(
    run: Run, facts: dict[str, Any], said: str
) -> None:
    run.database.password = THIRD
    run.database.facts = Facts(**{**run.database.facts.__dict__, **facts})
    with pytest.raises(Refused, match=said) as caught:
        run.rotate()
    assert run.host.operations == []
    if not facts:
        assert "recover: true" in str(caught.value)


def test_a_rule_that_would_not_take_a_password_from_brain_is_refused(run: Run) -> None:
    rules = (hba.Rule(3, "host", ("all",), ("all",), "172.18.0.2", "255.255.255.255", "reject"), *RULES)
    run.database.facts = Facts(**{**run.database.facts.__dict__, "rules": rules})
    with pytest.raises(Refused, match=r"from 172\.18\.0\.2 .*reject \(pg_hba\.conf, line 3\)"):
        run.rotate()


def test_a_line_for_a_network_on_which_the_database_is_not_forbids_nothing(run: Run) -> None:
    rules = (hba.Rule(3, "host", ("all",), ("all",), "172.99.0.0", "255.255.0.0", "reject"), *RULES)
    run.database.facts = Facts(**{**run.database.facts.__dict__, "rules": rules})
    networks = run.host.one(BRAIN)["NetworkSettings"]["Networks"]
    networks["monitoring"] = {"IPAddress": "172.99.0.7"}
    run.rotate(check_mode=True)
    run.host.one(DATABASE)["NetworkSettings"]["Networks"]["monitoring"] = {"IPAddress": "172.99.0.8"}
    with pytest.raises(Refused, match=r"from 172\.99\.0\.7 .*reject \(pg_hba\.conf, line 3\)"):
        run.rotate(check_mode=True)


# Success


def test_role_file_and_holders_end_with_the_new_password_and_the_role_is_told_first(run: Run) -> None:
    run.rotate()
    run.assert_one_secret(NEW)
    done = [item for item in run.host.operations if "journal" not in item]
    stops = [done.index(f"stop {name}") for name in (BRAIN, EXECUTION)]
    order = [*stops, done.index("ALTER ROLE"), done.index("rename .env.prod"), done.index(f"start {BRAIN}")]
    assert order == sorted(order)
    assert f"stop {DATABASE}" not in done


def test_the_database_is_recreated_before_the_services_start_when_asked(run: Run) -> None:
    planned, done = run.rotate(check_mode=True, recreate_database=True), run.rotate(recreate_database=True)
    assert planned["steps"] == done["steps"]
    run.assert_one_secret(NEW, database=NEW)
    operations = run.host.operations
    assert operations.index("ALTER ROLE") < operations.index(f"start {DATABASE}") < operations.index(f"start {BRAIN}")


def test_brains_own_health_is_asked_and_brings_everything_back(run: Run) -> None:
    states = [200, 503]

    def health(_request: Request) -> tuple[int, Any]:
        return (200 if run.database.password == OLD else states[-1]), {}

    run.host.address = "127.0.0.1"
    for raw in run.host.containers.values():
        run.host.stop(raw["Id"])
        run.host.start(raw["Id"])
    with serve(health) as port:
        probe = Probe.from_params({"service": BRAIN, "port": port, "path": "/health"})
        with pytest.raises(OpsError, match=r"titan-brain is not well with the password.*status 503") as caught:
            run.rotate(probes=(probe,), health_timeout=1)
        assert caught.value.facts["rolled_back"] is True
        run.assert_one_secret(OLD)
        states[-1] = 200
        done = run.rotate(probes=(probe,))
    run.assert_one_secret(NEW)
    login = "login over TCP: the new password is accepted, the old one refused"
    assert done["proved"] == [login, "titan-brain: GET /health is well"]
    assert not [text for text in done["warnings"] if text.startswith("No request")]


def test_a_brain_that_was_not_well_and_is_not_asked_is_told(run: Run) -> None:
    run.host.one(BRAIN)["State"]["Health"]["Status"] = "unhealthy"
    probe = Probe.from_params({"service": BRAIN, "port": 1, "path": "/health"})
    done = run.rotate(probes=(probe,), force=True)
    assert [text.partition(":")[0] for text in done["proved"]] == ["login over TCP"]
    assert any(text.startswith("No request to a service has proved the new") for text in done["warnings"])


# Sessions

LONG = Session(77, BRAIN, "172.18.0.2", "active", 65.0)


def test_a_session_that_stays_undoes_the_rotation_and_is_named(run: Run) -> None:
    run.database.sessions = [LONG]
    began = run.host.clock.monotonic()
    with pytest.raises(OpsError) as caught:
        run.rotate(session_timeout=5)
    said = str(caught.value)
    assert 'failed at "wait for their sessions to end": Sessions of the stopped services are still' in said
    assert "process 77 (titan-brain from 172.18.0.2, active, in a transaction for 65 s)" in said
    assert "on_session_timeout: terminate" in said
    assert run.host.clock.monotonic() - began < 15
    assert "ALTER ROLE" not in run.host.operations
    run.assert_one_secret(OLD)


def test_a_session_that_stays_is_ended_or_left_alone_when_asked(run: Run) -> None:
    run.database.sessions = [LONG]
    done = run.rotate(session_timeout=1, on_session_timeout="continue")
    assert done["sessions"]["left"] == [str(LONG)]
    assert any("go on with what they do: process 77" in text for text in done["warnings"])
    done = run.rotate(session_timeout=1, on_session_timeout="terminate", password=OLD)
    assert (done["sessions"]["terminated"], done["sessions"]["left"]) == (1, [])
    run.assert_one_secret(OLD)


# A lost password


def test_a_lost_password_is_set_through_the_socket(run: Run) -> None:
    run.database.password = THIRD
    run.host.sick = lambda service, environment: service == BRAIN and run.database.password not in str(environment)
    for service in (BRAIN, EXECUTION):
        run.host.stop(run.host.one(service)["Id"])
        run.host.start(run.host.one(service)["Id"])
    with pytest.raises(Refused):
        run.rotate()
    done = run.rotate(recover=True)
    assert any("it is set through the socket" in text for text in done["warnings"])
    run.assert_one_secret(NEW)


def test_after_a_lost_password_brain_must_be_well_although_it_was_not_before(run: Run) -> None:
    run.database.password = THIRD
    run.host.sick = lambda service, environment: service == BRAIN
    run.host.stop(run.host.one(BRAIN)["Id"])
    run.host.start(run.host.one(BRAIN)["Id"])
    with pytest.raises(OpsError, match="titan-brain is unhealthy"):
        run.rotate(recover=True)
    assert run.database.password == OLD  # what the env file says


@pytest.mark.parametrize("killed", [False, True])
def test_a_lost_password_that_was_not_set_yet_is_left_alone_by_an_undo(run: Run, killed: bool) -> None:
    """A holder may live on it: by setting the env file's in its place the undo would do harm of its own."""
    run.database.password = THIRD

    def at(_number: int, name: str) -> None:
        if name == "ALTER ROLE":
            raise AssertionError("the undo set a password")
        if name == f"stop {EXECUTION}":
            run.host.at = lambda _number, now: at(0, now) if now == "ALTER ROLE" else None
            raise Killed if killed else OpsError("no")

    run.host.at = at
    with pytest.raises(Killed if killed else OpsError) as caught:
        run.rotate(recover=True)
    if killed:
        assert run.recover() == "undone"
    else:
        assert "It was undone" in str(caught.value)
        assert "The database was not changed yet: it has the password that it had" in str(caught.value)
    assert run.database.password == THIRD
    assert run.host.env_file.read_bytes() == ENV.encode()
    assert not (run.host.src / "state" / "pg_password.journal").exists()


# Failure


def failure_of(name: str) -> Exception:
    if name.startswith("Compose"):
        return OpsError(f"`docker compose up` failed: {name}")
    if name == "ALTER ROLE":
        return OpsError("The database titan-postgres refused: no")
    if name.split()[0] in ("write", "rename", "delete"):
        return OSError(28, "No space left on device")
    return docker.errors.APIError(f"cannot {name}")


def opens(run: Run) -> bool:
    """Whether a password that is stored on disk opens the database now: the env file's, or one of the journal's."""
    stored = run.host.env_file.read_text()
    with contextlib.suppress(OSError):
        record = json.loads((run.host.src / "state" / "pg_password.journal").read_text())
        stored += f" {record['old']} {record['new']}"
    return run.database.password in stored


WAYS: dict[str, dict[str, Any]] = {"plain": {}, "database too": {"recreate_database": True}, "all": {"services": ()}}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WAYS[request.param]


@pytest.fixture
def total(way: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many operations an undisturbed rotation takes."""
    rehearsal = made(tmp_path / "rehearsal", monkeypatch)
    rehearsal.rotate(**way)
    monkeypatch.undo()
    assert len(rehearsal.host.operations) > 25
    return len(rehearsal.host.operations)


def each(total: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Run]]:
    for number in range(1, total + 1):
        yield number, made(tmp_path / str(number), monkeypatch)
        monkeypatch.undo()


def test_any_one_operation_may_fail_and_the_old_password_is_back(
    way: dict[str, Any], total: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, run in each(total, tmp_path, monkeypatch):

        def at(now: int, name: str, number: int = number, run: Run = run) -> None:
            assert opens(run), name
            if now == number:
                raise failure_of(name)

        run.host.at = at
        error = None
        try:
            run.rotate(**way)
        except OpsError as exc:
            error = exc
        failed = run.host.operations[number - 1]
        if failed.endswith(".ended"):  # a note for the history: what has ended well is not undone for that
            assert error is None
            run.assert_one_secret(NEW, database=NEW if "recreate_database" in way else OLD)
            continue
        assert error is not None, failed
        run.assert_one_secret(OLD)
        if number > 1:
            assert error.facts["rolled_back"] is True, failed
        assert OLD not in str(error) and NEW not in str(error)


@pytest.mark.parametrize("meanwhile", ["nothing", "database stopped", "everything stopped", "everything started"])
def test_killed_at_any_operation_the_next_run_finishes_or_undoes(
    way: dict[str, Any], total: int, meanwhile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = set()
    for number, run in each(total, tmp_path, monkeypatch):
        kill_at(run.host, number)
        with pytest.raises(Killed):
            run.rotate(**way)
        let_live(run.host)
        assert opens(run)
        _disturb(run.host, meanwhile)
        run.host.at = lambda _number, name, run=run: _check(opens(run), name)
        done = run.recover()
        let_live(run.host)
        ended.add(done)
        if done is None:  # killed before the journal, or when it was gone
            for name in (DATABASE, BRAIN, EXECUTION, QUANT, "titan-nats"):
                run.host.start(run.host.one(name)["Id"])
        elif meanwhile == "everything stopped":  # what is not part of the rotation stays as it was left
            run.host.start(run.host.one("titan-nats")["Id"])
        value = run.database.password
        run.assert_one_secret(value, database=run.host.environment(DATABASE)["POSTGRES_PASSWORD"])
        if way.get("recreate_database"):
            assert run.host.environment(DATABASE)["POSTGRES_PASSWORD"] == value
    assert {"finished", "undone"} <= ended


def settled(run: Run, changes: dict[str, Any]) -> str:
    try:
        run.rotate(**changes)
    except OpsError as exc:
        assert exc.facts["rolled_back"] is True, str(exc)
        return "undone"
    return "done"


@pytest.mark.parametrize("how", ["exited", "paused", "restarting"])
def test_a_database_that_ends_at_any_operation_runs_again_at_the_end(
    how: str, way: dict[str, Any], total: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = set()
    for number, run in each(total, tmp_path, monkeypatch):

        def at(now: int, _name: str, number: int = number, host: Host = run.host) -> None:
            if now == number:
                [raw] = [item for item in host.of(DATABASE) if item["State"]["Status"] == "running"][:1] or [None]
                if raw:
                    raw["State"]["Status"] = how

        def passing(host: Host = run.host) -> None:
            for raw in host.of(DATABASE):
                if raw["State"]["Status"] == "restarting":
                    host.start(raw["Id"])

        run.host.at, run.host.clock.on_sleep = at, passing
        ends.add(settled(run, way))
        let_live(run.host)
        if run.host.one(DATABASE)["State"]["Status"] == how:  # it ended when all was done
            assert number >= total - 3
            run.host.one(DATABASE)["State"]["Status"] = "running"
        value = run.database.password
        run.assert_one_secret(value, database=run.host.environment(DATABASE)["POSTGRES_PASSWORD"])
    assert "undone" in ends or how == "restarting"


def _check(truth: bool, name: str) -> None:
    assert truth, name


def _disturb(host: Host, meanwhile: str) -> None:
    chosen = {"nothing": (), "database stopped": (DATABASE,)}.get(meanwhile, tuple(SERVICES))
    for name in chosen:
        for raw in host.of(name):
            if meanwhile == "everything started":
                running = [item for item in host.of(name) if item["State"]["Status"] == "running"]
                if not running:
                    host.start(raw["Id"])
            else:
                host.stop(raw["Id"])


def test_killed_twice_it_still_ends_well(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for first in range(4, 30, 4):
        for second in range(1, 22, 3):
            monkeypatch.undo()
            again = made(tmp_path / f"{first}-{second}", monkeypatch)
            kill_at(again.host, first)
            with contextlib.suppress(Killed):
                again.rotate()
            kill_at(again.host, second)
            with contextlib.suppress(Killed):
                again.recover()
            let_live(again.host)
            again.recover()
            again.assert_one_secret(again.database.password)


def test_a_role_that_got_a_third_password_meanwhile_is_not_guessed_at_but_mended_through_the_socket(run: Run) -> None:
    kill_at(run.host, 12)
    with pytest.raises(Killed):
        run.rotate()
    let_live(run.host)
    run.database.password = THIRD
    with pytest.raises(OpsError, match="could not be undone: The database accepts neither"):
        run.recover()
    assert (run.host.src / "state" / "pg_password.journal").exists()
    assert run.recover(socket=True) in ("finished", "undone")
    run.assert_one_secret(run.database.password)


def test_a_third_password_given_to_all_by_hand_supersedes_the_rotation_only_if_the_database_takes_it(run: Run) -> None:
    kill_at(run.host, 12)
    with pytest.raises(Killed):
        run.rotate()
    let_live(run.host)
    run.host.env_file.write_text(ENV.replace(OLD, THIRD))
    run.host.remake(BRAIN, EXECUTION, QUANT)
    with pytest.raises(OpsError, match="edited meanwhile"):
        run.recover()
    run.database.password = THIRD
    assert run.recover() == "superseded"
    assert run.recover() is None


def test_an_undo_that_the_database_refuses_keeps_the_journal(run: Run) -> None:
    def at(_number: int, name: str) -> None:
        if name == f"start {BRAIN}":
            run.database.never_again = True
            raise docker.errors.APIError("no")

    run.host.at = at
    with pytest.raises(OpsError, match="Undoing it failed, too: The database titan-postgres refused") as caught:
        run.rotate()
    assert caught.value.facts["rolled_back"] is False
    let_live(run.host)
    run.database.never_again = False
    run.recover()
    run.assert_one_secret(run.database.password)


# Recovery of any kind


def test_an_interrupted_rotation_is_told_in_check_mode_and_recovered_by_a_run_of_the_other_kind(run: Run) -> None:
    kill_at(run.host, 12)
    with pytest.raises(Killed):
        run.rotate()
    let_live(run.host)
    stack = run.host.stack()
    assert recovery.recover_all(stack, check_mode=True) == {"pg_password": "interrupted"}
    with pytest.raises(Refused, match=r"another kind was found \(pg_password\)"):
        recovery.recover_others(stack, "hmac_rotate", check_mode=True)
    recovery.recover_others(stack, "hmac_rotate", check_mode=False, connector=run.database.connect)
    run.assert_one_secret(run.database.password)
    assert recovery.recover_all(run.host.stack()) == {}


def test_the_plan_is_readable_and_holds_no_secret_in_its_representation(run: Run) -> None:
    stack = run.host.stack()
    planned = plan(stack, options(), run.database.connect(stack, Target()))
    assert OLD not in repr(planned) and NEW not in repr(options())
