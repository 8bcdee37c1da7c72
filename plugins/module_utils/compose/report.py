# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a stack is and what it should be: containers, drift, disk. Reads only; names variables, never their values."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Callable

from ..core.journal import interrupted_operations
from ..core.lock import held_by
from ..core.runner import Runner
from .container import Container
from .model import Service
from .stack import Stack

__all__ = ["DiskUsage", "environment_drift", "image_drift", "report"]

# Takes a path; returns bytes: total, used, free for users (shutil.disk_usage).
DiskUsage = Callable[[str], "tuple[int, int, int]"]

# The Docker client's configuration hands these to every container; no Compose file has to declare them (Docker manual,
# "Use a proxy server with the Docker CLI").
_PROXIES = frozenset(
    form(f"{name}_proxy") for name in ("http", "https", "ftp", "no", "all") for form in (str.lower, str.upper)
)


def report(
    stack: Stack,
    runner: Runner,
    *,
    services: Sequence[str] = (),
    disk: bool = False,
    usage: DiskUsage = shutil.disk_usage,
) -> dict[str, Any]:
    """Describe the stack.

    Args:
        stack: the stack.
        runner: runs Compose.
        services: service or container names to describe; none means all.
        disk: ask Docker how much disk it uses, too, which takes it seconds.
        usage: measures the file system of a path.

    Returns:
        The result of the module compose_info, which documents it.

    Raises:
        OpsError: an unknown service, or Docker or Compose refuse.
    """
    names = stack.model.resolve_all(services) or list(stack.model.services)
    containers = stack.containers()
    hashes = stack.cli.known_hashes(stack.name)
    seen = _Images(stack)
    described: list[dict[str, Any]] = []
    for name in names:
        service = stack.model.services[name]
        found = [item for item in containers if item.service == name]
        described.append(
            {
                "service": name,
                "container_name": service.container_name,
                "image": _declared_image(stack, service),
                "containers": [
                    {**_facts(stack, item, seen), **_drift(stack, item, service, hashes.get(name, set()), seen)}
                    for item in found
                ],
            }
        )
    strangers = [item for item in containers if item.service not in stack.model.services]
    idle = _idle_services(stack) if strangers else set()
    return {
        "project": _project(stack),
        "services": described,
        "interrupted": interrupted_operations(stack.options.state_path),
        "under_way": held_by(stack.options.lock_file),
        "missing": [item["service"] for item in described if not item["containers"]],
        "drifted": [item["service"] for item in described if any(_differs(entry) for entry in item["containers"])],
        "inactive": [_facts(stack, item, seen) for item in strangers if item.service in idle],
        "orphans": [_facts(stack, item, seen) for item in strangers if item.service not in idle],
        "disk": {
            "file_systems": _file_systems(stack, usage),
            "docker": stack.engine.disk_usage() if disk else None,
        },
    }


def environment_drift(
    actual: Mapping[str, str], declared: Mapping[str, str], image: Mapping[str, str] | None
) -> list[str]:
    """The names of variables that differ between a container and what the Compose and env files would give it now.

    Args:
        actual: the container's environment.
        declared: the service's resolved environment.
        image: what the container's image sets by itself; None when that is not known any more.

    Returns:
        Names, sorted: changed, declared but absent, and present although neither the service nor the image sets them.
    """
    changed = {name for name, value in declared.items() if actual.get(name) != value}
    others = set(actual) - set(declared) - _PROXIES
    undeclared = set() if image is None else {name for name in others if image.get(name) != actual[name]}
    return sorted(changed | undeclared)


def image_drift(container: Container, declared: str, current: str | None) -> bool:
    """Whether a new container would run another image.

    Args:
        container: as it is.
        declared: the image's name by the Compose file.
        current: the id that this name has on the host now; None when there is no such image yet.
    """
    if current is None:
        return container.image != declared
    return (container.label("image") or container.image_id) != current


class _Images:
    """What the host knows of images, each asked for once."""

    def __init__(self, stack: Stack) -> None:
        self._engine = stack.engine
        self._ids: dict[str, str | None] = {}
        self._environments: dict[str, dict[str, str] | None] = {}
        self._digests: dict[str, list[str]] = {}

    def current(self, name: str) -> str | None:
        if name not in self._ids:
            self._ids[name] = self._engine.image_id(name)
        return self._ids[name]

    def environment(self, image: str) -> dict[str, str] | None:
        if image not in self._environments:
            self._environments[image] = self._engine.image_environment(image)
        return self._environments[image]

    def digests(self, image: str) -> list[str]:
        if image not in self._digests:
            self._digests[image] = self._engine.image_digests(image)
        return self._digests[image]


def _project(stack: Stack) -> dict[str, Any]:
    return {
        "name": stack.name,
        "src": stack.project.src,
        "files": list(stack.project.files),
        "env_files": list(stack.project.env_files),
        "compose_version": stack.compose_version,
        "engine_version": stack.engine.version(),
    }


def _facts(stack: Stack, container: Container, seen: _Images) -> dict[str, Any]:
    up = container.running and container.started_at is not None
    return {
        "name": container.name,
        "id": container.id,
        "service": container.service,
        "status": container.status,
        "health": container.health,
        "trouble": stack.trouble(container),
        "restarts": container.restart_count,
        "exit_code": None if container.running else container.exit_code,
        "started_at": _moment(container.started_at),
        "finished_at": None if container.running else _moment(container.finished_at),
        "uptime_seconds": round(stack.clock.now() - (container.started_at or 0.0), 1) if up else None,
        "image": container.image,
        "image_id": container.image_id,
        "image_digests": seen.digests(container.image_id),
        "ports": [asdict(port) for port in container.ports],
    }


def _drift(stack: Stack, container: Container, service: Service, hashes: set[str], seen: _Images) -> dict[str, Any]:
    image = _declared_image(stack, service)
    recorded = container.label("config-hash")
    return {
        "config_drift": recorded not in hashes if recorded and hashes else None,
        "environment_drift": environment_drift(
            container.environment, service.environment, seen.environment(container.image_id)
        ),
        "image_drift": image_drift(container, image, seen.current(image)),
    }


def _differs(container: Mapping[str, Any]) -> bool:
    return bool(container["config_drift"] or container["environment_drift"] or container["image_drift"])


def _declared_image(stack: Stack, service: Service) -> str:
    """What Compose calls the image: its name, else the one it gives to what it builds itself."""
    return service.image or f"{stack.name}-{service.name}"


def _idle_services(stack: Stack) -> set[str]:
    """Every service that the Compose files declare under any profile: its containers are no orphans."""
    return set((stack.cli.config(project=stack.name, all_profiles=True) or {}).get("services") or {})


def _file_systems(stack: Stack, usage: DiskUsage) -> list[dict[str, Any]]:
    """Those that fill up; one whose path is not on this host (the engine is a remote one) is left out."""
    sizes = []
    for path in dict.fromkeys(("/", stack.engine.root_directory(), stack.project.src)):
        if os.path.isdir(path):
            total, _used, free = usage(path)
            sizes.append({"path": path, "total_bytes": total, "free_bytes": free})
    return sizes


def _moment(seconds: float | None) -> str | None:
    """ISO 8601 in UTC, to the second."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
