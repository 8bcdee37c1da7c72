# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role's password on a real PostgreSQL server: told apart, set, and nowhere in its log."""

from __future__ import annotations

import contextlib
import multiprocessing
import types
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.container import Container
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock, wait_for
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError, Refused
from ansible_collections.titan.ops.plugins.module_utils.core.redact import Redactor
from ansible_collections.titan.ops.plugins.module_utils.database import hba, login
from ansible_collections.titan.ops.plugins.module_utils.database.checks import refuse_unless_usable
from ansible_collections.titan.ops.plugins.module_utils.database.login import Endpoint, LoginFailed
from ansible_collections.titan.ops.plugins.module_utils.database.psql import quote_ident, quote_literal
from ansible_collections.titan.ops.plugins.module_utils.database.server import Facts, Server, Target
from ansible_collections.titan.ops.tests.unit import postgres

pytest.importorskip("psycopg2")

OLD, NEW = "the-old-password-of-titan", "the-new-password-of-titan"


@pytest.fixture(scope="module")
def running() -> Iterator[postgres.Postgres]:
    if postgres.directory() is None:
        pytest.skip("NOT RUN: no PostgreSQL server on this machine (Debian, Ubuntu: apt-get install postgresql)")
    with postgres.running() as made:
        for name in ("titan_brain", "trusting", "rejecting", "asking", "md5"):
            made.sql(f"CREATE DATABASE {name}")
        yield made


@pytest.fixture
def server(running: postgres.Postgres) -> Iterator[postgres.Postgres]:
    """The server with the role titan, an ordinary one, whose password is OLD."""
    running.sql("SET log_statement = none", f"CREATE ROLE titan LOGIN PASSWORD '{OLD}'")
    yield running
    running.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'titan'")
    running.sql("DROP OWNED BY titan", "DROP ROLE titan")


def _container(status: str = "running") -> Container:
    return Container(
        id="abc",
        name="titan-postgres",
        labels={},
        status=status,
        health="healthy",
        exit_code=0,
        restart_count=0,
        restart_policy="no",
        image="",
        image_id="",
        started_at=1.0,
        finished_at=None,
        healthy_at=None,
        addresses=(),
        error="",
        environment={"POSTGRES_USER": "postgres"},
    )


def opened(running: postgres.Postgres, **target: Any) -> Server:
    """The server as the engine sees it, on a stack of nothing else."""
    stack: Any = types.SimpleNamespace(
        resolve=lambda name: name,
        containers_of=lambda services: {name: [_container()] for name in services},
        clock=Clock(),
        redact=Redactor(),
        options=types.SimpleNamespace(docker_host="unix:///nowhere"),
    )
    chosen = Target(**{"host": "127.0.0.1", "port": running.port, **target})
    return Server(stack, chosen, runner=running.runner())


# Logins


def test_a_right_password_a_wrong_one_and_a_missing_role_are_told_apart(server: postgres.Postgres) -> None:
    assert opened(server).accepts(OLD) is True
    assert opened(server).accepts(NEW) is False
    # SCRAM does not tell a wrong password from a role that is not there
    assert opened(server, role="nobody").accepts(OLD) is False


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"database": "rejecting"}, "pg_hba.conf rejects connection"),
        ({"port": 1}, "Connection refused"),
    ],
)
def test_a_login_that_fails_for_another_reason_is_no_wrong_password(
    server: postgres.Postgres, target: dict[str, Any], said: str
) -> None:
    with pytest.raises(LoginFailed, match=said) as caught:
        opened(server, **target).accepts(OLD)
    assert not caught.value.wrong_password
    assert OLD not in str(caught.value)


def test_a_role_without_login_is_told_from_a_wrong_password(server: postgres.Postgres) -> None:
    server.sql("ALTER ROLE titan NOLOGIN")
    with pytest.raises(LoginFailed, match='role "titan" is not permitted to log in'):
        opened(server).accepts(OLD)


def test_a_server_that_trusts_us_is_noticed(server: postgres.Postgres) -> None:
    assert opened(server).takes_anything() is False
    assert opened(server, database="trusting").takes_anything() is True


def test_a_server_that_does_not_answer_gets_the_time_it_was_given(server: postgres.Postgres) -> None:
    with pytest.raises(LoginFailed) as caught:
        opened(server, port=1).accepts(OLD, timeout=0.2)
    assert caught.value.passing


def test_without_psycopg2_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "IMPORT_ERROR", ImportError("no", name="psycopg2"))
    with pytest.raises(OpsError, match="python3-psycopg2"):
        login.connect(Endpoint("titan-postgres", "127.0.0.1", 1, "titan_brain", "titan"), OLD)


# The change


def test_the_password_is_changed_and_changing_it_again_does_nothing(server: postgres.Postgres) -> None:
    database = opened(server)
    assert database.put(NEW, OLD, timeout=5) is True
    assert (database.accepts(NEW), database.accepts(OLD)) == (True, False)
    assert database.put(NEW, OLD, timeout=5) is False
    assert database.put(OLD, NEW, timeout=5) is True
    assert (database.accepts(NEW), database.accepts(OLD)) == (False, True)


@pytest.mark.parametrize("database", ["titan_brain", "md5"])
def test_a_role_with_an_md5_password_gets_a_scram_verifier_that_md5_lines_accept(
    server: postgres.Postgres, database: str
) -> None:
    server.sql("SET password_encryption = 'md5'", f"ALTER ROLE titan PASSWORD '{OLD}'")
    target = opened(server, database="md5")
    target.put(NEW, OLD, timeout=5)
    assert opened(server, database=database).accepts(NEW)
    assert server.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'titan'").startswith("SCRAM-SHA-256$4096:")


def test_an_md5_verifier_is_what_the_role_has_again_after_an_undo(server: postgres.Postgres) -> None:
    """A holder whose driver knows no SCRAM lives on it."""
    kept = "SELECT rolpassword FROM pg_authid WHERE rolname = 'titan'"
    server.sql("SET log_statement = none", "SET password_encryption = 'md5'", f"ALTER ROLE titan PASSWORD '{OLD}'")
    before = server.sql(kept)
    assert before.startswith("md5")
    database = opened(server, database="md5")
    facts = database.look(OLD)
    assert (facts.verifier, facts.md5) == (None, True)  # an ordinary role may not read it, and the server tells
    server.sql("ALTER ROLE titan SUPERUSER")
    facts = database.look(OLD)
    assert (facts.verifier, facts.md5) == (before, False)
    assert before not in repr(facts)
    database.put(NEW, OLD, timeout=5)
    assert server.sql(kept).startswith("SCRAM")
    assert database.put(OLD, NEW, timeout=5, stored=facts.verifier) is True
    assert server.sql(kept) == before
    assert database.accepts(OLD)
    # one that is of another password after all is not what it gets
    assert database.put(NEW, OLD, timeout=5, stored=before) is True
    assert database.accepts(NEW)


def test_a_scram_verifier_is_not_taken_for_md5(server: postgres.Postgres) -> None:
    assert opened(server, database="md5").look(OLD).md5 is False


@pytest.mark.parametrize("superuser", [False, True])
@pytest.mark.parametrize("socket", [False, True])
def test_neither_password_nor_verifier_is_in_the_servers_log_which_logs_everything(
    server: postgres.Postgres, superuser: bool, socket: bool
) -> None:
    """A role that is no superuser may not switch the log off for itself: of it at least no password is there."""
    if superuser:
        server.sql("ALTER ROLE titan SUPERUSER")
    before = len(server.log())
    if socket:
        server.sql("SET log_statement = none", "ALTER ROLE titan PASSWORD NULL")
    opened(server, socket=socket).put(NEW, OLD, timeout=5)
    stored = server.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'titan'")
    log = server.log()[before:]
    assert "set_config" in log  # it does log our statements
    assert OLD not in log
    assert NEW not in log
    if superuser or socket:  # the socket's superuser can
        assert stored not in log


def test_a_lost_password_is_set_through_the_socket_with_nothing_in_the_arguments(server: postgres.Postgres) -> None:
    server.sql("SET log_statement = none", "ALTER ROLE titan PASSWORD 'something that nobody knows'")
    with pytest.raises(OpsError, match="accepts neither the old nor the new") as caught:
        opened(server).put(NEW, OLD, timeout=5)
    assert "recover=true" in str(caught.value)
    runner: Any = server.runner()
    database = opened(server, socket=True)
    database._runner = runner
    assert database.put(NEW, OLD, timeout=5) is True
    assert database.accepts(NEW)
    arguments = " ".join(part for argv in runner.argv for part in argv)
    assert "SCRAM" not in arguments and NEW not in arguments and "ALTER" not in arguments
    assert "--interactive" in arguments and "psql" in arguments


def test_a_role_with_a_strange_name_is_changed_and_no_other(server: postgres.Postgres) -> None:
    name = "ti\"tan'; DROP ROLE titan; --"
    server.sql("SET log_statement = none", f"CREATE ROLE {quote_ident(name)} LOGIN PASSWORD {quote_literal(OLD)}")
    try:
        assert opened(server, role=name).put(NEW, OLD, timeout=5)
        assert opened(server).accepts(OLD)
    finally:
        server.sql(f"DROP ROLE {quote_ident(name)}")


def test_what_the_server_refuses_is_told_without_the_statement(server: postgres.Postgres) -> None:
    access = opened(server)._open(OLD)
    with pytest.raises(OpsError, match=r"refused: (permission denied|must be superuser)") as caught:
        access.run([f"ALTER ROLE postgres PASSWORD '{NEW}'"])
    access.close()
    assert NEW not in str(caught.value)
    socket = opened(server)._open(None)
    with pytest.raises(OpsError, match="syntax error") as caught:
        socket.run([f"SELECT '{NEW}' '{OLD}' FROM"])
    assert NEW not in str(caught.value)


# A run that was killed in the midst of the change


def _sql(server: postgres.Postgres, text: str) -> str:
    return server.sql("SET log_statement = none", text)


@contextlib.contextmanager
def role_locked(server: postgres.Postgres) -> Iterator[None]:
    """Somebody else's transaction has the role's row, and gives it back unchanged in the end."""
    import psycopg2

    other = psycopg2.connect(host="127.0.0.1", port=server.port, dbname="trusting", user="postgres")
    try:
        with other.cursor() as cursor:
            cursor.execute("ALTER ROLE titan CONNECTION LIMIT 50")
            yield
        other.rollback()
    finally:
        other.close()


def killed_while_it_waits(server: postgres.Postgres, **target: Any) -> None:
    """A process that sets the new password and is killed while its ALTER ROLE waits."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'titan.ops' AND wait_event_type = 'Lock'"
        " AND query LIKE 'ALTER ROLE%'"
    )
    process = multiprocessing.get_context("fork").Process(
        target=lambda: opened(server, **target).put(NEW, OLD, timeout=5)
    )
    process.start()
    try:
        assert wait_for(lambda: _sql(server, waiting) == "1" or None, timeout=8, clock=Clock())
    finally:
        process.kill()
        process.join()
    assert _sql(server, waiting) == "1"  # the server has not noticed


def test_what_a_killed_run_has_sent_does_not_happen_after_its_undo(server: postgres.Postgres) -> None:
    with role_locked(server):
        killed_while_it_waits(server)
        assert opened(server).put(OLD, NEW, timeout=5) is False
    assert (opened(server).accepts(OLD), opened(server).accepts(NEW)) == (True, False)


def test_what_a_killed_run_has_sent_through_the_socket_is_ended_before_anything_else(
    server: postgres.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = "something that nobody knows"
    _sql(server, f"ALTER ROLE titan PASSWORD '{lost}'")
    database = opened(server, socket=True)
    with role_locked(server):
        killed_while_it_waits(server, socket=True)
        ask = database._open

        def only_once(password: str | None) -> Any:
            monkeypatch.setattr(database, "_open", lambda _password: pytest.fail("the change was tried"))
            return ask(password)

        monkeypatch.setattr(database, "_open", only_once)
        with pytest.raises(pytest.fail.Exception, match="the change was tried"):
            database.put(OLD, NEW, timeout=5)
    assert (database.accepts(lost), database.accepts(NEW)) == (True, False)


def test_a_killed_runs_session_that_may_not_be_ended_is_an_error(server: postgres.Postgres) -> None:
    """An ordinary role may not end a superuser's, who went through the socket."""
    import psycopg2

    left = psycopg2.connect(
        host="127.0.0.1", port=server.port, dbname="trusting", user="postgres", application_name="titan.ops"
    )
    try:
        with pytest.raises(OpsError, match=f"process {left.info.backend_pid}.*cannot be ended") as caught:
            opened(server).put(NEW, OLD, timeout=5)
        assert "pg_terminate_backend" in str(caught.value)
        assert opened(server).accepts(OLD)
    finally:
        left.close()


# Sessions


def test_sessions_of_the_services_are_found_by_name_and_address_and_can_be_ended(server: postgres.Postgres) -> None:
    import psycopg2

    def session(name: str) -> Any:
        made = psycopg2.connect(
            host="127.0.0.1", port=server.port, dbname="titan_brain", user="titan", password=OLD, application_name=name
        )
        with made.cursor() as cursor:
            cursor.execute("SELECT 1")
        return made

    brain, other = session("titan-brain"), session("psql")
    try:
        database = opened(server)
        [found] = database.sessions(OLD, [], ["titan-brain"])
        assert (found.application, found.address, found.state) == ("titan-brain", "127.0.0.1", "idle in transaction")
        assert found.seconds is not None and "in a transaction for 0 s" in str(found)
        assert len(database.sessions(OLD, ["127.0.0.1"], [])) == 2
        assert len(opened(server).sessions(None, ["127.0.0.1"], [])) == 2  # through the socket
        assert database.sessions(OLD, [], []) == []
        assert len(database.sessions(OLD, [], ["titan-brain"], end=True)) == 1
        assert brain.info.backend_pid not in [item.pid for item in database.sessions(OLD, ["127.0.0.1"], [])]
        assert other.info.backend_pid in [item.pid for item in database.sessions(OLD, ["127.0.0.1"], [])]
    finally:
        brain.close()
        other.close()


# What forbids it


def test_an_ordinary_role_sees_enough_and_a_superuser_the_rules_too(server: postgres.Postgres) -> None:
    facts = opened(server).look(OLD)
    assert facts.version >= 100000 and facts.exists and facts.can_login and not facts.expired and not facts.standby
    assert facts.seen_as == "127.0.0.1" and facts.rules is None
    assert "may not read pg_hba.conf" in refuse_unless_usable(facts, Target(), [])[0]
    server.sql("ALTER ROLE titan SUPERUSER")
    facts = opened(server).look(OLD)
    assert [rule.method for rule in facts.rules or ()] == ["trust", "trust", "reject", "ident", "md5", "scram-sha-256"]
    assert refuse_unless_usable(facts, Target(), ["172.18.0.5", "fd00::5"]) == []
    for database, said in (
        ("asking", r"does not ask for a password of its own: ident \(pg_hba.conf, line 4\)"),
        ("trusting", r"trust \(pg_hba.conf, line 2\)"),
    ):
        with pytest.raises(Refused, match=said):
            refuse_unless_usable(facts, Target(database=database), [])


def test_the_socket_tells_why_a_password_is_refused(server: postgres.Postgres) -> None:
    assert opened(server, role="nobody").look(None).exists is False
    server.sql("ALTER ROLE titan VALID UNTIL '2020-01-01'")
    assert opened(server).accepts(OLD) is False
    assert opened(server).look(None).expired is True


GOOD = Facts(170002, False, True, True, False, "172.18.0.1", ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 90624}, r"PostgreSQL 9\.6, which does not know SCRAM-SHA-256"),
        ({"standby": True}, "read-only standby"),
        ({"exists": False}, "has no role titan"),
        ({"can_login": False}, "The role titan may not log in"),
        ({"expired": True}, "has expired"),
        ({"rules": ()}, "no line that lets titan from 172.18.0.1 into titan_brain"),
    ],
)
def test_what_a_new_password_would_not_work_with_is_refused(change: dict[str, Any], said: str) -> None:
    facts = Facts(**{**GOOD.__dict__, **change})
    with pytest.raises(Refused, match=said):
        refuse_unless_usable(facts, Target(), [])


def rule(line: int, method: str, address: str = "all", netmask: str = "", **more: Any) -> hba.Rule:
    plain = {"kind": "host", "databases": ("all",), "users": ("all",)}
    return hba.Rule(line=line, address=address, netmask=netmask, method=method, **{**plain, **more})


def found(rules: list[hba.Rule], address: str) -> str | None:
    match = hba.rule_for(rules, database="titan_brain", role="titan", address=address)
    return str(match) if match else None


def test_the_first_rule_that_matches_holds() -> None:
    rules = [
        rule(1, "trust", kind="local", address=""),
        rule(2, "trust", "127.0.0.1", "255.255.255.255"),
        rule(3, "reject", "172.18.0.0", "255.255.255.0"),
        rule(4, "peer", users=("postgres",)),
        rule(5, "cert", databases=("other",)),
        rule(6, "md5", "fd00::", "ffff::"),
        rule(7, "scram-sha-256", "0.0.0.0", "0.0.0.0"),
    ]
    assert found(rules, "127.0.0.1") == "trust (pg_hba.conf, line 2)"
    assert found(rules, "172.18.0.9") == "reject (pg_hba.conf, line 3)"
    assert found(rules, "172.18.1.9") == "scram-sha-256 (pg_hba.conf, line 7)"
    assert found(rules, "fd00::7") == "md5 (pg_hba.conf, line 6)"
    assert found(rules, "fe80::7") is None


@pytest.mark.parametrize(
    "unsure",
    [
        rule(1, "reject", users=("+operators",)),
        rule(1, "reject", address="samenet"),
        rule(1, "reject", address="host.example"),
        rule(1, "reject", databases=("samerole",)),
        rule(1, "scram-sha-256", kind="hostssl"),
        rule(1, "reject", kind="hostnossl"),
        rule(1, "trust", kind="hostnogssenc"),
    ],
    ids=lambda item: f"{item.kind} {item.databases} {item.users} {item.address}",
)
def test_a_rule_that_cannot_be_told_from_the_outside_is_not_guessed_at(unsure: hba.Rule) -> None:
    with pytest.raises(LookupError):
        found([unsure, rule(2, "reject")], "172.18.0.9")
