# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The progress of long backups, printed by Ansible and on a terminal, and Ctrl-C. A lock on a table makes them long."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest
from backups import DIRECTORY, assert_tidy, clear, names, table_locked
from droplet import ROOT, Droplet, changes

SCRIPT = "/opt/titan/scripts/ops/backup_db.sh"
LINE = re.compile(r"^titan-droplet  db_backup  dumping titan_brain: \d[\d.]* \w?B of about [\d.]+ MB, \d+ %")
RUNS = '[ -n "$(docker ps -q --filter label=titan.ops.sidecar)" ]'
# The lock's file has a holder's name for as long as there is one.
OVER = "[ ! -s /opt/titan/state/deploy.lock ]"


@pytest.fixture(scope="module", autouse=True)
def beginning(droplet: Droplet) -> Iterator[None]:
    clear(droplet)
    yield
    clear(droplet)


@contextlib.contextmanager
def playing(*options: str) -> Iterator[subprocess.Popen[str]]:
    """backup.yml under way, with a session of its own as at a terminal."""
    command = ["ansible-playbook", "-i", "inventories/sandbox", "playbooks/backup.yml", "-e", "label=watched"]
    with subprocess.Popen(
        [*command, "-e", "backup_progress_interval=1", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        yield running


def until(droplet: Droplet, condition: str) -> None:
    """Until a shell condition holds on the Droplet, at most two minutes."""
    droplet.sh(f"for i in $(seq 600); do {condition} && exit 0; sleep 0.2; done; exit 1")


def lines_until(running: subprocess.Popen[str], wanted: int) -> list[str]:
    """What it prints until there are so many lines about the dump."""
    assert running.stdout
    said: list[str] = []
    for line in running.stdout:
        said.append(line)
        if sum(bool(LINE.match(item)) for item in said) == wanted:
            break
    return said


def test_a_long_backup_prints_lines_and_ends_as_ever(droplet: Droplet) -> None:
    with table_locked(droplet) as holder, playing() as running:
        said = lines_until(running, 3)
        where = droplet.sh("find /run/titan-ops -name 'progress-*' -printf '%u %m\\n' -exec cat {}/line \\;").split(
            "\n"
        )
        assert holder.stdin
        holder.stdin.close()
        rest = running.communicate(timeout=120)[0]
    assert where[0] == "root 700" and where[1].startswith("dumping titan_brain: "), where
    text = "".join(said) + rest
    assert running.returncode == 0 and "_watched.sql was made" in text, text
    assert len(names(droplet)) == 2
    assert_tidy(droplet)


def test_nothing_is_printed_when_it_is_not_wanted(droplet: Droplet) -> None:
    with table_locked(droplet) as holder, playing("-e", "progress=false") as running:
        until(droplet, RUNS)
        assert droplet.sh("ls /run/titan-ops | grep progress || :") == "", "nobody looks"
        assert holder.stdin
        holder.stdin.close()
        said = running.communicate(timeout=120)[0]
    assert running.returncode == 0 and "db_backup  " not in said, said
    assert_tidy(droplet)


def test_a_short_run_prints_nothing_either(droplet: Droplet) -> None:
    done = droplet.playbook("backup", "-e", "label=short", "-e", "backup_progress_interval=600")
    assert changes(done) == 1 and "db_backup  " not in done.stdout
    assert "db_backup  " not in droplet.playbook("backup", "--check", "-e", "backup_progress_interval=1").stdout


def test_the_result_is_the_same_with_and_without(droplet: Droplet) -> None:
    """Brain writes meanwhile: rows and times differ, and names."""
    results = {shown: droplet.module("db_backup", label=f"same{shown}", progress=shown) for shown in (True, False)}
    assert set(results[True]) == set(results[False]) and results[True]["tables"] == results[False]["tables"]
    drills = {shown: droplet.module("db_verify", progress=shown) for shown in (True, False)}
    differ = {name for name in drills[True] if drills[True][name] != drills[False].get(name)}
    assert set(drills[True]) == set(drills[False]) and differ <= {"verified", "restore_seconds"}, drills
    failures = [droplet.module("db_backup", label="../x", progress=shown) for shown in (True, False)]
    assert failures[0] == failures[1] and failures[0]["failed"]
    for wrong in ({"progress": "perhaps"}, {"progress_interval": "often"}):
        told = droplet.module("db_backup", label="x", **wrong)
        assert told["failed"] and "unable to convert" in told["msg"], told
    assert_tidy(droplet)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_ctrl_c_ends_the_run_on_the_host_and_leaves_nothing(droplet: Droplet, number: signal.Signals) -> None:
    before = names(droplet)
    with table_locked(droplet), playing() as running:
        lines_until(running, 1)
        os.kill(running.pid, number)
        assert running.stdout
        running.stdout.read()
        assert running.wait(60) != 0
        until(droplet, OVER)  # while the table is locked still: it was not the dump that ended
        line = json.loads(droplet.sh("tail -n 1 /opt/titan/logs/ops.jsonl"))
        assert (line["result"], line["error"]) == ("failed", "The run was asked to end")
    assert names(droplet) == before
    assert_tidy(droplet)


def test_backup_db_sh_shows_it_on_a_terminal_and_nowhere_else(droplet: Droplet) -> None:
    assert changes(droplet.playbook("schedule_backups")) > 0
    seen = "/root/typescript"
    try:
        with table_locked(droplet) as holder:
            typed = f"script --quiet --flush --return --command '{SCRIPT} typed' {seen}"
            with droplet.background(f"{typed}; echo rc $?") as running:
                until(droplet, f"grep -qs 'dumping titan_brain' {seen}")
                assert holder.stdin
                holder.stdin.close()
                said = running.communicate(timeout=120)[0]
        assert "rc 0" in said
        text = droplet.sh(f"cat {seen}")
        assert "dumping titan_brain: 0 B of about " in text and "_typed.sql: " in text
        assert re.search(r"\r\x1b\[K[^\r\n]*_typed\.sql: ", text), "the line is gone before the result is told"
        with table_locked(droplet) as holder:
            quiet = f"{SCRIPT} quiet > /root/quiet.out 2>&1 < /dev/null; echo rc $?"
            with droplet.background(quiet) as running:
                until(droplet, RUNS)
                assert holder.stdin
                holder.stdin.close()
                assert "rc 0" in running.communicate(timeout=120)[0]
        (line,) = droplet.sh("cat /root/quiet.out").splitlines()
        assert line.startswith(f"{DIRECTORY}/") and "\r" not in line
    finally:
        droplet.sh(f"rm -f {seen} /root/quiet.out /etc/cron.d/titan-backup /etc/logrotate.d/titan-backup")
    assert_tidy(droplet)
