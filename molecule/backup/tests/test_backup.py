# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups by hand (runbook 4.2): what is made, that it restores by the runbook's own command, and every way to fail."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from backups import DIRECTORY, PSQL, assert_tidy, clear, counts, manifest, names, sql, table_locked, wait_database
from droplet import ROOT, Droplet, changes, words

# The module on the host, whichever way Ansible has started it: it holds the lock.
_PROCESS = """$(sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p' /opt/titan/state/deploy.lock)"""
METRICS = "/var/lib/prometheus/node-exporter/titan_backup.prom"


@pytest.fixture(scope="module", autouse=True)
def beginning(droplet: Droplet) -> Iterator[None]:
    """The scenario's converge has left one backup; these tests begin without any and leave none."""
    assert len(names(droplet)) == 2, "converge has made exactly one backup, with its manifest"
    clear(droplet)
    yield
    clear(droplet)


def test_the_runbooks_own_command_restores_a_nightly_backup(droplet: Droplet) -> None:
    """Promise 8: into an empty database, without an error, with the rows that the manifest says."""
    assert changes(droplet.playbook("backup")) == 1
    (name,) = [item for item in names(droplet) if item.endswith(".sql")]
    assert re.fullmatch(r"titan_brain_\d{4}-\d\d-\d\d\.sql", name)
    assert droplet.sh(f"stat -c '%U %G %a' {DIRECTORY}/{name} {DIRECTORY}/{name}.manifest.json").splitlines() == [
        "root root 600",
        "root root 600",
    ]
    sql(droplet, "CREATE DATABASE by_hand")
    try:
        runbook = f"cat backups/db/{name} | docker exec -i titan-postgres psql -U titan -d by_hand"
        said = droplet.sh(f"cd /opt/titan && {runbook} 2>&1")
        assert "ERROR" not in said and "FATAL" not in said, said
        told = manifest(droplet, f"{DIRECTORY}/{name}")
        assert counts(droplet, "by_hand") == told["rows"]
        assert told["sha256"] == droplet.sh(f"sha256sum {DIRECTORY}/{name}").split()[0]
    finally:
        sql(droplet, "DROP DATABASE by_hand")
    assert_tidy(droplet)


@pytest.mark.parametrize(
    ("options", "restore"),
    [
        ({"compression": "gzip", "threads": 2}, "gzip -dc {path} | {psql} -d copy >/dev/null"),
        ({"format": "custom"}, "docker exec -i titan-postgres pg_restore -e -U titan -d copy < {path}"),
        (
            {"format": "directory", "jobs": 2, "compression": "zstd"},
            "docker cp -q {path} titan-postgres:/tmp/d && docker exec titan-postgres"
            " sh -c 'pg_restore -e -j 2 -U titan -d copy /tmp/d && rm -r /tmp/d'",
        ),
        ({"via": "exec", "format": "custom"}, "docker exec -i titan-postgres pg_restore -e -U titan -d copy < {path}"),
    ],
    ids=["gzip", "custom", "directory", "exec"],
)
def test_every_format_restores_by_its_own_tool(droplet: Droplet, options: dict[str, Any], restore: str) -> None:
    made = droplet.module("db_backup", label="form", **options)
    assert not made["failed"], made
    assert made["via"] == options.get("via", "sidecar") and made["via_reason"] == ""
    sql(droplet, "CREATE DATABASE copy")
    try:
        droplet.sh(restore.format(path=made["backup"], psql=PSQL))
        assert counts(droplet, "copy") == manifest(droplet, made["backup"])["rows"]
    finally:
        sql(droplet, "DROP DATABASE copy")
    assert_tidy(droplet)


def test_a_label_is_in_the_name_and_the_history_and_metrics_say_it(droplet: Droplet) -> None:
    began = int(droplet.sh("date +%s"))
    done = droplet.playbook("backup", "-e", "label=verification_snapshot")
    assert changes(done) == 1
    (name,) = [item for item in names(droplet) if item.endswith("Z_verification_snapshot.sql")]
    line = json.loads(droplet.sh("tail -n 1 /opt/titan/logs/ops.jsonl"))
    assert (line["operation"], line["result"], line["backup"]) == ("backup", "ok", name)
    text = droplet.sh(f"cat {METRICS}")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['titan_backup_last_success_timestamp_seconds{database="titan_brain"}']) >= began
    size = int(droplet.sh(f"stat -c %s {DIRECTORY}/{name}"))
    assert float(values['titan_backup_size_bytes{database="titan_brain"}']) == size == line["size_bytes"]
    assert float(values['titan_backup_duration_seconds{database="titan_brain"}']) > 0
    assert values['titan_operation_last_success{operation="backup"}'] == "1.0"


def test_check_mode_changes_nothing_and_says_what_would_be(droplet: Droplet, unchanged: None) -> None:
    done = droplet.playbook("backup", "--check", "--diff", "-e", "label=would_be")
    assert changes(done) == 1
    assert "Z_would_be.sql would be made" in words(done)
    assert re.search(r"^\+titan_brain_.*Z_would_be\.sql$", done.stdout, flags=re.MULTILINE)


def test_one_is_removed_by_name(droplet: Droplet) -> None:
    made = droplet.module("db_backup", label="to_go")
    options = {"state": "absent", "name": made["name"]}
    assert droplet.module("db_backup", "--check", **options)["changed"]
    assert made["name"] in names(droplet)
    assert droplet.module("db_backup", **options)["removed"] == [made["name"]]
    assert not droplet.module("db_backup", **options)["changed"]
    assert not [item for item in names(droplet) if item.startswith(made["name"])]


def test_the_list_finds_a_flipped_bit(droplet: Droplet) -> None:
    made = droplet.module("db_backup", label="flipped")
    byte = "$(($(stat -c %s {0}) / 2))"
    droplet.sh(f"printf x | dd of={made['backup']} bs=1 seek={byte.format(made['backup'])} conv=notrunc status=none")
    found = {item["name"]: item for item in droplet.module("db_backup_info", checksums=True)["backups"]}
    assert found[made["name"]]["state"] == "damaged"
    assert {item["state"] for name, item in found.items() if name != made["name"]} == {"good"}
    droplet.sh(f"rm {made['backup']} {made['backup']}.manifest.json")


# Ways to fail: nothing under a final name, nothing left, the message true


def test_a_full_disk_leaves_the_earlier_backups_alone(droplet: Droplet) -> None:
    droplet.sh("mkdir -p /mnt/small && mount -t tmpfs -o size=2m,mode=0700 tmpfs /mnt/small")
    try:
        options = {"directory": "/mnt/small", "label": "x"}
        told = droplet.module("db_backup", **options)
        assert told["failed"] and "the backup may take" in told["msg"] and "Nothing was changed" in told["msg"]
        for kind in ({}, {"format": "custom"}, {"compression": "gzip", "level": 1, "via": "exec"}):
            small = {"space_margin": 0, **kind}
            droplet.sh("dd if=/dev/zero of=/mnt/small/other bs=1k count=1500 status=none")
            told = droplet.module("db_backup", **options, **small)
            assert told["failed"] and "No space left on device" in told["msg"], told
            assert told["state"].startswith("No backup was made") and "Free some space" in told["msg"]
            assert names(droplet, "/mnt/small") == ["other"]
    finally:
        droplet.sh("umount /mnt/small && rmdir /mnt/small")
    assert_tidy(droplet)
    assert 'titan_operation_last_success{operation="backup"} 0.0' in droplet.sh(f"cat {METRICS}")


@contextlib.contextmanager
def held_back(droplet: Droplet) -> Iterator[subprocess.Popen[str]]:
    """A backup under way that a lock on a table holds back; at the end the lock is given up."""
    command = ["ansible-playbook", "-i", "inventories/sandbox", "playbooks/backup.yml", "-e", "label=held_back"]
    with (
        table_locked(droplet) as holder,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running,
    ):
        droplet.sh(
            'for i in $(seq 600); do [ -n "$(docker ps -q --filter label=titan.ops.sidecar)" ] && exit 0;'
            " sleep 0.1; done; exit 1"
        )
        yield running
        assert holder.stdin
        holder.stdin.close()
        running.communicate(timeout=120)  # read to its end: a broken pipe would make it fail


def test_a_killed_run_leaves_no_backup_and_the_next_one_tidies_up(droplet: Droplet) -> None:
    before = names(droplet)
    with held_back(droplet) as running:
        assert droplet.sh("ls /run/titan-ops").startswith("pgpass-")
        droplet.sh(f"kill -9 {_PROCESS}")
        assert running.wait(60) != 0
    left = names(droplet)
    hidden = [name for name in left if name.startswith(".")]
    assert [name for name in left if not name.startswith(".")] == before
    assert hidden, "the kill came too late to prove anything"
    made = droplet.module("db_backup", label="after_the_kill")
    assert not made["failed"], made
    assert set(hidden) <= set(made["tidied"])
    assert_tidy(droplet)


def test_a_run_that_is_asked_to_end_leaves_nothing(droplet: Droplet) -> None:
    before = names(droplet)
    with held_back(droplet) as running:
        droplet.sh(f"kill -TERM {_PROCESS}")
        assert running.stdout
        said = " ".join(running.stdout.read().split())
    assert running.returncode != 0 and "The run was asked to end. No backup was made" in said, said
    assert names(droplet) == before
    assert_tidy(droplet)


def test_a_second_backup_waits_for_the_first_and_names_it(droplet: Droplet) -> None:
    with held_back(droplet) as running:
        told = droplet.module("db_backup", label="second", lock_timeout=1)
        assert told["failed"] and "for: back the database up" in told["msg"], told
    assert running.returncode == 0, "the lock was given up, and the first one went on"
    assert_tidy(droplet)


def test_the_database_dying_in_the_middle_leaves_no_backup(droplet: Droplet) -> None:
    before = names(droplet)
    with held_back(droplet) as running:
        droplet.sh("docker kill titan-postgres >/dev/null")
        assert running.stdout
        said = " ".join(running.stdout.read().split())
        droplet.sh("docker start titan-postgres >/dev/null")
    assert running.returncode != 0 and "No backup was made" in said, said
    assert names(droplet) == before
    wait_database(droplet)
    assert_tidy(droplet)


# Bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "../../x"}, "cannot be part of a file name"),
        ({"keep_daily": -1}, "keep_daily must be 0 or more, not -1"),
        ({"service": "nope"}, "no container of a service nope"),
        ({"database": "nope"}, 'database "nope" does not exist'),
        ({"directory": "/opt/titan/docker-compose.prod.yml"}, "is not a directory"),
        ({"directory": "/proc/backups"}, "may take|cannot be used"),
        ({"state": "absent"}, "name says which backup to remove"),
        ({"state": "absent", "name": "../x.sql"}, "without a path"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_before_anything_changes(
    droplet: Droplet, unchanged: None, options: dict[str, Any], said: str
) -> None:
    told = droplet.module("db_backup", **options)
    assert told["failed"] and re.search(said, told["msg"]), told
