# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Prometheus knows of the backups: the metrics by scraping, the alerts by the rules that the role brings."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from backups import assert_tidy, clear, manifest
from droplet import ROOT, Droplet, changes

RULES = ROOT / "roles/backup/files/titan-ops.rules.yml"
TESTS = ROOT / "molecule/backup/files/titan-ops.rules.test.yml"
RULE_COUNT = RULES.read_text(encoding="utf-8").count("- alert: ")
PLACE = "/etc/prometheus/rules"
API = "http://127.0.0.1:9090/api/v1"


@pytest.fixture(scope="module", autouse=True)
def installed(droplet: Droplet) -> Iterator[None]:
    """The rules as docs/backups.md says: copied in, checked, loaded."""
    clear(droplet)
    # Without its .yml the second is none of the rules that Prometheus loads.
    for path, name in ((RULES, RULES.name), (TESTS, TESTS.stem)):
        text = base64.b64encode(path.read_bytes()).decode()
        inside = f"docker exec -i -u 0 titan-prometheus sh -c 'cat > {PLACE}/{name}'"
        droplet.sh(f"echo {text} | base64 -d | {inside}")
    droplet.sh("docker kill -s HUP titan-prometheus >/dev/null")
    loaded = f'curl -sS {API}/rules | grep -o \'"type":"alerting"\' | wc -l'
    droplet.sh(f"for i in $(seq 60); do [ $({loaded}) = {RULE_COUNT} ] && exit 0; sleep 0.5; done; exit 1")
    yield
    droplet.sh(
        f"docker exec -u 0 titan-prometheus sh -c 'rm {PLACE}/*'; docker kill -s HUP titan-prometheus >/dev/null"
    )
    clear(droplet)


def ask(droplet: Droplet, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers."""
    query = shlex.quote(f"query={expression}")
    answer = json.loads(droplet.sh(f"curl -sS {API}/query --data-urlencode {query}"))
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def until(droplet: Droplet, expression: str) -> None:
    """Until the expression holds, which it does with the scrape after next, at most a minute."""
    asking = f"curl -sS {API}/query --data-urlencode {shlex.quote(f'query={expression}')}"
    droplet.sh(f"for i in $(seq 60); do {asking} | grep -q '\"value\"' && exit 0; sleep 1; done; {asking} >&2; exit 1")


def exported(droplet: Droplet, operation: str) -> dict[str, float]:
    """The metrics of one operation's own file, by name and labels."""
    text = droplet.sh(f"cat /var/lib/prometheus/node-exporter/titan_{operation}.prom")
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_promtool_proves_every_alert(droplet: Droplet) -> None:
    said = droplet.sh(f"docker exec titan-prometheus promtool test rules {PLACE}/{TESTS.stem} 2>&1")
    assert re.search(r"^ *SUCCESS$", said, flags=re.MULTILINE), said
    checked = droplet.sh(f"docker exec titan-prometheus promtool check rules {PLACE}/{RULES.name} 2>&1")
    assert f"{RULE_COUNT} rules found" in checked


def test_what_prometheus_scrapes_is_what_the_manifest_says(droplet: Droplet) -> None:
    assert changes(droplet.playbook("backup", "-e", "label=scraped")) == 1
    assert changes(droplet.playbook("verify_backup")) == 1
    metrics = {**exported(droplet, "backup"), **exported(droplet, "verify_backup")}
    (path,) = droplet.sh("ls -d /opt/titan/backups/db/*.sql").split()
    told = manifest(droplet, path)
    moments = {name: int(droplet.sh(f"date -d {told[name]} +%s")) for name in ("ended", "verified")}
    for name, wanted in {
        "titan_backup_last_success_timestamp_seconds": moments["ended"],
        "titan_backup_last_verified_timestamp_seconds": moments["verified"],
        "titan_backup_size_bytes": told["size_bytes"],
        "titan_backup_duration_seconds": told["seconds"],
    }.items():
        series = f'{name}{{database="titan_brain"}}'
        assert metrics[series] == wanted, name
        until(droplet, f"{series} == {wanted}")
        (found,) = ask(droplet, series)
        assert found["metric"]["job"] == "node" and float(found["value"][1]) == wanted


def test_the_alerts_on_this_host_are_quiet_after_a_backup_and_fire_after_one_that_failed(droplet: Droplet) -> None:
    """The rules in a real Prometheus, over what a real run has written.

    The last backups of these tests differ in format and size: that one is smaller than another is true, and told.
    """
    firing = 'ALERTS{alertname=~"TitanBackup.*", alertname!="TitanBackupShrinking", alertstate="firing"}'
    assert changes(droplet.playbook("backup", "-e", "label=well")) == 1
    assert changes(droplet.playbook("verify_backup")) == 1
    until(droplet, 'titan_operation_last_success{operation=~"backup|verify_backup"} == 1')
    until(droplet, f"absent({firing})")
    # a slip of who asks is nobody's alarm
    assert droplet.module("db_backup", label="../x")["failed"]
    until(droplet, 'titan_operation_last_success{operation="backup"} == 1')
    assert droplet.module("db_backup", label="big", space_margin=1e9)["failed"]
    until(droplet, 'ALERTS{alertname="TitanBackupFailed", alertstate="firing", severity="warning"}')
    assert [item["metric"]["alertname"] for item in ask(droplet, firing)] == ["TitanBackupFailed"]
    assert changes(droplet.playbook("backup", "-e", "label=mended")) == 1
    until(droplet, f"absent({firing})")
    assert_tidy(droplet)
