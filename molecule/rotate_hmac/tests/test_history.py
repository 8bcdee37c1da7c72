# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a rotation: its line in the history, and its metrics in Prometheus."""

from __future__ import annotations

import base64
import json
import shlex
import time
from typing import Any
from urllib.parse import quote

from droplet import Droplet, words

HISTORY = "/opt/titan/logs/ops.jsonl"
METRICS = "/var/lib/prometheus/node-exporter/titan_rotate_hmac.prom"


def entries(droplet: Droplet) -> list[dict[str, Any]]:
    return [json.loads(line) for line in droplet.sh(f"cat {HISTORY} 2>/dev/null || true").splitlines()]


def scraped(droplet: Droplet, query: str) -> dict[str, float]:
    """A metric as Prometheus has it now: the series that node_exporter gave at its last scrape, by their labels."""
    found = json.loads(
        droplet.sh(f"curl -sS -G http://127.0.0.1:9090/api/v1/query --data-urlencode query={shlex.quote(query)}")
    )
    assert found["status"] == "success", found
    return {
        ",".join(
            f"{name}={text}"
            for name, text in sorted(item["metric"].items())
            if name in ("operation", "secret", "service")
        ): float(item["value"][1])
        for item in found["data"]["result"]
    }


def wait_scraped(droplet: Droplet, query: str, labels: str, since: float) -> float:
    """The value of a series as soon as it is at least so high; Prometheus asks every five seconds."""
    deadline = time.monotonic() + 30
    while True:
        value = scraped(droplet, query).get(labels, 0.0)
        if value >= since:
            return value
        assert time.monotonic() < deadline, f"{query} is {value} for {labels}, and does not reach {since}"
        time.sleep(0.5)


def test_a_rotation_leaves_one_line_without_a_secret_and_its_metrics(droplet: Droplet) -> None:
    before, old = entries(droplet), droplet.secret()
    began = float(droplet.sh("date +%s"))
    done = droplet.playbook(
        "rotate_hmac", "-e", '{"awx_job_id": 17, "awx_user_name": "alice", "awx_job_template_name": "Rotate HMAC"}'
    )
    assert done.returncode == 0, done.stdout
    ended, new = float(droplet.sh("date +%s")) + 1, droplet.secret()

    after = entries(droplet)
    assert after[:-1] == before
    line = after[-1]
    assert (line["operation"], line["result"], line["keys"]) == ("rotate_hmac", "ok", ["HMAC_SECRET"])
    assert line["who"] == {"user": "deploy", "operator": "alice", "job": "17", "job_template": "Rotate HMAC"}
    assert set(line["interruption_seconds"]) == {"titan-brain", "titan-execution"}
    assert 0 < line["interruption_seconds"]["titan-brain"] <= line["seconds"] < ended - began
    generations = [
        item["secret"]["generation"] for item in before if item.get("secret", {}).get("name") == "HMAC_SECRET"
    ]
    assert line["secret"]["generation"] == max(generations, default=0) + 1
    assert droplet.sh(f"stat -c '%U %a' {HISTORY}; stat -c '%U %a' {METRICS}").split("\n") == ["root 640", "root 644"]
    # neither the old secret nor the new one, in any usual form
    written = droplet.sh(f"cat {HISTORY} {METRICS}")
    for secret in (old, new):
        for form in (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()):
            assert form not in written

    rotated = wait_scraped(droplet, "titan_secret_rotated_timestamp_seconds", "secret=HMAC_SECRET", began)
    assert rotated <= ended
    assert scraped(droplet, "titan_operation_last_success")["operation=rotate_hmac"] == 1
    assert scraped(droplet, "titan_operation_last_run_timestamp_seconds")["operation=rotate_hmac"] == rotated
    interruption = scraped(droplet, "titan_operation_interruption_seconds")
    assert interruption["operation=rotate_hmac,service=titan-brain"] == line["interruption_seconds"]["titan-brain"]
    assert "node_textfile_scrape_error 0" in droplet.sh("curl -sS http://127.0.0.1:9100/metrics")


def test_a_refused_rotation_is_told_and_keeps_the_date_of_the_last_one(droplet: Droplet) -> None:
    before = entries(droplet)
    rotated = scraped(droplet, "titan_secret_rotated_timestamp_seconds").get("secret=HMAC_SECRET")
    began = float(droplet.sh("date +%s"))
    result = droplet.module("hmac_rotate", key="NOPE")
    assert result["failed"]
    (line,) = entries(droplet)[len(before) :]
    assert line["result"] == "failed" and "does not set NOPE" in line["error"] and "secret" not in line
    wait_scraped(droplet, "titan_operation_last_run_timestamp_seconds", "operation=rotate_hmac", began)
    assert scraped(droplet, "titan_operation_last_success")["operation=rotate_hmac"] == 0
    assert scraped(droplet, "titan_secret_rotated_timestamp_seconds").get("secret=HMAC_SECRET") == rotated


def test_check_mode_leaves_no_trace(droplet: Droplet, unchanged: None) -> None:
    before = droplet.sh(f"cat {HISTORY} {METRICS} | sha256sum")
    assert not droplet.module("hmac_rotate", "--check")["failed"]
    assert droplet.module("hmac_rotate", "--check", key="NOPE")["failed"]
    assert droplet.sh(f"cat {HISTORY} {METRICS} | sha256sum") == before


def test_a_history_that_cannot_be_written_is_a_warning_and_the_rotation_is_done(droplet: Droplet) -> None:
    old = droplet.secret()
    droplet.sh("mv /opt/titan/logs /opt/titan/logs.away && touch /opt/titan/logs")
    try:
        done = droplet.playbook("rotate_hmac")
    finally:
        droplet.sh("rm /opt/titan/logs && mv /opt/titan/logs.away /opt/titan/logs")
    assert done.returncode == 0 and droplet.secret() != old, done.stdout
    assert "The history /opt/titan/logs/ops.jsonl could not be written" in words(done)
