# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Titan stack inside the Droplet: its images, its files in /opt/titan, its containers."""

from __future__ import annotations

import json
import re
import secrets
import string
import subprocess
import tarfile
import time
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from .droplet import inside
from .images import StackImage, digest, manifest
from .paths import LABEL, STACK
from .shell import SandboxError, say

PROJECT = "/opt/titan"
# The runbook's own command, run where the runbook runs it.
COMPOSE = ("docker", "compose", "-f", "docker-compose.prod.yml")
_DIRECTORIES = {"compose": 0o755, "backups": 0o755, "backups/db": 0o755, "scripts": 0o755, "scripts/ops": 0o755}
_DIRECTORIES.update({"state": 0o700, "logs": 0o755})
# What operations and the schedule leave outside of it.
_ELSEWHERE = (
    "/run/titan-ops",
    "/etc/cron.d/titan-backup*",
    "/etc/logrotate.d/titan-backup",
    "/var/log/titan-backup*",
    "/var/lib/prometheus/node-exporter/titan_*.prom",
)
# In the Droplet, out of the operator's way: which stack was laid out completely. Missing while that is being done.
_MARKER = "/var/lib/titan-sandbox/stack"
_PLACEHOLDER = re.compile(r"@(hex|token):(\d+):(\w+)@")
_RESET = "run `sandbox reset`, which makes the stack anew from its images."


def ensure(images: Sequence[StackImage]) -> None:
    """Make the stack in the Droplet what this checkout describes, running and healthy."""
    _transfer(images)
    wanted = _version(images)
    if inside("cat", _MARKER, check=False).strip() != wanted:
        pristine(wanted)
        return
    bad = unhealthy()
    if bad:
        say(f"stack: not well ({'; '.join(bad)}): starting it as the runbook does")
        try:
            _start(seconds=60)
        except SandboxError as error:
            say(f"stack: that does not help: {error.what}")
            pristine(wanted)


def reset(images: Sequence[StackImage]) -> None:
    """Put the stack back to its beginning: files, secrets, containers, data."""
    _transfer(images)
    pristine(_version(images))


def pristine(marker: str) -> None:
    """Remove every container, volume and file of the stack, lay it out again with new secrets, and start it."""
    say("stack: laying out /opt/titan with new secrets, empty volumes")
    inside("rm", "-f", _MARKER)
    clear = (
        "set -eu; docker ps -aq | xargs -r docker rm -fv >/dev/null; docker volume ls -q | xargs -r docker volume rm -f"
        " >/dev/null; docker network prune -f >/dev/null;"
        # what tests that were killed have mounted there
        f" awk '$2 ~ \"^{PROJECT}\" {{print $2}}' /proc/mounts | sort -r | xargs -r -n1 umount -l;"
        f" rm -rf {PROJECT} {' '.join(_ELSEWHERE)}; mkdir -p {PROJECT} /var/lib/titan-sandbox"
    )
    inside("sh", "-c", clear, what="removing the old stack")
    inside("tar", "-x", "-C", PROJECT, stdin=_layout(), what="laying out /opt/titan")
    _start()
    inside("tee", _MARKER, stdin=f"{marker}\n".encode())


def unhealthy() -> list[str]:
    """Every service of the stack that does not run or is not healthy (yet), with its state."""
    model = inside(*COMPOSE, "config", "--format", "json", cwd=PROJECT, check=False)
    if not model:
        return ["no valid Compose file in /opt/titan"]
    states = {container["Service"]: _state(container) for container in _containers()}
    bad = []
    for service, declared in sorted(json.loads(model)["services"].items()):
        # A container that has a health check is for an instant without any health after each (re)start.
        well = "running, healthy" if declared.get("healthcheck") else "running"
        state = states.get(service, "missing")
        if state != well:
            bad.append(f"{service}: {state}")
    return bad


def table() -> list[str]:
    """One line per container of the stack, for people."""
    return sorted(f"{c['Name']:<18} {_state(c):<20} {c['Image']}" for c in _containers())


def complete() -> bool:
    return bool(inside("cat", _MARKER, check=False))


def _version(images: Sequence[StackImage]) -> str:
    """Which stack this checkout describes: its images and files."""
    return digest([image.inputs for image in images] + [f"{entry} {text}" for entry, text, _ in _sources()])


def _containers() -> list[dict[str, Any]]:
    """Compose prints one JSON object per line."""
    listed = inside(*COMPOSE, "ps", "--all", "--format", "json", cwd=PROJECT, check=False)
    return [json.loads(line) for line in listed.splitlines() if line.startswith("{")]


def _state(container: dict[str, Any]) -> str:
    return ", ".join(part for part in (container["State"], container["Health"]) if part)


def _transfer(images: Sequence[StackImage]) -> None:
    """Copy the images that the Droplet's engine lacks, all in one stream so that shared layers travel once."""
    template = f'{{{{range .RepoTags}}}}{{{{.}}}} {{{{end}}}}{{{{index .Config.Labels "{LABEL}"}}}}'
    tags = [tag for image in images for tag in image.tags]
    have: set[tuple[str, str]] = set()
    for line in inside("sh", "-c", 'docker image inspect -f "$0" "$@"; :', template, *tags).splitlines():
        *names, inputs = line.split() or [""]  # it prints an empty line when there is none at all
        have.update((name, inputs) for name in names)
    missing = [tag for image in images for tag in image.tags if (tag, image.inputs) not in have]
    if not missing:
        return
    say(f"stack: copying {len(missing)} images into the Droplet")
    save = subprocess.Popen(["docker", "save", *missing], stdout=subprocess.PIPE)
    try:
        inside("docker", "load", "--quiet", stdin=save.stdout, what="loading the stack's images into the Droplet")
    finally:
        if save.stdout:
            save.stdout.close()
        save.wait()


def _start(*, seconds: float = 120) -> None:
    say("stack: docker compose -f docker-compose.prod.yml up -d")
    deadline = time.monotonic() + seconds
    inside(*COMPOSE, "up", "-d", cwd=PROJECT, what="starting the stack")
    reported = bad = unhealthy()
    while bad:
        if time.monotonic() > deadline:
            names = [line.split(":")[0] for line in bad]
            raise SandboxError(
                f"the stack is not healthy after {seconds:.0f} s: {'; '.join(bad)}.",
                state="the Droplet runs; the stack was started and left as it is.",
                do=f"look into it (`sandbox ssh`); or {_RESET}",
                log=inside(*COMPOSE, "logs", "--tail=15", *names, cwd=PROJECT, check=False),
            )
        if len(bad) < len(reported):
            say(f"stack: waiting for {', '.join(line.split(':')[0] for line in bad)}")
            reported = bad
        time.sleep(0.5)
        bad = unhealthy()
    say("stack: every service is healthy")


def _sources() -> list[tuple[dict[str, Any], str, int]]:
    """The stack's files as its manifest lists them: entry, text, mode."""
    return [
        (entry, (STACK / entry["src"]).read_text(encoding="utf-8"), int(entry["mode"], 8))
        for entry in manifest()["files"]
    ]


def _layout() -> bytes:
    """/opt/titan as a tar archive: the runbook's directories, the stack's files, secrets drawn for this Droplet."""
    values: dict[str, str] = {}
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name: str, mode: int, **fields: Any) -> tarfile.TarInfo:
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = mode, int(time.time())
            for field, value in fields.items():
                setattr(member, field, value)
            return member

        for directory, mode in _DIRECTORIES.items():
            archive.addfile(add(directory, mode, type=tarfile.DIRTYPE))
        for entry, text, mode in _sources():
            content = (render(text, values) if entry.get("render") else text).encode()
            archive.addfile(add(entry["dest"], mode, size=len(content)), BytesIO(content))
        # Compose reads .env by itself, so the runbook's commands need no --env-file.
        archive.addfile(add(".env", 0o777, type=tarfile.SYMTYPE, linkname="compose/.env.prod"))
    return buffer.getvalue()


def render(text: str, values: dict[str, str]) -> str:
    """Replace `@hex:BYTES:NAME@` and `@token:LENGTH:NAME@` by random values, one per NAME (kept in ``values``)."""

    def value(match: re.Match[str]) -> str:
        kind, length, name = match.group(1), int(match.group(2)), match.group(3)
        if name not in values:
            values[name] = secrets.token_hex(length) if kind == "hex" else _token(length)
        return values[name]

    return _PLACEHOLDER.sub(value, text)


def _token(length: int) -> str:
    letters = string.ascii_letters
    return secrets.choice(letters) + "".join(secrets.choice(letters + string.digits) for _ in range(length - 1))
