# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The storage and its repositories as these tests see them: by plain tools, restic's own command among them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

from droplet import Droplet

NAME = f"{os.environ.get('SANDBOX_NAME') or 'titan-droplet'}-storage"
DIRECTORY = "/opt/titan/backups/db"
SCRIPT = "/opt/titan/scripts/ops/backup_db.sh"
METRICS = "/var/lib/prometheus/node-exporter/titan_backup_offsite.prom"
SFTP = f"sftp:store@{NAME}:/store/titan"
S3 = f"s3:http://{NAME}:9000/bucket/titan"
SECRETS = "/etc/titan-ops/offsite"
# What the role hands the module, but for the repository.
OPTIONS: dict[str, Any] = {
    "repository": SFTP,
    "password_file": f"{SECRETS}.password",
    "environment_file": f"{SECRETS}.environment",
    "ssh_key": f"{SECRETS}.key",
    "known_hosts": f"{SECRETS}.known_hosts",
    "connect_timeout": 20,
}
SSH = (
    f"ssh store@{NAME} -i {SECRETS}.key -o UserKnownHostsFile={SECRETS}.known_hosts -o StrictHostKeyChecking=yes"
    " -s sftp"
)


def storage(*argv: str, check: bool = True) -> str:
    """Run docker with the storage's name at the place of NAME."""
    command = ["docker", *[NAME if word == "NAME" else word for word in argv]]
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


def restic(droplet: Droplet, *argv: str, repository: str = SFTP, cwd: str = "/") -> str:
    """restic's own command on the Droplet, without any of our code."""
    words = " ".join(shlex.quote(word) for word in argv)
    return droplet.sh(
        f"cd {cwd}; set -a; . {SECRETS}.environment; export TZ=UTC RESTIC_REPOSITORY={repository}"
        f" RESTIC_PASSWORD_FILE={SECRETS}.password; restic --no-cache -o {shlex.quote(f'sftp.command={SSH}')} {words}"
    )


def snapshots(droplet: Droplet, *argv: str, repository: str = SFTP) -> list[dict[str, Any]]:
    """The snapshots, oldest first."""
    found: list[dict[str, Any]] = json.loads(restic(droplet, "snapshots", "--json", *argv, repository=repository))
    return sorted(found, key=lambda item: str(item["time"]))


def stored(droplet: Droplet, repository: str = SFTP) -> set[str]:
    """The names of the backups in the repository, by its tags."""
    return {
        tag.partition("=")[2]
        for item in snapshots(droplet, "--tag", "titan.ops", repository=repository)
        for tag in item["tags"]
        if tag.startswith("backup=")
    }


def backups(droplet: Droplet) -> set[str]:
    """The backups on the host."""
    return {name for name in droplet.sh(f"ls -A {DIRECTORY}").split() if not name.endswith(".manifest.json")}


def history(droplet: Droplet) -> dict[str, Any]:
    """The last line of the history."""
    found: dict[str, Any] = json.loads(droplet.sh("tail -n 1 /opt/titan/logs/ops.jsonl"))
    return found


def metric(droplet: Droplet, name: str, path: str = METRICS) -> float:
    """A value of the metrics, by default of the copies'."""
    return float(droplet.sh(f"sed -n 's/^{name}{{.*}} //p' {path}"))


def wait_gone(droplet: Droplet, pattern: str) -> None:
    """Until no process has this in its arguments, at most 20 seconds."""
    other = shlex.quote(f"[{pattern[0]}]{pattern[1:]}")  # which the shell that asks does not have itself
    droplet.sh(f"for i in $(seq 200); do pgrep -f {other} >/dev/null || exit 0; sleep 0.1; done; exit 1")


@contextlib.contextmanager
def slow_copy(droplet: Droplet, through: str = "{}") -> Iterator[subprocess.Popen[str]]:
    """backup_db.sh with data that nothing else has, in the middle of copying it at 100 KiB per second (20 seconds).

    Args:
        through: what runs the command at the place of the braces.
    """
    psql = "docker exec -i titan-postgres psql -X -q -U titan -d titan_brain"
    table = "CREATE TABLE offsite_filler AS SELECT md5(random()::text) a FROM generate_series(1,60000)"
    settings = json.loads(droplet.sh("cat /opt/titan/scripts/ops/backup_db.json"))
    settings["offsite"]["limit_upload"] = 100
    droplet.sh(f"umask 077; cat >/root/slow.json <<'END'\n{json.dumps(settings)}\nEND\n{psql} -c \"{table}\"")
    storage("exec", "NAME", "touch", "/tmp/began")
    try:
        run = through.format("python3 -I /opt/titan/lib/titan-ops.pyz --config /root/slow.json big")
        with droplet.background(f"{run} 2>&1; echo rc=$?") as process:
            look = "find /store/titan/data -type f -newer /tmp/began | grep -q ."
            storage("exec", "NAME", "sh", "-c", f"for i in $(seq 600); do {look} && exit 0; sleep 0.1; done; exit 1")
            yield process
    finally:
        droplet.sh(f'rm -f /root/slow.json; {psql} -c "DROP TABLE offsite_filler"')
