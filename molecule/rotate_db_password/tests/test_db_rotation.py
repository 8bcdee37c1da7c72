# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation of the database password must bring about, seen from outside of the module that does it."""

from __future__ import annotations

import base64
import shlex

import pytest
from database import HOLDERS, KEY, assert_brain_writes, assert_one_password, lets_in, sql
from droplet import ENV_FILE, Droplet, words

NEVER = "never-the-password-of-anybody"


def test_after_converge_role_file_and_every_holder_agree(droplet: Droplet) -> None:
    assert_one_password(droplet, droplet.secret(KEY), NEVER)
    assert sql(droplet, "SELECT left(rolpassword, 19) FROM pg_authid WHERE rolname = 'titan'") == "SCRAM-SHA-256$4096:"


def test_a_second_run_rotates_again_and_changes_nothing_else(droplet: Droplet) -> None:
    old = droplet.secret(KEY)
    content = base64.b64decode(droplet.sh(f"base64 -w0 {ENV_FILE}"))
    stat = droplet.sh(f"stat -c '%U %G %a' {ENV_FILE}; readlink /opt/titan/.env")
    names = ("titan-postgres", "titan-nats", "titan-prometheus", "titan-opsd")
    others = [(droplet.inspect(name)["Id"], droplet.inspect(name)["State"]["StartedAt"]) for name in names]
    flow = droplet.settled_flow()

    done = droplet.playbook("rotate_db_password")
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
    assert 'failed at "start"' in words(done)  # long after the role had the new one
    assert sql(droplet, verifier) == before
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


# As brain's own sessions are named, so that the new brain's address does not matter.
LONG = """
import os, psycopg2
password = os.environ["TITAN_DB_PASSWORD"]
names = {"host": "titan-postgres", "dbname": "titan_brain", "user": "titan", "application_name": "titan-brain"}
made = psycopg2.connect(password=password, **names)
cursor = made.cursor()
cursor.execute("INSERT INTO brain_decisions (symbol, action, detail) VALUES ('BTCUSDT', 'UNCOMMITTED', '{}')")
cursor.execute("SELECT pg_sleep(3000)")
"""
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3000)'"
COMMITTED = "SELECT count(*) FROM brain_decisions WHERE action = 'UNCOMMITTED'"


def test_a_long_transaction_of_an_old_brain_is_waited_for_and_then_treated_as_asked(droplet: Droplet) -> None:
    """The server does not notice that its client has gone while it works for it."""
    old = droplet.secret(KEY)
    droplet.sh(f"docker exec -d titan-brain python3 -c {shlex.quote(LONG)}")
    droplet.sh(
        "for i in $(seq 600); do [ $(docker exec titan-postgres psql -X -At -U titan -d titan_brain"
        f' -c "{SLEEPING}") = 1 ] && exit 0; sleep 0.1; done; exit 1'
    )
    try:
        undone = droplet.module("pg_password", session_timeout=2)
        assert undone["failed"] and undone["rolled_back"], undone
        assert "Sessions of the stopped services are still in the database after 2 seconds: process" in undone["msg"]
        assert "(titan-brain from 172." in undone["msg"] and "active, in a transaction for" in undone["msg"]
        assert "set the role's password" not in undone["steps"]
        assert_one_password(droplet, old, NEVER)
        assert sql(droplet, SLEEPING) == "1"

        left = droplet.module("pg_password", session_timeout=2, on_session_timeout="continue")
        assert not left["failed"], left["msg"]
        [session] = left["sessions"]["left"]
        assert "titan-brain from 172." in session and left["sessions"]["terminated"] == 0
        assert sql(droplet, SLEEPING) == "1"
        assert_one_password(droplet, droplet.secret(KEY), old)

        old = droplet.secret(KEY)
        ended = droplet.module("pg_password", session_timeout=2, on_session_timeout="terminate")
        assert not ended["failed"], ended["msg"]
        assert (ended["sessions"]["terminated"], ended["sessions"]["left"]) == (1, [])
        assert sql(droplet, SLEEPING) == "0" and sql(droplet, COMMITTED) == "0"
    finally:
        sql(droplet, SLEEPING.replace("count(*)", "pg_terminate_backend(pid)"))
    assert_one_password(droplet, droplet.secret(KEY), old)
    assert set(HOLDERS) <= set(droplet.containers())
