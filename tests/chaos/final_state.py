# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet: is everything as it must be? Asks Docker, /proc, the database and HTTP itself."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import http.client
import json
import os
import subprocess
import time
from typing import Any

import psycopg2

PROJECT = "/opt/titan"
ENV_FILE = f"{PROJECT}/compose/.env.prod"
BACKUPS = f"{PROJECT}/backups/db"
LOCK = f"{PROJECT}/state/deploy.lock"
HISTORY = f"{PROJECT}/logs/ops.jsonl"
METRICS = "/var/lib/prometheus/node-exporter"
KEYS = {"rotate_hmac": "HMAC_SECRET", "rotate_db_password": "TITAN_DB_PASSWORD"}
DATABASE = "titan-postgres"
# An active halt, in its container's own layer: lost, the engine would trade again.
EXECUTION, HALT, HALTED = "titan-execution", "/app/system.halt", "halted by the chaos tests"
ENDPOINTS = {
    "brain": (3100, "/health"),
    "execution": (3002, "/health"),
    "nats": (8222, "/healthz"),
    "opsd": (3200, "/health"),
}


def _docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"docker {argv[0]}: {done.stderr.strip()}")
    return done.stdout


def _containers() -> list[dict[str, Any]]:
    ids = _docker("ps", "-aq", "--no-trunc").split()
    found: list[dict[str, Any]] = json.loads(_docker("inspect", *ids)) if ids else []
    return found


def _name(detail: dict[str, Any]) -> str:
    return str(detail["Name"]).lstrip("/")


def _sick(detail: dict[str, Any]) -> str:
    """What is wrong with a container; "" when nothing is."""
    state = detail["State"]
    health = (state.get("Health") or {}).get("Status", "healthy")
    return (
        "" if (state["Status"], health) == ("running", "healthy") else f"{_name(detail)} is {state['Status']}, {health}"
    )


def wait_healthy(seconds: float) -> None:
    """Until every container there is runs and is healthy."""
    deadline = time.monotonic() + seconds
    while sick := [text for text in map(_sick, _containers()) if text]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {seconds:g} s: {'; '.join(sick)}")
        time.sleep(0.3)


def env_values() -> dict[str, str]:
    """The rotated keys, read with nothing but the file itself."""
    with open(ENV_FILE, encoding="utf-8") as stream:
        pairs = [line.rstrip("\r\n").split("=", 1) for line in stream if "=" in line]
    return {pair[0]: pair[1] for pair in pairs if pair[0] in KEYS.values()}


def _tree() -> list[str]:
    """Every file of the project but logs and backups, with owner, mode and what a link leads to."""
    found = []
    for directory, names, files in os.walk(PROJECT):
        if directory in (f"{PROJECT}/logs", BACKUPS):
            names.clear()
            continue
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            if path == LOCK:
                continue  # it is made by the first run, and stays
            info = os.lstat(path)
            link = f" -> {os.readlink(path)}" if os.path.islink(path) else ""
            found.append(f"{path}{link} {info.st_uid}:{info.st_gid} {oct(info.st_mode)}")
    return sorted(found)


def _metric_files() -> list[str]:
    return sorted(os.listdir(METRICS)) if os.path.isdir(METRICS) else []


def _content() -> dict[str, str]:
    """The env file without its secrets, and the Compose file, as checksums."""
    with open(ENV_FILE, "rb") as stream:
        env = stream.read()
    for value in env_values().values():
        env = env.replace(value.encode(), b"(a secret)")
    with open(f"{PROJECT}/docker-compose.prod.yml", "rb") as stream:
        compose = stream.read()
    return {"env file": hashlib.sha256(env).hexdigest(), "Compose file": hashlib.sha256(compose).hexdigest()}


def _history() -> list[str]:
    if not os.path.exists(HISTORY):
        return []
    with open(HISTORY, encoding="utf-8") as stream:
        return stream.read().splitlines()


def history() -> list[str]:
    """Each operation that the history tells of, and how it ended."""
    return [f"{entry['operation']} {entry['result']}" for entry in map(json.loads, _history())]


def halt() -> None:
    _docker("exec", EXECUTION, "sh", "-c", f"echo '{HALTED}' >{HALT}")


def unhalt() -> None:
    _docker("exec", EXECUTION, "rm", "-f", HALT)


def baseline() -> dict[str, Any]:
    """The stack as it is while all is well."""
    values = env_values()
    holders: dict[str, dict[str, list[str]]] = {rotation: {} for rotation in KEYS}
    for detail in _containers():
        if _name(detail) == DATABASE:
            continue  # its variable counts for a new volume only: the running server's password is the role's
        for rotation, key in KEYS.items():
            names = [item.split("=", 1)[0] for item in detail["Config"]["Env"] if values[key] in item]
            if names:
                holders[rotation][_name(detail)] = names
    return {
        "names": sorted(map(_name, _containers())),
        "images": {_name(detail): detail["Config"]["Image"] for detail in _containers()},
        "volumes": sorted(_docker("volume", "ls", "-q").split()),
        "networks": sorted(_docker("network", "ls", "--format", "{{.Name}}").split()),
        "tree": _tree(),
        "metrics": _metric_files(),
        "content": _content(),
        "holders": holders,
    }


def lock_is_free() -> bool:
    if not os.path.exists(LOCK):
        return True  # on a new host: nobody has ever held it
    with open(LOCK, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _get(port: int, path: str, headers: dict[str, str] | None = None) -> int:
    """The status; 0 when there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _signed(secret: str) -> int:
    """The status of brain's signed read-only request."""
    now = str(int(time.time()))
    signature = hmac.new(secret.encode(), f"{now}.".encode(), hashlib.sha256).hexdigest()
    return _get(3100, "/services", {"x-timestamp": now, "x-signature": signature})


def _lets_in(password: str) -> bool:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    address = _docker("inspect", "-f", template, DATABASE).split()[0]
    try:
        psycopg2.connect(
            host=address, user="titan", dbname="titan_brain", password=password, connect_timeout=5, passfile="/dev/null"
        ).close()
    except psycopg2.OperationalError as exc:
        if "password authentication failed" in str(exc):
            return False
        raise
    return True


def _accepted() -> int:
    """Intents that execution has accepted since the stream exists."""
    connection = http.client.HTTPConnection("127.0.0.1", 8222, timeout=5)
    try:
        connection.request("GET", "/jsz?accounts=true&streams=true")
        body = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    streams = [stream for account in body["account_details"] for stream in account["stream_detail"]]
    return sum(stream["state"]["last_seq"] for stream in streams if stream["name"] == "TITAN_EXECUTION")


def health(names: list[str]) -> list[str]:
    details = _containers()
    there = sorted(map(_name, details))
    wrong = [f"containers {there}, not {names}"] if there != names else []
    wrong += [text for text in map(_sick, details) if text]
    for name, (port, path) in ENDPOINTS.items():
        status = _get(port, path)
        if status != 200:
            wrong.append(f"{name} answers {status or 'nothing'} on {path}")
    return wrong


def _agreement(rotation: str, holders: dict[str, list[str]], others: list[str]) -> list[str]:
    """Env file, database and holders."""
    wrong = []
    values = env_values()
    value = values[KEYS[rotation]]
    strange = [other for other in others if other != value]
    for detail in _containers():
        name = _name(detail)
        with open(f"/proc/{detail['State']['Pid']}/environ", encoding="utf-8") as stream:
            process = stream.read().split("\0")
        for variable in holders.get(name, []):
            for where, entries in (("container", detail["Config"]["Env"]), ("process", process)):
                if not any(entry.startswith(f"{variable}=") and value in entry for entry in entries):
                    wrong.append(f"{name}'s {where} has another {variable} than the env file")
        if name in holders and any(other in text for other in strange for text in (str(detail), *process)):
            wrong.append(f"{name} still has the other secret")
    password = values[KEYS["rotate_db_password"]]
    if not _lets_in(password):
        wrong.append("the database refuses the env file's password")
    if _signed(values[KEYS["rotate_hmac"]]) != 200:
        wrong.append("brain refuses a request signed with the env file's secret")
    for other in strange:
        if rotation == "rotate_db_password" and _lets_in(other):
            wrong.append("the database lets a password in that the env file does not have")
        if rotation == "rotate_hmac" and _signed(other) != 401:
            wrong.append("brain does not refuse a request signed with a secret that the env file does not have")
    return wrong


def leftovers(before: dict[str, Any], others: list[str]) -> list[str]:
    wrong = []
    for what, now in (
        ("files in the project", _tree()),
        ("files of metrics", [name for name in _metric_files() if not name.endswith(".prom")]),
        ("volumes", sorted(_docker("volume", "ls", "-q").split())),
        ("networks", sorted(_docker("network", "ls", "--format", "{{.Name}}").split())),
    ):
        was = {
            "files in the project": before["tree"],
            "files of metrics": [name for name in before["metrics"] if not name.endswith(".prom")],
            "volumes": before["volumes"],
            "networks": before["networks"],
        }[what]
        extra, missing = sorted(set(now) - set(was)), sorted(set(was) - set(now))
        if extra or missing:
            wrong.append(f"{what}: {extra} too many, {missing} missing")
    wrong += [f"the {what} was changed" for what, checksum in _content().items() if before["content"][what] != checksum]
    if not lock_is_free():
        wrong.append("the lock is held")
    for line in _history():
        json.loads(line)
        if any(secret in line for secret in [*env_values().values(), *others]):
            wrong.append("a secret stands in the history")
    return wrong


def verify(before: dict[str, Any], rotation: str, others: list[str], seconds: float) -> list[str]:
    """Everything that is wrong; health gets some time, for a killed daemon's containers start by themselves."""
    deadline = time.monotonic() + seconds
    while (wrong := health(before["names"])) and time.monotonic() < deadline:
        time.sleep(0.3)
    wrong += leftovers(before, others)
    if any("containers [" in text or " is " in text for text in wrong):
        return wrong  # who does not run cannot be asked
    wrong += _agreement(rotation, before["holders"][rotation], others)
    if _docker("exec", EXECUTION, "sh", "-c", f"cat {HALT} || true").strip() != HALTED:
        wrong.append("the active halt is gone")
    accepted = _accepted()
    while _accepted() <= accepted:
        if time.monotonic() > deadline + 15:
            wrong.append("execution accepts no intent of brain's")
            break
        time.sleep(0.2)
    return wrong
