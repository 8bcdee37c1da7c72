# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two operations at once: the second waits for the first, or fails and says who that is; they never interleave."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from database import HOLDERS, KEY, assert_one_password
from droplet import Droplet, words

LOCK = "/opt/titan/state/deploy.lock"
HISTORY = "/opt/titan/logs/ops.jsonl"
REASON = {"rotate_hmac": "rotate the HMAC secret", "rotate_db_password": "rotate the database password"}

TWO_HAVE_IT_OPEN = f"[ $(find /proc/[0-9]*/fd -lname {LOCK} 2>/dev/null | cut -d/ -f3 | sort -u | wc -l) = 2 ]"

Done = subprocess.CompletedProcess[str]


def patience(seconds: float) -> tuple[str, str]:
    """The option by which a playbook waits so long for the lock."""
    return "-e", json.dumps({"titan_stack": {"lock_timeout": seconds}})


def until(droplet: Droplet, condition: str) -> None:
    """Wait until a shell command succeeds, at most two minutes."""
    droplet.sh(f"for i in $(seq 1200); do {condition} && exit 0; sleep 0.1; done; exit 1")


def holding(droplet: Droplet) -> dict[str, Any]:
    """Who holds the lock, by the lock file."""
    record: dict[str, Any] = json.loads(droplet.sh(f"cat {LOCK}"))
    return record


def history(droplet: Droplet) -> list[dict[str, Any]]:
    return [json.loads(line) for line in droplet.sh(f"cat {HISTORY}").splitlines()]


@contextlib.contextmanager
def held_up(droplet: Droplet, playbook: str) -> Iterator[tuple[int, Future[Done]]]:
    """A playbook that is stopped (SIGSTOP) in the middle, with its journal written; afterwards it goes on and ends."""
    # Seen together: who has written the journal holds the lock and is in its record.
    stopper = (
        f"for i in $(seq 12000); do ls /opt/titan/state/*.journal >/dev/null 2>&1"
        f" && pid=$(grep -o '\"pid\": [0-9]*' {LOCK} | tr -dc 0-9) && kill -STOP $pid && echo $pid && exit 0;"
        " sleep 0.01; done; exit 1"
    )
    with droplet.background(stopper) as watcher, ThreadPoolExecutor(1) as threads:
        first = threads.submit(droplet.playbook, playbook)
        assert watcher.stdout is not None
        pid = int(watcher.stdout.readline() or "0")
        assert pid, first.result().stdout
        try:
            yield pid, first
        finally:
            droplet.host.run(f"kill -CONT {pid}")  # unless the test has let it go already


@pytest.mark.parametrize(
    ("first", "second"),
    [("rotate_hmac", "rotate_hmac"), ("rotate_db_password", "rotate_hmac"), ("rotate_hmac", "rotate_db_password")],
)
def test_the_second_rotation_waits_for_the_first(droplet: Droplet, first: str, second: str) -> None:
    before = history(droplet)
    with held_up(droplet, first) as (pid, one), ThreadPoolExecutor(1) as threads:
        record = holding(droplet)
        assert (record["pid"], record["reason"]) == (pid, REASON[first])
        state = droplet.fingerprint()

        refused = droplet.playbook(second, *patience(1))
        assert refused.returncode != 0
        told = words(refused)
        assert f"The host lock {LOCK} is held by Ansible as deploy (process {pid})" in told
        assert f"since {record['since']} for: {REASON[first]}; waited 1 seconds for it" in told
        assert droplet.fingerprint() == state and holding(droplet) == record and not one.done()

        two = threads.submit(droplet.playbook, second, *patience(300))
        # it has the lock file open, too, and that is all that it does
        until(droplet, TWO_HAVE_IT_OPEN)
        assert droplet.fingerprint() == state and holding(droplet) == record
        droplet.sh(f"kill -CONT {pid}")
        assert one.result().returncode == 0, one.result().stdout
        assert two.result().returncode == 0, two.result().stdout

    lines = history(droplet)[len(before) :]
    assert [(line["operation"], line["result"]) for line in lines] == [
        (second, "failed"),
        (first, "ok"),
        (second, "ok"),
    ]
    # No interleaving: by their own dates (whole seconds), and by when the last containers were made.
    _refused, was, then = (
        (datetime.fromisoformat(line["started"].replace("Z", "+00:00")).timestamp(), line["seconds"]) for line in lines
    )
    assert was[0] + was[1] < then[0] + 1, lines
    for name in HOLDERS:
        made = float(droplet.sh(f"date -d $(docker inspect -f '{{{{.Created}}}}' {name}) +%s.%N"))
        assert then[0] <= made < then[0] + 1 + then[1], (name, made, lines)
    assert_one_password(droplet, droplet.secret(KEY), "never-the-password-of-anybody")


# Cron's backup takes the same lock, without Ansible.
RECORD = '{"holder": "cron, user root", "reason": "nightly backup", "since": "2026-02-06T02:00:00Z", "pid": \'$$\'}'
BACKUP = f"exec 9<>{LOCK}; flock 9; printf '{RECORD}\\n' >&9; echo held; read -r; truncate -s 0 {LOCK}"


@pytest.mark.parametrize("playbook", ["rotate_db_password", "rotate_hmac"])
def test_a_rotation_does_not_wait_for_the_nightly_backup_for_ever(
    droplet: Droplet, playbook: str, unchanged: None
) -> None:
    with droplet.background(BACKUP) as cron:
        assert cron.stdout is not None and cron.stdout.readline().strip() == "held"
        done = droplet.playbook(playbook, *patience(1))
    assert done.returncode != 0
    assert "is held by cron, user root (process " in words(done)
    assert "since 2026-02-06T02:00:00Z for: nightly backup; waited 1 seconds for it" in words(done)


def test_a_rotation_goes_on_when_the_nightly_backup_has_ended(droplet: Droplet) -> None:
    old, state = droplet.secret(KEY), droplet.fingerprint()
    with ThreadPoolExecutor(1) as threads, droplet.background(BACKUP) as cron:
        assert cron.stdout is not None and cron.stdout.readline().strip() == "held"
        done = threads.submit(droplet.playbook, "rotate_db_password", *patience(300))
        until(droplet, TWO_HAVE_IT_OPEN)
        assert droplet.fingerprint() == state
    assert done.result().returncode == 0, done.result().stdout
    assert_one_password(droplet, droplet.secret(KEY), old)
