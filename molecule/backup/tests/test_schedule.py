# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nightly backup (runbook 4.1): the files on the host, backup_db.sh, and cron that really runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from backups import DIRECTORY, assert_tidy, clear, names, table_locked
from droplet import Droplet, changes

SCRIPT = "/opt/titan/scripts/ops/backup_db.sh"
SETTINGS = "/opt/titan/scripts/ops/backup_db.json"
CRON = "/etc/cron.d/titan-backup"
LOG = "/var/log/titan-backup.log"
VERIFY, VERIFY_LOG = "/etc/cron.d/titan-backup-verify", "/var/log/titan-backup-verify.log"
# The runbook's own line.
LINE = "0 2 * * * root /opt/titan/scripts/ops/backup_db.sh > /var/log/titan-backup.log 2>&1"
METRICS = "/var/lib/prometheus/node-exporter/titan_backup.prom"


@pytest.fixture(scope="module", autouse=True)
def scheduled(droplet: Droplet) -> Iterator[None]:
    droplet.sh(f"rm -f {CRON} /etc/logrotate.d/titan-backup {LOG} {SCRIPT} && rm -rf /opt/titan/lib")
    clear(droplet)
    # The command of a hook may hold a secret: no diff shows it.
    hook = ("-e", "backup_on_failure=https://hook.invalid/s3cret")
    preview = droplet.playbook("schedule_backups", "--check", "--diff", *hook)
    assert changes(preview) > 0 and "s3cret" not in preview.stdout + preview.stderr
    assert droplet.host.run(f"ls {CRON} {SCRIPT} /opt/titan/lib").rc != 0, "check mode has installed something"
    assert changes(droplet.playbook("schedule_backups")) > 0
    yield
    droplet.sh(f"rm -f {CRON} /etc/logrotate.d/titan-backup {LOG} {SCRIPT} {SETTINGS} && rm -rf /opt/titan/lib")
    clear(droplet)


def last_line(droplet: Droplet) -> dict[str, object]:
    found: dict[str, object] = json.loads(droplet.sh("tail -n 1 /opt/titan/logs/ops.jsonl"))
    return found


def test_the_cron_file_has_the_runbooks_line_and_a_second_run_changes_nothing(droplet: Droplet) -> None:
    lines = droplet.sh(f"cat {CRON}").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [LINE]
    modes = droplet.sh(
        f"stat -c '%U %a' {CRON} {SCRIPT} /opt/titan/scripts/ops/backup_db.json /opt/titan/lib/titan-ops.pyz"
    )
    assert modes.splitlines() == ["root 644", "root 755", "root 600", "root 644"]
    assert changes(droplet.playbook("schedule_backups")) == 0


def test_the_logs_of_the_days_before_are_kept(droplet: Droplet) -> None:
    state = "/root/logrotate.state"
    try:
        for word in ("first", "second"):
            droplet.sh(f"echo {word} >{LOG}; logrotate --force --state {state} /etc/logrotate.d/titan-backup")
        assert droplet.sh(f"cat {LOG}.1; zcat {LOG}.2.gz").split() == ["second", "first"]
    finally:
        droplet.sh(f"rm -f {LOG}* {state}")


def test_the_runbooks_command_makes_a_backup_with_a_label(droplet: Droplet) -> None:
    said = droplet.sh("cd /opt/titan && ./scripts/ops/backup_db.sh verification_snapshot")
    (name,) = [item for item in names(droplet) if item.endswith("Z_verification_snapshot.sql")]
    assert f"{DIRECTORY}/{name}: " in said
    sha = droplet.sh(f"sha256sum {DIRECTORY}/{name}").split()[0]
    assert sha in said and sha == json.loads(droplet.sh(f"cat {DIRECTORY}/{name}.manifest.json"))["sha256"]
    assert (last_line(droplet)["operation"], last_line(droplet)["backup"]) == ("backup", name)
    assert_tidy(droplet)


def test_help_and_exit_codes(droplet: Droplet) -> None:
    assert "Exit codes" in droplet.sh(f"{SCRIPT} -h")
    assert droplet.host.run(f"{SCRIPT} a b").rc == 2
    before = names(droplet)
    done = droplet.host.run(f"{SCRIPT} ../x")
    assert done.rc == 1 and "cannot be part of a file name" in done.stderr
    droplet.sh("docker stop titan-postgres >/dev/null")
    try:
        done = droplet.host.run(SCRIPT)
    finally:
        droplet.sh("docker start titan-postgres >/dev/null")
    assert done.rc == 1 and done.stdout == "" and "does not run" in done.stderr
    assert last_line(droplet)["result"] == "failed"
    assert 'titan_operation_last_success{operation="backup"} 0.0' in droplet.sh(f"cat {METRICS}")
    assert names(droplet) == before


def test_while_another_operation_runs_it_waits_and_then_names_it(droplet: Droplet) -> None:
    settings = "/opt/titan/scripts/ops/backup_db.json"
    with droplet.edited('s/"lock_timeout": [0-9.]*/"lock_timeout": 1/', settings):
        done = droplet.host.run(f"flock /opt/titan/state/deploy.lock {SCRIPT}")
    assert done.rc == 75 and "host lock" in done.stderr


@pytest.mark.parametrize("rotation", ["pg_password", "hmac_rotate"])
def test_a_rotation_waits_while_it_runs_and_then_names_it(droplet: Droplet, rotation: str) -> None:
    before = (droplet.containers(), droplet.sh("sha256sum /opt/titan/compose/.env.prod"))
    with table_locked(droplet) as holder, droplet.background(f"exec {SCRIPT} while_rotating") as running:
        droplet.sh(
            'for i in $(seq 600); do [ -n "$(docker ps -q --filter label=titan.ops.sidecar)" ] && exit 0;'
            " sleep 0.1; done; exit 1"
        )
        told = droplet.module(rotation, lock_timeout=1)
        assert holder.stdin
        holder.stdin.close()
        assert running.wait(120) == 0
    assert told["failed"] and "The host lock /opt/titan/state/deploy.lock is held by backup_db.sh" in told["msg"], told
    assert "for: back the database up; waited 1 seconds for it" in told["msg"]
    assert (droplet.containers(), droplet.sh("sha256sum /opt/titan/compose/.env.prod")) == before
    assert_tidy(droplet)


def test_the_drill_by_cron(droplet: Droplet) -> None:
    """Its minute brought forward, all else as installed; without a time there is no file."""
    droplet.sh(f"{SCRIPT} to_verify")
    (name,) = [item for item in names(droplet) if item.endswith("Z_to_verify.sql")]
    assert changes(droplet.playbook("schedule_backups", "-e", json.dumps({"backup_verify_schedule": "30 4 * * 0"}))) > 0
    droplet.sh(f"sed -i 's/^30 4 \\* \\* 0 /* * * * * /' {VERIFY}")
    droplet.sh(f"for i in $(seq 400); do [ -s {VERIFY_LOG} ] && exit 0; sleep 0.5; done; exit 1")
    assert changes(droplet.playbook("schedule_backups")) > 0 and droplet.host.run(f"test -e {VERIFY}").rc != 0
    droplet.sh("flock /opt/titan/state/deploy.lock true")
    assert name in droplet.sh(f"cat {VERIFY_LOG}")
    assert (last_line(droplet)["operation"], last_line(droplet)["result"]) == ("verify_backup", "ok")
    assert json.loads(droplet.sh(f"cat {DIRECTORY}/{name}.manifest.json"))["verified"]
    droplet.sh(f"rm {VERIFY_LOG}")
    assert_tidy(droplet)


def test_cron_really_runs_it(droplet: Droplet) -> None:
    """Its minute brought forward, all else as installed."""
    clear(droplet)
    droplet.sh(f"rm -f {LOG}; systemctl is-active cron")
    began = int(droplet.sh("date +%s"))
    before = len(droplet.sh("cat /opt/titan/logs/ops.jsonl").splitlines())
    droplet.sh(f"sed -i 's/^0 2 /* * /' {CRON}")
    try:
        droplet.sh(f"for i in $(seq 400); do [ -s {LOG} ] && exit 0; sleep 0.5; done; exit 1")
    finally:
        droplet.sh(f"sed -i 's/^\\* \\* /0 2 /' {CRON}")
    nightly = [item for item in names(droplet) if re.fullmatch(r"titan_brain_\d{4}-\d\d-\d\d\.sql", item)]
    assert len(nightly) == 1
    assert f"{DIRECTORY}/{nightly[0]}: " in droplet.sh(f"cat {LOG}")
    lines = droplet.sh("cat /opt/titan/logs/ops.jsonl").splitlines()[before:]
    found = [line for line in map(json.loads, lines) if line.get("backup") == nightly[0]]
    assert len(found) == 1 and found[0]["who"]["by"] == "backup_db.sh"
    text = droplet.sh(f"cat {METRICS}")
    moment = re.search(r"^titan_backup_last_success_timestamp_seconds\{.*\} (\S+)$", text, flags=re.MULTILINE)
    assert moment and float(moment[1]) >= began
    assert_tidy(droplet)
