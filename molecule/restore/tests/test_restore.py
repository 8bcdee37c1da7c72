# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores (runbook 4.3), looked at by psql and docker: swapped in whole, taken back, or as if nothing had been."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from backups import PSQL, assert_tidy, clear, counts, manifest, sql, wait_database
from droplet import ROOT, Droplet, changes, words

DATABASES = ["postgres", "template0", "template1", "titan_brain"]
CONFIRM = ("-e", "confirm=titan_brain")
PLACE = "/root/restore"  # hand-made dumps
# The module on the host, whichever way Ansible has started it: it holds the lock.
PROCESS = """$(sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p' /opt/titan/state/deploy.lock)"""
JOURNAL = "/opt/titan/state/db_restore.journal"
MARK = "SELECT count(*) FROM alerts WHERE message = 'after the backup'"
OID = "SELECT oid FROM pg_database WHERE datname = 'titan_brain'"
# What a dump does not hold, of one database; its name, number and age aside.
IDENTITY = (
    "SELECT to_jsonb(d) - '{{oid,datname,datfrozenxid,datminmxid,dathasloginevt}}'::text[],"
    " (SELECT jsonb_agg(to_jsonb(s) - 'setdatabase' ORDER BY s.setrole) FROM pg_db_role_setting s"
    " WHERE s.setdatabase = d.oid) FROM pg_database d WHERE datname = '{}'"
)


def databases(droplet: Droplet) -> list[str]:
    return sql(droplet, "SELECT datname FROM pg_database ORDER BY 1", database="postgres").split()


def kept(droplet: Droplet) -> list[str]:
    return [name for name in databases(droplet) if "__before_" in name]


def failed(droplet: Droplet) -> list[str]:
    return [name for name in databases(droplet) if "__failed_" in name]


def drop_kept(droplet: Droplet) -> None:
    for name in [*kept(droplet), *failed(droplet)]:
        sql(droplet, f'DROP DATABASE "{name}" WITH (FORCE)', database="postgres")


def last_line(droplet: Droplet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(droplet.sh("tail -n 1 /opt/titan/logs/ops.jsonl"))
    return found


def playing(*args: str) -> subprocess.Popen[str]:
    argv = ["ansible-playbook", "-i", "inventories/sandbox", "playbooks/restore.yml", *CONFIRM, *args]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def at_step(droplet: Droplet, step: str, command: str) -> None:
    """Run a command on the Droplet at the moment when the journal names the step."""
    droplet.sh(
        f'for i in $(seq 6000); do grep -qs \'"step": "{step}"\' {JOURNAL} && {{ {command}; exit 0; }};'
        " sleep 0.005; done; exit 1"
    )


@pytest.fixture(scope="module", autouse=True)
def beginning(droplet: Droplet) -> Iterator[None]:
    """The scenario's converge has restored once; these tests begin without any backup, and leave none."""
    assert len(kept(droplet)) == 1, "converge has restored exactly once"
    assert last_line(droplet)["operation"] == "restore"
    drop_kept(droplet)
    clear(droplet)
    droplet.sh(f"mkdir -m 700 {PLACE}")
    yield
    droplet.sh(f"rm -r {PLACE}")
    clear(droplet)


@pytest.fixture(autouse=True)
def whole(droplet: Droplet) -> Iterator[None]:
    """Whatever a test did: brain is well, and nothing is left but databases that are kept, which go here."""
    sql(droplet, "DELETE FROM alerts WHERE message = 'after the backup'")
    yield
    droplet.wait_healthy()
    drop_kept(droplet)
    assert databases(droplet) == DATABASES
    assert_tidy(droplet)
    assert droplet.sh("ls -A /opt/titan/state").split() == ["deploy.lock"]


def later(droplet: Droplet) -> None:
    """A row that no backup before it has."""
    sql(droplet, "INSERT INTO alerts (severity, message) VALUES ('info', 'after the backup')")


def backed_up(droplet: Droplet, **options: Any) -> str:
    made = droplet.module("db_backup", label="x", **options)
    assert not made["failed"], made
    later(droplet)
    return str(made["backup"])


def test_a_backup_takes_the_databases_place_and_an_undo_takes_it_back(droplet: Droplet) -> None:
    path = backed_up(droplet)
    name, before = path.rpartition("/")[2], sql(droplet, OID)
    began = int(droplet.sh("date +%s"))
    done = droplet.playbook("restore", "-e", f"backup={name}", *CONFIRM)
    assert changes(done) == 1
    assert "and every object, as the manifest says" in words(done) and "titan-brain: GET /health is well" in words(done)
    [old] = kept(droplet)
    assert old in words(done) and sql(droplet, MARK) == "0" and sql(droplet, MARK, database=old) == "1"
    told, found = manifest(droplet, path)["rows"], counts(droplet, "titan_brain")
    moving = {"public.brain_decisions"}  # brain writes into it again
    assert {table for table in told if found[table] != told[table]} <= moving
    # what a dump does not hold, and the positions of the sequences as the dump has them
    assert sql(droplet, IDENTITY.format("titan_brain")) == sql(droplet, IDENTITY.format(old))
    assert droplet.sh(f"{PSQL} -d titan_brain -c '\\dx'") == droplet.sh(f"{PSQL} -d {old} -c '\\dx'")
    for sequence, value in re.findall(
        r"^SELECT pg_catalog\.setval\('public\.(\w+)', (\d+), true\);$", droplet.sh(f"grep setval {path}"), re.MULTILINE
    ):
        here = int(sql(droplet, f"SELECT last_value FROM {sequence}"))
        assert here == int(value) or (sequence == "brain_decisions_id_seq" and here >= int(value)), sequence
    line = last_line(droplet)
    assert (line["operation"], line["result"], line["backup"], line["kept"]) == ("restore", "ok", name, old)
    assert 0 < line["interruption_seconds"]["titan-brain"] < 60
    text = droplet.sh("cat /var/lib/prometheus/node-exporter/titan_restore.prom")
    metrics = dict(entry.rsplit(" ", 1) for entry in text.splitlines() if not entry.startswith("#"))
    assert float(metrics['titan_restore_last_success_timestamp_seconds{database="titan_brain"}']) >= began
    done = droplet.playbook("restore", "-e", "undo=true", *CONFIRM)
    assert changes(done) == 1 and sql(droplet, MARK) == "1" and sql(droplet, OID) == before
    [restored] = kept(droplet)
    assert restored != old and sql(droplet, MARK, database=restored) == "0"
    assert last_line(droplet)["operation"] == "restore_undo"


def test_without_confirm_and_in_check_mode_nothing_changes(droplet: Droplet) -> None:
    name = backed_up(droplet).rpartition("/")[2]
    before, there = droplet.fingerprint(), databases(droplet)
    done = droplet.playbook("restore", "-e", f"backup={name}")
    said = words(done)
    assert done.returncode != 0 and "Nothing was changed: this replaces the database titan_brain" in said, said
    assert "would be restored from" in said and re.search(r"public\.alerts +\d+ in the backup, +\d+ today", said)
    done = droplet.playbook("restore", "--check", "--diff", "-e", f"backup={name}", *CONFIRM)
    assert changes(done) == 1
    assert re.search(rf"^\+titan_brain: \d+ rows of \d+ tables, from {name}$", done.stdout, re.MULTILINE)
    told = droplet.module("db_restore", backup=name, confirm="titan")
    assert (
        told["failed"]
        and "confirm names 'titan', but the database that would be replaced is titan_brain" in told["msg"]
    )
    assert (droplet.fingerprint(), databases(droplet)) == (before, there)


def test_a_plan_waits_for_no_operation_under_way_and_names_it(droplet: Droplet) -> None:
    name = backed_up(droplet).rpartition("/")[2]
    lock = "/opt/titan/state/deploy.lock"
    holding = f'echo \'{{"holder": "alice", "pid": 1}}\' > {lock}; exec flock {lock} cat'
    with droplet.background(holding):
        droplet.sh(f"for i in $(seq 100); do flock -n {lock} true || exit 0; sleep 0.1; done; exit 1")
        before, there = droplet.fingerprint(), databases(droplet)
        done = droplet.playbook("restore", "-e", f"backup={name}")
        assert (droplet.fingerprint(), databases(droplet)) == (before, there)
        checked = droplet.playbook("restore", "--check", "-e", f"backup={name}", *CONFIRM)
    droplet.sh(f"truncate -s 0 {lock}")
    for said in (words(done), words(checked)):
        assert "would be restored from" in said, said
        assert "An operation is under way, so that this plan may not hold: alice (process 1)" in said, said
    assert done.returncode != 0 and "Nothing was changed: this replaces the database titan_brain" in words(done)
    assert changes(checked) == 1


def test_bad_input_is_told_in_one_sentence_and_changes_nothing(droplet: Droplet) -> None:
    backed_up(droplet)
    dump = "docker exec titan-postgres pg_dump"
    droplet.sh(
        f"cd {PLACE}; touch empty; echo hello > text; {dump} -U titan titan_brain > full; head -c 300000 full > cut;"
        f" {dump} -U titan -C titan_brain > created; {dump}all -U titan -r > cluster;"
        f" {dump} -U titan -t migrations titan_brain > part;"
        f" {dump} -U titan -Fc titan_brain > full.c; head -c 100000 full.c > cut.c"
    )
    before, there, oid = droplet.fingerprint(), databases(droplet), sql(droplet, OID)
    for name, match in {
        "nope": "There is no backup /root/restore/nope",
        "empty": "is empty",
        "text": "is not a dump that pg_dump has made",
        "cut": "cut (ends in the middle|cannot be restored: The dump is not complete)",
        "created": r"goes to another database by itself \(line \d+: \\connect titan_brain\)",
        "cluster": "is a dump of a whole server",
        "part": "lacks 4\\d of the tables that titan_brain has now",
        "cut.c": "pg_restore failed",
    }.items():
        told = droplet.module("db_restore", backup=f"{PLACE}/{name}", confirm="titan_brain")
        assert told["failed"] and re.search(match, told["msg"]), told
        assert "Nothing was changed" in told["msg"] or "was not touched, and no service was stopped" in told["msg"]
    told = droplet.module("db_restore", backup=f"{PLACE}/full", confirm="titan_brain", space_margin=1e7)
    assert told["failed"] and "a second copy of it may take" in told["msg"]
    assert (droplet.fingerprint(), databases(droplet), sql(droplet, OID)) == (before, there, oid)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        ("docker exec -t titan-postgres pg_dump -U titan titan_brain > '{0}'; grep -q $'\\r' '{0}'", {}),
        ("docker exec titan-postgres pg_dump -U titan -Fc titan_brain > '{0}'", {"jobs": 2}),
        ("docker exec titan-postgres pg_dump -U titan titan_brain | gzip > '{0}'", {}),
    ],
    ids=["terminal", "custom", "gzip"],
)
def test_a_dump_made_by_hand_restores_whatever_it_is_called(
    droplet: Droplet, make: str, options: dict[str, Any]
) -> None:
    path = f"{PLACE}/monday's: dump".replace("'", "_")
    droplet.sh(make.format(path))
    later(droplet)
    told = droplet.module("db_restore", backup=path, confirm="titan_brain", **options)
    assert not told["failed"], told
    assert sql(droplet, MARK) == "0" and sql(droplet, MARK, database=told["kept"]) == "1"
    assert not any("manifest says" in text for text in told["proved"])
    before, now = counts(droplet, told["kept"]), counts(droplet, "titan_brain")
    assert {table for table in before if before[table] != now[table]} == {"public.alerts", "public.brain_decisions"}


# Interrupted


@pytest.mark.parametrize(
    ("step", "next_run", "swapped"),
    [("load", "recover", False), ("stop the writers", "rotate_hmac", False), ("prove", "recover", True)],
)
def test_a_killed_run_is_finished_or_undone_by_the_next_operation(
    droplet: Droplet, step: str, next_run: str, swapped: bool
) -> None:
    path = backed_up(droplet)
    with playing("-e", f"backup={path}") as running:
        at_step(droplet, step, f"kill -9 {PROCESS}")
        assert running.wait(60) != 0
    assert droplet.sh(f"ls {JOURNAL}"), "the kill came too late to prove anything"
    told = droplet.module("compose_service", state="started", services=["titan-brain"])
    assert told["failed"] and "db_restore" in told["msg"] and "recover.yml" in told["msg"]
    done = droplet.playbook(next_run)
    assert changes(done) == 1, words(done)
    how = "finished" if swapped else "undone"
    lines = [json.loads(line) for line in droplet.sh("tail -n 2 /opt/titan/logs/ops.jsonl").splitlines()]
    assert (lines[0]["operation"], lines[0]["recovered"]) == ("restore", how)
    assert sql(droplet, MARK) == ("0" if swapped else "1")
    assert len(kept(droplet)) == swapped


def test_a_run_that_is_asked_to_end_while_it_loads_leaves_nothing(droplet: Droplet) -> None:
    path = backed_up(droplet)
    started = droplet.containers()["titan-brain"].started
    with playing("-e", f"backup={path}") as running:
        at_step(droplet, "load", f"kill -TERM {PROCESS}")
        assert running.stdout
        said = " ".join(running.stdout.read().split())
    assert running.returncode != 0 and "The run was asked to end" in said and "no service was stopped" in said, said
    assert droplet.containers()["titan-brain"].started == started and sql(droplet, MARK) == "1"


def test_the_database_dying_while_it_loads_is_told_and_the_next_run_is_clean(droplet: Droplet) -> None:
    path = backed_up(droplet)
    with playing("-e", f"backup={path}") as running:
        at_step(droplet, "load", "docker kill titan-postgres")
        assert running.stdout
        said = " ".join(running.stdout.read().split())
    assert running.returncode != 0 and 'failed at "load"' in said, said
    wait_database(droplet)
    assert sql(droplet, MARK) == "1" and databases(droplet) == DATABASES
    told = droplet.module("db_restore", backup=path, confirm="titan_brain")
    assert not told["failed"] and sql(droplet, MARK) == "0", told


def test_a_brain_that_is_sick_with_the_new_database_gets_the_old_one_back(droplet: Droplet) -> None:
    later(droplet)
    path, oid = f"{PLACE}/sick.sql", sql(droplet, OID)
    # the change goes before the last lines, which say that the dump is whole
    droplet.sh(
        f"echo 'ALTER TABLE public.allocation_history RENAME weight TO wait;' > {PLACE}/change;"
        f" docker exec titan-postgres pg_dump -U titan titan_brain > {path};"
        f" n=$(grep -n 'dump complete' {path} | cut -d: -f1);"
        f" sed -i \"$((n - 2))r {PLACE}/change\" {path}; grep -q 'RENAME weight' {path}"
    )
    done = droplet.playbook("restore", "-e", f"backup={path}", *CONFIRM)
    said = words(done)
    assert done.returncode != 0 and 'failed at "prove": The service titan-brain' in said, said
    assert "is the one from before, and titan-brain was stopped for a while and runs with it again" in said, said
    [left] = failed(droplet)
    assert f"with what was written into it meanwhile, is kept as {left} until 20" in said, said
    assert sql(droplet, OID) == oid and databases(droplet) == sorted([*DATABASES, left])
    assert last_line(droplet)["result"] == "undone"


def test_a_kept_database_goes_with_the_next_nightly_backup_when_its_time_is_over(droplet: Droplet) -> None:
    path = backed_up(droplet)
    told = droplet.module("db_restore", backup=path, confirm="titan_brain", keep_days=0)
    assert not told["failed"] and kept(droplet) == [told["kept"]]
    assert droplet.module("db_backup", label="y")["dropped"] == []
    assert droplet.module("db_backup")["dropped"] == [told["kept"]]
    assert kept(droplet) == []
