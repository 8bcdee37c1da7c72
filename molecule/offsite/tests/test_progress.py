# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The progress of copies off-site, printed by Ansible and on a terminal. A gate holds the copy until it was seen."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator

import pytest
from droplet import ROOT, Droplet, changes
from storage import SSH, backups, slow_copy, stored

LINE = re.compile(r"^titan-droplet  db_offsite  copying titan_brain_\S+_watched\.sql off-site: \d+ s so far$")
RUNS = "pgrep -f '[r]estic --no-cache.* backup ' >/dev/null"


@pytest.fixture(scope="module")
def droplet() -> Droplet:
    return Droplet("molecule/offsite/inventory")


@pytest.fixture(scope="module", autouse=True)
def scheduled(droplet: Droplet) -> None:
    """backup_db.sh knows the repository."""
    changes(droplet.playbook("schedule_backups"))


@pytest.fixture
def gate(droplet: Droplet) -> Iterator[list[str]]:
    """ssh that waits for /root/go when restic copies, and only then; gives the arguments that make restic use it."""
    script = (
        "#!/bin/sh\n"
        "if tr '\\0' '\\n' </proc/$PPID/cmdline | grep -qx backup; then\n"
        "  while [ ! -e /root/go ]; do sleep 0.1; done\n"
        f"fi\nexec {SSH}\n"
    )
    droplet.sh(f"cat >/root/gate <<'END'\n{script}END\nchmod 0700 /root/gate; rm -f /root/go")
    yield ["-e", json.dumps({"backup_offsite_options": ["sftp.command=/root/gate"]})]
    droplet.sh("rm -f /root/gate /root/go")


@contextlib.contextmanager
def playing(droplet: Droplet, *options: str) -> Iterator[subprocess.Popen[str]]:
    """backup.yml under way, with a line every second."""
    inventories = ["-i", "inventories/sandbox", "-i", "molecule/offsite/inventory"]
    label = ["-e", "label=watched", "-e", "backup_progress_interval=1"]
    with subprocess.Popen(
        ["ansible-playbook", *inventories, "playbooks/backup.yml", *label, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            droplet.sh("touch /root/go")


def until(droplet: Droplet, condition: str) -> None:
    """Until a shell condition holds on the Droplet, at most two minutes."""
    droplet.sh(f"for i in $(seq 600); do {condition} && exit 0; sleep 0.2; done; exit 1")


def test_a_copy_that_takes_its_time_prints_lines_and_ends_as_ever(droplet: Droplet, gate: list[str]) -> None:
    said: list[str] = []
    with playing(droplet, *gate) as running:
        assert running.stdout
        for line in running.stdout:
            said.append(line)
            if sum(bool(LINE.match(item)) for item in said) == 2:
                break
        droplet.sh("touch /root/go")
        said.append(running.communicate(timeout=120)[0])
    text = "".join(said)
    assert running.returncode == 0 and "_watched.sql" in text and " MB sent" in text, text
    assert stored(droplet) >= backups(droplet)


def test_nothing_is_printed_when_it_is_not_wanted(droplet: Droplet, gate: list[str]) -> None:
    with playing(droplet, *gate, "-e", "progress=false") as running:
        until(droplet, RUNS)
        assert droplet.sh("ls /run/titan-ops | grep progress || :") == "", "nobody looks"
        droplet.sh("touch /root/go")
        said = running.communicate(timeout=120)[0]
    assert running.returncode == 0 and "db_offsite  " not in said, said
    assert stored(droplet) >= backups(droplet)


def test_backup_db_sh_shows_its_bytes_on_a_terminal(droplet: Droplet) -> None:
    """At 100 KiB per second restic says them several times before it ends."""
    seen = "/root/typescript"
    try:
        with slow_copy(droplet, f"script --quiet --flush --return --command '{{}}' {seen}") as copying:
            until(droplet, f"grep -qE 'copying titan_brain_[^ ]*_big.sql off-site: [0-9.]+ .?B(, 100| of )' {seen}")
            assert copying.stdout
            said = copying.stdout.read()
        assert "rc=0" in said and "copied off-site: " in said, said
        assert re.search(r"\r\x1b\[Kcopied off-site: ", droplet.sh(f"cat {seen}")), "the line is gone before that"
    finally:
        droplet.sh(f"rm -f {seen}")
    assert stored(droplet) >= backups(droplet)
