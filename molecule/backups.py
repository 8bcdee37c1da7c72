# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups and databases as these tests see them: by plain tools."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from droplet import Droplet

DIRECTORY = "/opt/titan/backups/db"
PSQL = "docker exec -i titan-postgres psql -X -q -At -v ON_ERROR_STOP=1 -U titan"
# The rows of every table (of a partitioned one: of its partitions), one line each.
COUNTS = (
    "SELECT format('SELECT %L, count(*) FROM %s', 'public.' || quote_ident(relname), oid::regclass)"
    " FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname"
)
_LOCKS = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation IS NOT NULL"


def sql(droplet: Droplet, *statements: str, database: str = "titan_brain") -> str:
    """Run statements as the superuser; what the last printed."""
    script = ";\n".join(statements) + ";\n"
    return droplet.sh(f"{PSQL} -d {database} <<'END'\n{script}END").strip()


def counts(droplet: Droplet, database: str) -> dict[str, int]:
    """The rows of every table, counted by psql."""
    text = droplet.sh(f'{PSQL} -d {database} -c "{COUNTS}" | sed "s/$/;/" | {PSQL} -d {database}')
    return {name: int(rows) for name, rows in (line.split("|") for line in text.splitlines())}


def names(droplet: Droplet, directory: str = DIRECTORY) -> list[str]:
    """All that is in the directory, hidden files as well."""
    return droplet.sh(f"ls -A {directory}").split()


def sealed(made: dict[str, Any]) -> dict[str, Any]:
    """A manifest that a test has changed, with its own checksum as docs/backups.md describes it."""
    rest = {name: value for name, value in made.items() if name != "manifest_sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}


def manifest(droplet: Droplet, path: str) -> dict[str, Any]:
    """A backup's manifest."""
    found: dict[str, Any] = json.loads(droplet.sh(f"cat {path}.manifest.json"))
    return found


def clear(droplet: Droplet) -> None:
    """No backup at all."""
    droplet.sh(f"find {DIRECTORY} -mindepth 1 -delete")


def assert_tidy(droplet: Droplet, directory: str = DIRECTORY) -> None:
    """Every backup has its manifest and the other way round; no container, no volume and no password is left behind."""
    there = names(droplet, directory)
    backups = {name for name in there if not name.endswith(".manifest.json")}
    assert {f"{name}.manifest.json" for name in backups} == set(there) - backups
    assert not [name for name in there if name.startswith(".")]
    assert droplet.sh("docker ps -aq --filter label=titan.ops.sidecar") == ""
    assert droplet.sh("docker volume ls -q | grep -cv ^titan-prod_ || true").strip() == "0"
    assert droplet.sh("find /run/titan-ops -type f 2>/dev/null || true") == ""


@contextlib.contextmanager
def table_locked(droplet: Droplet) -> Iterator[subprocess.Popen[str]]:
    """A lock on a table, which holds every dump back; closing its input gives it up, as does the end."""
    held = "SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;"
    with droplet.background(f"(echo '{held}'; cat) | {PSQL} -d titan_brain") as holder:
        droplet.sh(
            f'for i in $(seq 100); do [ $({PSQL} -d postgres -c "{_LOCKS}") = 1 ] && exit 0; sleep 0.1; done; exit 1'
        )
        yield holder


def wait_database(droplet: Droplet) -> None:
    """Until the database passes its health check, at most a minute."""
    state = "docker inspect -f '{{.State.Health.Status}}' titan-postgres"
    droplet.sh(f"for i in $(seq 120); do [ $({state}) = healthy ] && exit 0; sleep 0.5; done; exit 1")
