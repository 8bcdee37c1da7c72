# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet: are backups and databases as they must be? Asks Docker and the server itself."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import zlib
from typing import Any

import psycopg2
from final_state import BACKUPS, DATABASE, env_values, health, history, leftovers
from freezer import wait

NAME = "titan_brain"
SUFFIX = ".manifest.json"
WRITER = "titan-brain"
# Brain writes into it all the time.
MOVING = "public.brain_decisions"
_TRAILER = b"-- PostgreSQL database dump complete"
KEPT = f"{NAME}__before_"
FAILED = f"{NAME}__failed_"
_LEFT_BY_FAILED = f"titan.ops: {NAME} as left by the failed restore "
_OWN = {"postgres", "template0", "template1", NAME}


def _hash(path: str) -> tuple[str, int]:
    sha, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            sha.update(chunk)
            size += len(chunk)
    return sha.hexdigest(), size


def digest(path: str) -> tuple[str, int]:
    """The sha256 and the size of a backup, as docs/backups.md describes them."""
    if not os.path.isdir(path):
        return _hash(path)
    found = {name: _hash(os.path.join(path, name)) for name in sorted(os.listdir(path))}
    text = "".join(f"{sha}  {name}\n" for name, (sha, _size) in found.items())
    return hashlib.sha256(text.encode()).hexdigest(), sum(size for _sha, size in found.values())


def sealed(made: dict[str, Any]) -> dict[str, Any]:
    """A manifest with its own checksum, as docs/backups.md describes it."""
    rest = {name: value for name, value in made.items() if name != "manifest_sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}


def _tail(path: str) -> bytes:
    """The end of a plain dump."""
    opened = gzip.open(path) if path.endswith(".gz") else open(path, "rb")  # noqa: SIM115  (closed below)
    try:
        with opened as stream:
            return stream.read()[-400:]
    except (OSError, EOFError, zlib.error):  # a damaged gzip file has no end that could be read
        return b""


def not_whole(directory: str = BACKUPS) -> list[str]:
    """What under a final name is not what its manifest says, or not to its end; hidden files do not count."""
    wrong = []
    names = {name for name in os.listdir(directory) if not name.startswith(".")}
    for name in sorted(names):
        path = os.path.join(directory, name)
        if name.endswith(SUFFIX):
            continue
        if name + SUFFIX not in names:
            wrong.append(f"{name} has no manifest")
            continue
        with open(path + SUFFIX, encoding="utf-8") as stream:
            made = json.load(stream)
        sha, size = digest(path)
        if (sha, size) != (made["sha256"], made["size_bytes"]):
            wrong.append(f"{name} is not what its manifest says")
        if ".sql" in name and _TRAILER not in _tail(path):
            wrong.append(f"{name} ends too early")
        if name.endswith(".dump"):
            with open(path, "rb") as stream:
                if stream.read(5) != b"PGDMP":
                    wrong.append(f"{name} is no archive")
    return wrong


def files(directory: str = BACKUPS) -> dict[str, str]:
    """Everything under a final name, with its sha256; a manifest alone is one, too."""
    names = [name for name in sorted(os.listdir(directory)) if not name.startswith(".")]
    return {name: digest(os.path.join(directory, name))[0] for name in names}


def marks(directory: str = BACKUPS) -> dict[str, str | None]:
    """When a drill has verified each backup, as its manifest says; those without a manifest are not in it."""
    found = {}
    for name in os.listdir(directory):
        if name.endswith(SUFFIX) and not name.startswith("."):
            with open(os.path.join(directory, name), encoding="utf-8") as stream:
                found[name[: -len(SUFFIX)]] = json.load(stream).get("verified")
    return found


def hidden(directory: str = BACKUPS) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.startswith(".") and name != ".filler")


def docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"docker {argv[0]}: {done.stderr.strip()}")
    return done.stdout


def connect(database: str) -> Any:
    """A session of our own, over TCP, with the env file's password."""
    address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", DATABASE).strip()
    session = psycopg2.connect(
        host=address, user="titan", dbname=database, password=env_values()["TITAN_DB_PASSWORD"], connect_timeout=5
    )
    session.autocommit = True
    return session


def asked(database: str, *statements: str) -> list[tuple[Any, ...]]:
    """The rows that the last of the statements gives."""
    session = connect(database)
    try:
        with session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        session.close()


def databases() -> dict[str, tuple[int, str]]:
    """Number and comment of each."""
    found = asked(
        "postgres", "SELECT datname, oid::bigint, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database"
    )
    return {name: (oid, comment) for name, oid, comment in found}


def counts(database: str = NAME) -> dict[str, int]:
    """The rows of every table, those of partitioned ones in their partitions."""
    tables = asked(
        database,
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
    )
    if not tables:
        return {}
    union = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for (name,) in tables)
    return dict(asked(database, union))


def sidecars() -> list[str]:
    return docker("ps", "-aq", "--filter", "label=titan.ops.sidecar").split()


def look() -> dict[str, Any]:
    """The facts by which a message is judged, right after the run that said it."""
    state = json.loads(docker("inspect", WRITER))[0]["State"]
    try:
        there: dict[str, tuple[int, str]] | None = databases()
    except psycopg2.OperationalError:
        there = None  # it is down
    return {
        "files": files(),
        "hidden": hidden(),
        "marks": marks(),
        "databases": there,
        "writer": [state["StartedAt"], state["Running"]],
        "not_whole": not_whole(),
        "history": history(),
        "journals": sorted(name for name in os.listdir("/opt/titan/state") if name.endswith(".journal")),
    }


def _differing(found: dict[str, int], wanted: dict[str, int], what: str) -> list[str]:
    wrong = [
        f"{name} has {found.get(name)} rows, {what} {wanted.get(name)}"
        for name in sorted(set(found) | set(wanted))
        if name != MOVING and found.get(name) != wanted.get(name)
    ]
    if found.get(MOVING, -1) < wanted.get(MOVING, 0):
        wrong.append(f"{MOVING} has {found.get(MOVING)} rows, {what} at least {wanted.get(MOVING)}")
    return wrong[:4]


def kept() -> dict[str, tuple[int, dict[str, int]]]:
    """The databases from before restores: number and rows by name."""
    there = databases().items()
    return {name: (oid, counts(name)) for name, (oid, _comment) in there if name.startswith(KEPT)}


def verify(
    before: dict[str, Any],
    number: int,
    rows: dict[str, int],
    earlier: dict[str, tuple[int, dict[str, int]]],
    *,
    backup: str | None,
    swapped: bool | None,
    seconds: float,
) -> list[str]:
    """Everything that is wrong after the next run; [] when all is well.

    Args:
        before: the stack as it was while all was well.
        number: the production database's oid before the case.
        rows: its rows by then.
        earlier: what ``kept`` found before the case: an undo takes one of them back.
        backup: what was restored, if anything was to be.
        swapped: whether it must be in place; None where either will do.
        seconds: that the services get to be healthy.
    """
    wrong = _healthy(before["names"], seconds)
    wrong += leftovers(before, [])
    if left := sidecars():
        wrong.append(f"sidecar containers: {left}")
    left = [os.path.join(place, name) for place, names, found in os.walk("/run/titan-ops") for name in names + found]
    if left:
        wrong.append(f"left in memory: {left}")
    wrong += not_whole()
    if left := hidden():
        wrong.append(f"hidden files: {left}")
    there = databases()
    now = there.get(NAME, (0, ""))[0]
    aside = {name: oid for name, (oid, _comment) in there.items() if name.startswith(KEPT)}
    failed = {name for name, (_oid, comment) in there.items() if comment.startswith(_LEFT_BY_FAILED)}
    if left := sorted(set(there) - _OWN - set(aside) - {name for name in failed if name.startswith(FAILED)}):
        wrong.append(f"databases left: {left}")
    if not now:
        return [*wrong, f"there is no {NAME}"]
    if there[NAME][1]:
        wrong.append(f"{NAME} bears a mark: {there[NAME][1]}")
    if now == number:
        wrong += _differing(counts(), rows, "had")
        if set(aside) != set(earlier):
            wrong.append(f"nothing was swapped, and yet kept are {sorted(aside)}, before {sorted(earlier)}")
        if swapped:
            wrong.append("the restored database is not in place")
        return wrong
    back = [had for oid, had in earlier.values() if oid == now]
    if swapped is False or not (backup or back):
        return [*wrong, f"{NAME} is another database than before"]
    if backup:
        with open(os.path.join(BACKUPS, backup + SUFFIX), encoding="utf-8") as stream:
            wrong += _differing(counts(), json.load(stream)["rows"], "its manifest says")
    else:
        wrong += _differing(counts(), back[0], "before it was put aside it had")
    if number not in aside.values():
        wrong.append(f"the database from before is gone: kept are {aside}")
    for name, oid in aside.items():
        if oid == number:
            wrong += _differing(counts(name), rows, "before the swap it had")
    return wrong


def _healthy(names: list[str], seconds: float) -> list[str]:
    try:
        wait("the stack is healthy", lambda: not health(names), seconds, 0.3)
    except RuntimeError:
        return health(names)
    return []
