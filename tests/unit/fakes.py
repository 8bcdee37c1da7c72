# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-ins for what the engine acts through: a clock, a Docker Engine, Compose; and a real Stack over them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.titan.ops.plugins.module_utils.compose.container import Container
from ansible_collections.titan.ops.plugins.module_utils.compose.project import Project, StackOptions
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.runner import Completed, Runner

# 2026-02-06T14:03:12Z
NOW = 1770386592.0


class FakeClock(Clock):
    """A clock that moves only when somebody sleeps.

    Args:
        start: seconds since the epoch.

    Attributes:
        sleeps: every pause so far, in seconds.
        on_sleep: called after each pause; the place for something to happen meanwhile.
    """

    def __init__(self, start: float = NOW) -> None:
        self._now = start
        self.sleeps: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        self.sleeps.append(seconds)
        self.on_sleep()


def container(service: str | None = None, *, project: str = "titan-prod", **changes: Any) -> Container:
    """A running container, well since an hour before ``NOW``; ``changes`` are fields of Container.

    Args:
        service: the Compose service it belongs to; it is also its name unless ``changes`` say otherwise.
        project: the Compose project it belongs to.
        changes: what differs; ``labels`` are added to those of Compose (``com.docker.compose.`` is put before a name
            without a dot).
    """
    labels: dict[str, str] = {}
    if service is not None:
        labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
    for name, value in changes.pop("labels", {}).items():
        labels[name if "." in name else f"com.docker.compose.{name}"] = value
    name = changes.get("name") or service or "stranger"
    plain = Container(
        id=hashlib.sha256(name.encode()).hexdigest(),
        name=name,
        labels=labels,
        status="running",
        health=None,
        exit_code=0,
        restart_count=0,
        restart_policy="unless-stopped",
        image="titan/app:1",
        image_id="sha256:1",
        started_at=NOW - 3600,
        finished_at=None,
        healthy_at=None,
        addresses=("172.18.0.2",),
        error="",
        pid=4242,
        networks=("titan-prod_default",),
    )
    return replace(plain, **changes)


class FakeEngine:
    """Docker with the containers that it is given. Reading works as in Engine; every request to change is recorded.

    Attributes:
        containers: all there are; replace entries (``put``) to let something happen.
        images: id, environment and digests by image name; an image is found by its id as well.
        volume_labels: the labels of each volume that Compose made.
        commands: what a command in a container answers: its arguments -> (exit code, output).
        log: the log lines of each container, by its name.
        failure: when set, every call raises it, as if the engine were gone.
        calls: (method, arguments...) of every request to change something or run a command.
    """

    def __init__(self, containers: Sequence[Container] = ()) -> None:
        self.containers = list(containers)
        self.images: dict[str, dict[str, Any]] = {}
        self.volume_labels: dict[str, dict[str, str]] = {}
        self.commands: dict[tuple[str, ...], tuple[int, str]] = {}
        self.log: dict[str, list[str]] = {}
        self.failure: OpsError | None = None
        self.calls: list[tuple[Any, ...]] = []
        self._lock = threading.Lock()

    def put(self, changed: Container) -> None:
        """Add a container, or replace the one of the same name."""
        self.containers = [item for item in self.containers if item.name != changed.name] + [changed]

    def change(self, name: str, **changes: Any) -> None:
        """Let fields of a container change."""
        self.put(replace(self._find(name), **changes))

    # What Engine has

    def project_containers(self, project: str | None = None) -> list[Container]:
        self._answer()
        found = [item for item in self.containers if item.project is not None and project in (None, item.project)]
        return sorted(found, key=lambda item: item.name)

    def all_containers(self) -> list[Container]:
        self._answer()
        return sorted(self.containers, key=lambda item: item.name)

    def inspect(self, container: str) -> Container | None:
        self._answer()
        return next((item for item in self.containers if container in (item.name, item.id)), None)

    def logs(self, container: str, *, tail: int) -> list[str]:
        self._answer()
        return self.log.get(self._find(container).name, [])[-tail:]

    def execute(self, container: str, argv: Sequence[str], *, timeout: float | None = None) -> tuple[int, str]:
        self._answer("execute", self._find(container).name, tuple(argv))
        return self.commands[tuple(argv)]

    def stop(self, container: str, *, timeout: float) -> None:
        self._answer("stop", self._find(container).name, timeout)
        self.change(container, status="exited", exit_code=0)

    def start(self, container: str) -> None:
        self._answer("start", self._find(container).name)
        self.change(container, status="running")

    def volumes(self) -> dict[str, dict[str, str]]:
        self._answer()
        return self.volume_labels

    def image_id(self, image: str) -> str | None:
        self._answer()
        found = self._image(image)
        return str(found["id"]) if found else None

    def image_environment(self, image: str) -> dict[str, str] | None:
        self._answer()
        found = self._image(image)
        return dict(found.get("environment", {})) if found else None

    def image_digests(self, image: str) -> list[str]:
        self._answer()
        return list((self._image(image) or {}).get("digests", []))

    def version(self) -> str:
        self._answer()
        return "26.1.5"

    def root_directory(self) -> str:
        self._answer()
        return "/var/lib/docker"

    def disk_usage(self) -> dict[str, int]:
        self._answer("disk_usage")
        return {"images_bytes": 4, "containers_bytes": 3, "volumes_bytes": 2, "build_cache_bytes": 1}

    def _answer(self, *call: Any) -> None:
        if self.failure is not None:
            raise self.failure
        if call:
            with self._lock:
                self.calls.append(call)

    def _find(self, container: str) -> Container:
        for item in self.containers:
            if container in (item.name, item.id):
                return item
        raise OpsError(f"Docker: no such container: {container}")

    def _image(self, image: str) -> dict[str, Any] | None:
        return self.images.get(image) or next((item for item in self.images.values() if item["id"] == image), None)


class FakeCli:
    """Compose for a project that is given as what ``docker compose config`` would print.

    Attributes:
        services: the active services' definitions.
        idle: those of profiles that are not active.
        calls: (method, arguments...) of every request to change something.
    """

    def __init__(self, services: Mapping[str, Any], *, idle: Mapping[str, Any] | None = None) -> None:
        self.services = dict(services)
        self.idle = dict(idle or {})
        self.calls: list[tuple[Any, ...]] = []

    def check_version(self) -> str:
        return "2.26.1"

    def config(self, *, interpolate: bool = True, project: str | None = None, all_profiles: bool = False) -> Any:
        shown = {**self.services, **(self.idle if all_profiles else {})}
        return {"name": project or "titan-prod", "services": json.loads(json.dumps(shown))}

    def hashes(self, project: str, *, dependencies: bool = True) -> dict[str, str]:
        left_out = () if dependencies else ("depends_on",)
        return {
            name: _hash({key: value for key, value in service.items() if key not in left_out})
            for name, service in self.services.items()
        }

    def known_hashes(self, project: str) -> dict[str, set[str]]:
        full, bare = self.hashes(project), self.hashes(project, dependencies=False)
        return {name: {full[name], bare[name]} for name in full}

    def hash(self, service: str) -> str:
        """The configuration hash of a service as it is defined now."""
        return _hash(self.services[service])

    def up(self, project: str, services: Sequence[str] = (), **options: Any) -> None:
        self.calls.append(("up", tuple(services), options))

    def stop(self, project: str, services: Sequence[str] = (), **options: Any) -> None:
        self.calls.append(("stop", tuple(services), options))

    def restart(self, project: str, services: Sequence[str] = (), **options: Any) -> None:
        self.calls.append(("restart", tuple(services), options))


class FakeRunner(Runner):
    """Runs nothing. Answers ``config --hash`` for a project on standard input as FakeCli does, all else with nothing.

    Attributes:
        ran: (arguments, standard input) of every command.
    """

    def __init__(self) -> None:
        self.ran: list[tuple[tuple[str, ...], bytes | None]] = []

    def run(self, argv: Sequence[str], *, data: bytes | None = None, **_options: Any) -> Completed:
        self.ran.append((tuple(argv), data))
        said = ""
        if "--hash" in argv and data is not None:
            said = "".join(f"{name} {_hash(body)}\n" for name, body in json.loads(data)["services"].items())
        return Completed(tuple(argv), 0, said.encode(), b"")


def _hash(definition: Any) -> str:
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def stack(
    services: Mapping[str, Any],
    containers: Sequence[Container] = (),
    *,
    idle: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    src: str = "/opt/titan",
) -> Stack:
    """A Stack over fakes. Its parts are there as ``stack.engine`` (FakeEngine) and ``stack.cli`` (FakeCli).

    Args:
        services: definitions as ``docker compose config`` prints them; the environment as a mapping.
        containers: those that exist.
        idle: services of profiles that are not active.
        clock: a FakeClock by default.
        src: the project directory; nothing looks into it.
    """
    cli: Any = FakeCli(services, idle=idle)
    engine: Any = FakeEngine(containers)
    project = Project(src=src, name="titan-prod", files=(f"{src}/docker-compose.prod.yml",), env_files=(f"{src}/.env",))
    made = Stack(
        StackOptions(project_src=src), project, cli=cli, engine=engine, clock=clock or FakeClock(), version="2.26.1"
    )
    made.load_model()
    return made
