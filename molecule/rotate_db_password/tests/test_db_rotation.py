# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation of the database password must bring about, seen from outside of the module that does it."""

from __future__ import annotations

import base64
import contextlib
import shlex
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from database import HOLDERS, KEY, assert_brain_writes, assert_one_password, lets_in, sql
from droplet import ENV_FILE, Droplet, words

NEVER = "never-the-password-of-anybody"


def test_after_converge_role_file_and_every_holder_agree(droplet: Droplet) -> None:
    assert_one_password(droplet, droplet.secret(KEY), NEVER)
    assert sql(droplet, "SELECT left(rolpassword, 19) FROM pg_authid WHERE rolname = 'titan'") == "SCRAM-SHA-256$4096:"


@contextlib.contextmanager
def talkative(droplet: Droplet) -> Iterator[None]:
    """The server logs every statement meanwhile."""
    for setting in ("log_statement = 'all'", "log_min_duration_statement = 0", "log_duration = on"):
        sql(droplet, f"ALTER SYSTEM SET {setting}")
    sql(droplet, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        sql(droplet, "ALTER SYSTEM RESET ALL")
        sql(droplet, "SELECT pg_reload_conf()")


def test_a_second_run_rotates_again_changes_nothing_else_and_leaks_nothing(droplet: Droplet) -> None:
    old = droplet.secret(KEY)
    content = base64.b64decode(droplet.sh(f"base64 -w0 {ENV_FILE}"))
    stat = droplet.sh(f"stat -c '%U %G %a' {ENV_FILE}; readlink /opt/titan/.env")
    names = ("titan-postgres", "titan-nats", "titan-prometheus", "titan-opsd")
    others = [(droplet.inspect(name)["Id"], droplet.inspect(name)["State"]["StartedAt"]) for name in names]
    since = droplet.sh("date +%s").strip()
    flow = droplet.settled_flow()

    with talkative(droplet):
        done = droplet.playbook("rotate_db_password", "-vvvv", "--diff")
        log = droplet.sh(f"docker logs --since {since} titan-postgres 2>&1")
    assert done.returncode == 0, done.stdout

    new = droplet.secret(KEY)
    assert len(new) == 40 and new != old
    assert_one_password(droplet, new, old)
    assert_brain_writes(droplet)
    # every other byte, owner, mode and link are kept; nobody else was touched
    assert base64.b64decode(droplet.sh(f"base64 -w0 {ENV_FILE}")) == content.replace(old.encode(), new.encode())
    assert droplet.sh(f"stat -c '%U %G %a' {ENV_FILE}; readlink /opt/titan/.env") == stat
    assert [(droplet.inspect(name)["Id"], droplet.inspect(name)["State"]["StartedAt"]) for name in names] == others
    # no signed intent was rejected or lost, and it goes on
    after = droplet.settled_flow(accepted=flow["accepted"] + 40)
    assert after["rejected"] == flow["rejected"]
    assert after["published"] - flow["published"] == after["accepted"] - flow["accepted"]
    # nothing leaks into the most verbose output, or into the log of a server that logs everything
    verifier = sql(droplet, "SELECT rolpassword FROM pg_authid WHERE rolname = 'titan'")
    assert "set_config" in log  # it does log what we ask
    for text in (done.stdout + done.stderr, log):
        for secret in (old, new):
            forms = (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode())
            assert not [form for form in forms if form in text]
        assert verifier not in text and verifier.split("$")[2] not in text


def test_check_mode_predicts_what_the_run_then_does(droplet: Droplet) -> None:
    before = droplet.fingerprint()
    predicted = droplet.module("pg_password", "--check")
    assert droplet.fingerprint() == before
    result = droplet.module("pg_password")
    assert not predicted["failed"] and not result["failed"], (predicted, result)
    assert predicted["changed"] is result["changed"] is True
    assert predicted["holders"] == result["holders"]
    assert predicted["steps"] == result["steps"]
    done = {item["service"]: item["action"] for item in result["holders"]}
    assert done == {
        "titan-brain": "switched",
        "titan-execution": "switched",
        "titan-ai-quant": "recreated",
        "titan-postgres": "kept",
    }
    assert set(result["interruption"]) == {"titan-brain", "titan-execution"}
    assert result["sessions"]["left"] == []


def test_a_given_password_is_set_and_never_shown(droplet: Droplet) -> None:
    old, given = droplet.secret(KEY), "A-given.password-of_the-operator1"
    done = droplet.playbook("rotate_db_password", "-vvvv", "-e", f"secrets_db_password={given}")
    assert done.returncode == 0, done.stdout
    # the command line itself is the test's own; Ansible repeats it in the first lines of -vvvv nowhere
    assert given not in done.stdout.replace(f"secrets_db_password={given}", "") + done.stderr
    assert_one_password(droplet, given, old)
    again = droplet.playbook("rotate_db_password", "-e", f"secrets_db_password={given}")
    assert again.returncode != 0 and "is the one that is in use" in words(again)


def test_with_the_database_recreated_every_container_has_the_new_password(droplet: Droplet) -> None:
    old, before = droplet.secret(KEY), droplet.inspect("titan-postgres")["Id"]
    result = droplet.module("pg_password", recreate_database=True)
    assert not result["failed"], result["msg"]
    new = droplet.secret(KEY)
    assert droplet.inspect("titan-postgres")["Id"] != before
    assert droplet.environment("titan-postgres")["POSTGRES_PASSWORD"] == new
    assert_one_password(droplet, new, old)
    assert_brain_writes(droplet)


def test_a_container_that_cannot_start_undoes_everything(droplet: Droplet) -> None:
    old = droplet.secret(KEY)
    verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'titan'"
    before = sql(droplet, verifier)
    with droplet.override("broken.yml", {"titan-execution": {"command": ["false"], "restart": "no"}}) as both:
        done = droplet.playbook("rotate_db_password", *both)
    assert done.returncode != 0
    assert "titan-execution exited with code 1" in words(done)
    assert "It was undone: the old secret is back" in words(done)
    assert sql(droplet, verifier) != before  # it had been changed, and was changed back
    assert_one_password(droplet, old, NEVER)
    assert_brain_writes(droplet)


STEPS = (
    "set the role's password",
    "replace the env file",
    "create the new containers",
    "start",
    "recreate the other holders",
    "prove",
)


def kill_at(droplet: Droplet, step: str) -> None:
    """A rotation whose process gets a real SIGKILL when the journal announces the step, or one that comes after it."""
    steps = "|".join(STEPS[STEPS.index(step) :])
    pattern = f'"step": "({steps})"'
    # who runs is written in the lock file
    killer = (
        f"for i in $(seq 3000); do grep -qsE {shlex.quote(pattern)} /opt/titan/state/pg_password.journal"
        " && kill -9 $(grep -o '\"pid\": [0-9]*' /opt/titan/state/deploy.lock | tr -dc 0-9) && exit 0;"
        " sleep 0.005; done; exit 1"
    )
    with droplet.background(killer) as watcher:
        done = droplet.playbook("rotate_db_password")
    assert watcher.returncode == 0, "the module was not killed"
    assert done.returncode != 0


@pytest.mark.parametrize("step", [STEPS[0], STEPS[1], STEPS[2], STEPS[5]])
@pytest.mark.parametrize("database", ["running", "stopped"])
def test_a_killed_rotation_is_finished_or_undone(droplet: Droplet, step: str, database: str) -> None:
    old = droplet.secret(KEY)
    kill_at(droplet, step)
    new = droplet.sh('sed \'s/.*"new": "\\([^"]*\\)".*/\\1/\' /opt/titan/state/pg_password.journal').strip()
    assert lets_in(droplet, old) != lets_in(droplet, new)  # one of those on disk opens it
    if database == "stopped":
        droplet.sh("docker stop titan-postgres")
    done = droplet.playbook("recover")
    assert done.returncode == 0, done.stdout
    assert "pg_password: finished" in words(done) or "pg_password: undone" in words(done)
    value = droplet.secret(KEY)
    assert value in (old, new)
    assert_one_password(droplet, value, {old: new, new: old}[value])
    assert "there was nothing to recover" in words(droplet.playbook("recover"))


def test_an_interrupted_rotation_is_recovered_by_the_next_one(droplet: Droplet) -> None:
    kill_at(droplet, "create the new containers")
    old = droplet.secret(KEY)
    done = droplet.playbook("rotate_db_password")
    assert done.returncode == 0, done.stdout
    assert "An interrupted rotation was found and" in words(done)
    assert_one_password(droplet, droplet.secret(KEY), old)


def test_a_password_changed_behind_our_back_refuses_and_is_mended_with_recover(droplet: Droplet) -> None:
    old = droplet.secret(KEY)
    sql(droplet, f"ALTER ROLE titan PASSWORD '{NEVER}'")
    try:
        refused = droplet.playbook("rotate_db_password")
        assert refused.returncode != 0
        assert "refuses the current password of titan" in words(refused) and "recover" in words(refused)
        assert droplet.secret(KEY) == old
        done = droplet.playbook("rotate_db_password", "-vvvv", "-e", "recover=true")
        assert done.returncode == 0, done.stdout
    finally:
        if lets_in(droplet, NEVER):
            sql(droplet, f"ALTER ROLE titan PASSWORD '{old}'")
    assert_one_password(droplet, droplet.secret(KEY), NEVER)
    assert not lets_in(droplet, old)
    assert droplet.secret(KEY) not in done.stdout + done.stderr
    assert_brain_writes(droplet)


LONG = """
import os, psycopg2
password = os.environ["TITAN_DB_PASSWORD"]
made = psycopg2.connect(host="titan-postgres", dbname="titan_brain", user="titan", password=password)
cursor = made.cursor()
cursor.execute("INSERT INTO brain_decisions (symbol, action, detail) VALUES ('BTCUSDT', 'HOLD', '{}')")
cursor.execute("SELECT pg_sleep(300)")
"""


def test_a_long_transaction_of_an_old_brain_is_waited_for_then_named_and_ended_when_asked(droplet: Droplet) -> None:
    """The server does not notice that its client has gone while it works for it."""
    old = droplet.secret(KEY)
    droplet.sh(f"docker exec -d titan-brain python3 -c {shlex.quote(LONG)}")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    droplet.sh(
        "for i in $(seq 100); do [ $(docker exec titan-postgres psql -X -At -U titan -d titan_brain"
        f' -c "{waiting}") = 1 ] && exit 0; sleep 0.1; done; exit 1'
    )
    try:
        result = droplet.module("pg_password", session_timeout=2)
        assert result["failed"] and result["rolled_back"], result
        assert "Sessions of the stopped services are still in the database after 2 seconds" in result["msg"]
        assert "active, in a transaction for" in result["msg"]
        assert_one_password(droplet, old, NEVER)
        # brain was made anew from the same address, or another: it is the old session that stays
        result = droplet.module("pg_password", session_timeout=2, on_session_timeout="terminate")
        assert not result["failed"], result["msg"]
        assert result["sessions"]["left"] == []
    finally:
        sql(droplet, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(300)%'")
    assert_one_password(droplet, droplet.secret(KEY), old)
    assert set(HOLDERS) <= set(droplet.containers())
