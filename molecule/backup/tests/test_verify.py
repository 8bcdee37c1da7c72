# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill (runbook 4.3): a backup is a file that was restored."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from backups import assert_tidy, clear, manifest, sealed, sql, wait_database
from droplet import ROOT, Droplet, changes, words

METRICS = "/var/lib/prometheus/node-exporter/titan_verify_backup.prom"
DATABASES = ["postgres", "template0", "template1", "titan_brain"]
# What must be the same before and after, of the database that is in use: who it is and what is in it.
IDENTITY = "SELECT oid, datname, (SELECT count(*) FROM orders) FROM pg_database WHERE datname = 'titan_brain'"


@pytest.fixture(autouse=True)
def untouched(droplet: Droplet) -> Iterator[None]:
    clear(droplet)
    before = sql(droplet, IDENTITY)
    yield
    assert sql(droplet, IDENTITY) == before
    assert sql(droplet, "SELECT datname FROM pg_database ORDER BY 1", database="postgres").split() == DATABASES
    assert_tidy(droplet)
    clear(droplet)


def test_a_backup_is_restored_compared_and_marked(droplet: Droplet) -> None:
    made = droplet.module("db_backup", label="x", compression="zstd")
    before = droplet.sh("ls -l /opt/titan/backups/db")
    assert changes(droplet.playbook("verify_backup", "--check")) == 1
    assert droplet.sh("ls -l /opt/titan/backups/db") == before
    assert manifest(droplet, made["backup"])["verified"] is None
    began = int(droplet.sh("date +%s"))
    done = droplet.playbook("verify_backup")
    assert changes(done) == 1
    told = manifest(droplet, made["backup"])
    assert f"{made['name']} restores: {sum(told['rows'].values())} rows of {len(told['rows'])} tables" in words(done)
    assert told["verified"] >= droplet.sh(f"date -u -d @{began} +%Y-%m-%dT%H:%M:%SZ").strip()
    value = droplet.sh(f"sed -n 's/^titan_backup_last_verified_timestamp_seconds.* //p' {METRICS}")
    assert float(value) >= began
    line = json.loads(droplet.sh("tail -n 1 /opt/titan/logs/ops.jsonl"))
    assert (line["operation"], line["result"], line["backup"]) == ("verify_backup", "ok", made["name"])


def test_a_restore_with_a_row_too_few_is_told_and_not_marked(droplet: Droplet) -> None:
    """The file and both checksums agree: only the restore shows it."""
    made = droplet.module("db_backup", label="x")
    path = made["backup"]
    droplet.sh(f"sed -i '/^COPY public.alerts /,/^\\\\\\\\\\.$/ {{/critical/d}}' {path}")
    told = manifest(droplet, path)
    told["size_bytes"], told["sha256"] = droplet.sh(f"stat -c %s {path}; sha256sum {path} | cut -d' ' -f1").split()
    told["size_bytes"] = int(told["size_bytes"])
    droplet.sh(f"cat > {path}.manifest.json <<'END'\n{json.dumps(sealed(told))}\nEND")
    done = droplet.playbook("verify_backup", "-e", f"backup={made['name']}")
    said = words(done)
    assert done.returncode != 0 and "1 rows of public.alerts, not 2" in said and "itself was not touched" in said, said
    assert manifest(droplet, path)["verified"] is None
    assert 'titan_operation_last_success{operation="verify_backup"} 0.0' in droplet.sh(f"cat {METRICS}")


def test_a_flipped_bit_and_an_unknown_name_are_refused(droplet: Droplet) -> None:
    made = droplet.module("db_backup", label="x", format="custom")
    droplet.sh(f"printf x | dd of={made['backup']} bs=1 seek=100000 conv=notrunc status=none")
    told = droplet.module("db_verify", name=made["name"])
    assert told["failed"] and "its sha256 is not the one of its manifest" in told["msg"], told
    told = droplet.module("db_verify", name="../nope.sql")
    assert told["failed"] and "There is no backup" in told["msg"]


def test_a_killed_drill_leaves_the_database_alone_and_the_next_one_tidies_up(droplet: Droplet) -> None:
    made = droplet.module("db_backup", label="x", format="directory", jobs=2)
    scratch = "SELECT count(*) FROM pg_database WHERE datname LIKE 'titan_brain\\\\_\\\\_verify\\\\_%'"
    psql = f'docker exec titan-postgres psql -X -At -U titan -d postgres -c "{scratch}"'
    process = """$(sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p' /opt/titan/state/deploy.lock)"""
    command = ["ansible-playbook", "-i", "inventories/sandbox", "playbooks/verify_backup.yml"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        droplet.sh(
            f"for i in $(seq 600); do [ $({psql}) = 1 ] && kill -9 {process} && exit 0; sleep 0.05; done; exit 1"
        )
        assert running.wait(60) != 0
    left = sql(droplet, "SELECT datname FROM pg_database WHERE datname LIKE '%verify%'", database="postgres")
    assert left, "the kill came too late to prove anything"
    told = droplet.module("db_verify")
    assert not told["failed"] and left in told["tidied"], told
    assert manifest(droplet, made["backup"])["verified"] == told["verified"]


def test_the_database_dying_in_the_middle_is_told_and_the_next_drill_is_clean(droplet: Droplet) -> None:
    made = droplet.module("db_backup", label="x")
    command = ["ansible-playbook", "-i", "inventories/sandbox", "playbooks/verify_backup.yml"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        droplet.sh(
            'for i in $(seq 600); do [ -n "$(docker ps -q --filter label=titan.ops.sidecar)" ] && break;'
            " sleep 0.05; done;"
            " docker kill titan-postgres; docker start titan-postgres"
        )
        assert running.stdout
        said = " ".join(running.stdout.read().split())
    assert running.returncode != 0 and "titan_brain itself was not touched" in said, said
    wait_database(droplet)
    assert manifest(droplet, made["backup"])["verified"] is None
    assert not droplet.module("db_verify")["failed"]
