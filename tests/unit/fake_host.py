# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with a stack, small enough to be killed at every instant: real files, imitated Docker and Compose.

The containers are kept as ``docker inspect`` shows them and reached through the real ``Engine``. A container's
environment is what the env file said when the container was created, as in life. Everything that lasts (a change of a
container, a rename of a file) counts as one operation; ``Host.at`` lets something happen before a chosen one.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker.errors
import requests.exceptions

from ansible_collections.titan.ops.plugins.module_utils.compose.dotenv import parse
from ansible_collections.titan.ops.plugins.module_utils.compose.engine import Engine, EngineGone
from ansible_collections.titan.ops.plugins.module_utils.compose.project import Project, StackOptions
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock

OLD = "0" * 8 + "old" + "0" * 53
NEVER = "0001-01-01T00:00:00Z"

COMPOSE = """\
name: titan-prod
services:
  titan-brain:
    image: titan/brain:1
    env_file: compose/.env.prod
    stop_grace_period: 45s
  titan-execution:
    image: titan/execution:1
    env_file: compose/.env.prod
  titan-opsd:
    image: titan/opsd:1
    environment:
      OPS_SECRET: ${HMAC_SECRET}
  titan-nats:
    image: nats:2
"""
SERVICES: dict[str, dict[str, Any]] = {
    "titan-brain": {"image": "titan/brain:1", "env_file": True, "stop_grace_period": "45s"},
    "titan-execution": {"image": "titan/execution:1", "env_file": True},
    "titan-opsd": {"image": "titan/opsd:1", "environment": {"OPS_SECRET": "${HMAC_SECRET}"}},
    "titan-nats": {"image": "nats:2"},
}
ENV = f"# Titan\r\nPORT=3100\nHMAC_SECRET={OLD}\n\nLAST=1"


def name_of(service: str, number: int) -> str:
    """What Compose calls a service's container."""
    return service if SERVICES[service].get("scale", 1) == 1 else f"titan-prod-{service}-{number}"


class Killed(BaseException):
    """SIGKILL: nothing catches it, and nothing happens any more."""


class Host:
    """The host. What lasts is in its attributes and in ``src``; everything else ends with a process.

    Attributes:
        src: the project directory.
        containers: by id, as ``docker inspect`` shows them.
        layers: files in each container's own layer, by id.
        operations: what was done so far, in order.
        at: called before each operation with its number (from 1) and name; raises to kill or fail.
        isolated: of each ``up``, whether it was kept from dependencies.
        images: the ids that images have by now, where it is not the one that the services were made from.
        unable: services whose containers cannot start while this returns True for them.
        sick: services whose containers become unhealthy while this returns True for them.
        gone: whether the Docker daemon does not answer.
        broken: whether Compose refuses the Compose file, as after somebody's edit.
    """

    def __init__(self, src: Path) -> None:
        self.src = src
        self.clock = FakeClock()
        self.containers: dict[str, dict[str, Any]] = {}
        self.layers: dict[str, dict[str, bytes]] = {}
        self.operations: list[str] = []
        self.isolated: list[bool] = []
        self.images: dict[str, str] = {}
        self.at: Callable[[int, str], None] = lambda number, name: None
        self.unable: Callable[[str, Mapping[str, str]], bool] = lambda service, environment: False
        self.sick: Callable[[str, Mapping[str, str]], bool] = lambda service, environment: False
        self.broken = False
        self.gone = False
        self.address = "172.18.0.2"
        self._made = 0
        (src / "compose").mkdir(parents=True)
        (src / "docker-compose.prod.yml").write_text(COMPOSE, encoding="utf-8")
        self.env_file = src / "compose" / ".env.prod"
        self.env_file.write_bytes(ENV.encode())
        self.env_file.chmod(0o600)
        for name in SERVICES:
            self.start(self.create(name, self.body(name)))
        self.layer("titan-execution")["/app/system.halt"] = b"halted by the operator"
        self.clock.sleep(3600)

    # What the tests look at

    def stack(self, *, name: str | None = "titan-prod", **options: Any) -> Stack:
        """A stack as a new process would open it, with the project's name as far as labels tell it."""
        engine = InTurn(Api(self))
        cli: Any = Cli(self)
        files, env_files = (str(self.src / "docker-compose.prod.yml"),), (str(self.env_file),)
        return Stack(
            StackOptions(project_src=str(self.src), **options),
            Project(src=str(self.src), name=name, files=files, env_files=env_files),
            cli=cli,
            engine=engine,
            clock=self.clock,
            version="2.26.1",
        )

    def of(self, service: str) -> list[dict[str, Any]]:
        return [
            raw
            for raw in self.containers.values()
            if raw["Config"]["Labels"].get("com.docker.compose.service") == service
        ]

    def one(self, service: str) -> dict[str, Any]:
        [found] = self.of(service)
        return found

    def layer(self, service: str) -> dict[str, bytes]:
        return self.layers[self.one(service)["Id"]]

    def remake(self, *services: str) -> None:
        """Give services containers as Compose would make them now, as many as it would, and start them."""
        for service in services:
            for raw in self.of(service):
                self.remove(raw["Id"])
            for number in range(1, SERVICES[service].get("scale", 1) + 1):
                self.start(self.create(name_of(service, number), self.body(service, number)))

    def environment(self, service: str) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.one(service)["Config"]["Env"])

    # What Docker and Compose do

    def do(self, name: str) -> None:
        """Count an operation, and let happen what was arranged for it."""
        self.operations.append(name)
        self.at(len(self.operations), name)
        if name.split()[0] not in ("write", "rename", "delete"):
            self.answer()

    def answer(self) -> None:
        """What the daemon says to anything while it is gone."""
        if self.gone:
            raise requests.exceptions.ConnectionError("Connection aborted.")

    def restart_docker(self) -> None:
        """The daemon is back: all containers were ended, and it has started those that its policy says."""
        for made, raw in self.containers.items():
            ran = raw["State"]["Status"] == "running"
            self.stop(made)
            policy = raw["HostConfig"]["RestartPolicy"]["Name"]
            if policy == "always" or (policy == "unless-stopped" and ran):
                self.start(made)
        self.gone = False

    def config(self, *, interpolate: bool = True) -> dict[str, Any]:
        if self.broken:
            raise InvalidInput("Compose refuses the project: yaml: line 3", hint="Mend the Compose or env file.")
        values = parse(self.env_file.read_bytes()).resolve({})
        services: dict[str, Any] = {}
        for name, declared in SERVICES.items():
            body = {key: value for key, value in declared.items() if key != "env_file"}
            own = declared.get("environment", {})
            if interpolate:
                from_file = values if declared.get("env_file") else {}
                own = {key: re.sub(r"\$\{(\w+)\}", lambda m: values.get(m[1], ""), text) for key, text in own.items()}
                body["environment"] = {key: value.replace("$", "$$") for key, value in {**from_file, **own}.items()}
            elif declared.get("env_file"):
                body["env_file"] = [{"path": str(self.env_file)}]
            if declared.get("scale", 1) == 1:
                body["container_name"] = name
            services[name] = body
        return {"name": "titan-prod", "services": services}

    def body(self, service: str, number: int = 1) -> dict[str, Any]:
        """What Compose would create a container from now."""
        definition = self.config()["services"][service]
        labels = {
            "com.docker.compose.project": "titan-prod",
            "com.docker.compose.service": service,
            "com.docker.compose.container-number": str(number),
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.config-hash": hashlib.sha256(json.dumps(definition).encode()).hexdigest(),
            "com.docker.compose.image": self.image(definition["image"]),
        }
        return {
            "Image": definition["image"],
            "Labels": labels,
            "Env": [f"{key}={value.replace('$$', '$')}" for key, value in definition["environment"].items()],
            "HostConfig": {
                "NetworkMode": "titan-prod_default",
                "RestartPolicy": {"Name": definition.get("restart", "unless-stopped")},
            },
            "NetworkingConfig": {"EndpointsConfig": {"titan-prod_default": {"Aliases": [service]}}},
        }

    def image(self, name: str) -> str:
        """The id of an image."""
        return name if name.startswith("sha256:") else self.images.get(name, f"sha256:{name}")

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        if any(raw["Name"] == f"/{name}" for raw in self.containers.values()):
            raise docker.errors.APIError(f"Conflict. The container name /{name} is already in use")
        self._made += 1
        made = hashlib.sha256(str(self._made).encode()).hexdigest()
        config = {key: value for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")}
        endpoints = body["NetworkingConfig"]["EndpointsConfig"]
        self.containers[made] = {
            "Id": made,
            "Name": f"/{name}",
            "Image": self.image(body["Image"]),
            "Config": {"Hostname": made[:12], **json.loads(json.dumps(config))},
            "HostConfig": dict(body["HostConfig"]),
            "State": {"Status": "created", "StartedAt": NEVER, "FinishedAt": NEVER},
            "NetworkSettings": {"Networks": {net: {**end, "IPAddress": ""} for net, end in endpoints.items()}},
            "Mounts": [],
        }
        self.layers[made] = {}
        return made

    def start(self, made: str) -> None:
        raw = self.containers[made]
        service = raw["Config"]["Labels"]["com.docker.compose.service"]
        environment = dict(entry.split("=", 1) for entry in raw["Config"]["Env"])
        if self.unable(service, environment):
            raw["State"].update(Status="created", ExitCode=127, Error="no such command")
            raise docker.errors.APIError(f"OCI runtime create failed in {service}")
        if raw["State"]["Status"] == "running":
            return
        sick = self.sick(service, environment)
        raw["State"] = {
            "Status": "running",
            "StartedAt": self.timestamp(),
            "FinishedAt": raw["State"]["FinishedAt"],
            "Health": {
                "Status": "unhealthy" if sick else "healthy",
                "Log": [] if sick else [{"End": self.timestamp(0.25), "ExitCode": 0}],
            },
        }
        for settings in raw["NetworkSettings"]["Networks"].values():
            settings["IPAddress"] = self.address

    def stop(self, made: str) -> None:
        state = self.containers[made]["State"]
        if state["Status"] == "running":
            self.clock.sleep(0.5)
            state.update(Status="exited", FinishedAt=self.timestamp(), ExitCode=0)

    def remove(self, made: str) -> None:
        del self.containers[made], self.layers[made]

    def timestamp(self, later: float = 0) -> str:
        moment, clock = self.clock.now() + later, FakeClock(self.clock.now() + later)
        return clock.utc().replace("Z", f".{int(moment % 1 * 1e9):09d}Z")


class InTurn(Engine):
    """The real engine, one container after the other: a kill must not happen in another thread."""

    def start_together(self, containers: Sequence[str]) -> None:
        self._each([(self.start, name, {}) for name in containers])

    def stop_together(self, containers: Mapping[str, float]) -> None:
        self._each([(self.stop, name, {"timeout": grace}) for name, grace in containers.items()])

    def _each(self, calls: list[tuple[Callable[..., None], str, dict[str, float]]]) -> None:
        errors: list[OpsError] = []
        for call, name, options in calls:
            try:
                call(name, **options)
            except OpsError as exc:
                errors.append(exc)
        if errors:
            kind = EngineGone if any(isinstance(exc, EngineGone) for exc in errors) else OpsError
            raise kind("Containers refused: " + "; ".join(exc.msg for exc in errors))


class Api:
    """The methods of docker.APIClient that the engine uses."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def version(self) -> dict[str, str]:
        self._host.answer()
        return {"Version": "26.1.5"}

    def _find(self, container: str) -> dict[str, Any]:
        self._host.answer()
        for raw in self._host.containers.values():
            if container in (raw["Id"], raw["Name"].lstrip("/")):
                return raw
        raise docker.errors.NotFound(f"no such container: {container}")

    def _do(self, what: str, container: str) -> dict[str, Any]:
        raw = self._find(container)
        self._host.do(f"{what} {raw['Name'].lstrip('/')}")
        return raw

    def containers(self, *, all: bool, filters: Mapping[str, str]) -> list[dict[str, Any]]:  # noqa: A002  (the SDK's word)
        self._host.answer()
        return list(self._host.containers.values())

    def inspect_container(self, container: str) -> dict[str, Any]:
        return json.loads(json.dumps(self._find(container)))  # type: ignore[no-any-return]

    def inspect_image(self, image: str) -> dict[str, Any]:
        return {"Id": self._host.image(image), "RepoDigests": []}

    def stop(self, container: str, *, timeout: int) -> None:
        self._host.stop(self._do("stop", container)["Id"])

    def start(self, container: str) -> None:
        self._host.start(self._do("start", container)["Id"])

    def unpause(self, container: str) -> None:
        self._do("unpause", container)["State"]["Status"] = "running"

    def remove_container(self, container: str, *, force: bool, v: bool) -> None:
        assert not v, "a removed container's volumes are lost"
        self._host.remove(self._do("remove", container)["Id"])

    def create_container_from_config(self, body: Mapping[str, Any], name: str) -> dict[str, Any]:
        self._host.do(f"create {name}")
        return {"Id": self._host.create(name, body)}

    def logs(self, container: str, **_options: Any) -> bytes:
        return b"a line\n"

    def get_archive(self, container: str, path: str) -> tuple[Any, dict[str, Any]]:
        layer = self._host.layers[self._find(container)["Id"]]
        if path not in layer:
            raise docker.errors.NotFound(path)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo(path.rpartition("/")[2])
            member.size = len(layer[path])
            archive.addfile(member, io.BytesIO(layer[path]))
        return (part for part in [buffer.getvalue()]), {}

    def put_archive(self, container: str, directory: str, data: bytes) -> bool:
        layer = self._host.layers[self._do("put files into", container)["Id"]]
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member)
                assert content is not None
                layer[f"{directory.rstrip('/')}/{member.name}"] = content.read()
        return True


class Cli:
    """Compose, replacing containers in the same small steps (Compose 2.26, ``recreateContainer``)."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def config(self, *, interpolate: bool = True, project: str | None = None, all_profiles: bool = False) -> Any:
        return self._host.config(interpolate=interpolate)

    def hashes(self, project: str, *, dependencies: bool = True) -> dict[str, str]:
        return {name: self._host.body(name)["Labels"]["com.docker.compose.config-hash"] for name in SERVICES}

    def known_hashes(self, project: str) -> dict[str, set[str]]:
        return {name: {value} for name, value in self.hashes(project).items()}

    def up(
        self,
        project: str,
        services: Sequence[str] = (),
        *,
        recreate: bool = False,
        start: bool = True,
        isolated: bool = False,
        fetch: bool = True,
    ) -> None:
        assert recreate
        assert not start
        assert not fetch, "a rotation brings no other image"
        host = self._host
        if host.gone:
            raise OpsError("`docker compose up` failed: Cannot connect to the Docker daemon")
        host.config()
        host.isolated.append(isolated)
        for service in services:
            scale = SERVICES[service].get("scale", 1)
            there = [raw["Id"] for raw in host.of(service)]
            for surplus in there[scale:]:
                host.do(f"Compose removes a surplus {service}")
                host.remove(surplus)
            for number in range(1, scale + 1):
                old, name = there[number - 1] if number <= len(there) else None, name_of(service, number)
                host.do(f"Compose creates {name}")
                made = host.create(f"{old[:12]}_{name}" if old else name, host.body(service, number))
                if old:
                    host.do(f"Compose stops the old {name}")
                    host.stop(old)
                    host.do(f"Compose removes the old {name}")
                    host.remove(old)
                    host.do(f"Compose renames the new {name}")
                    host.containers[made]["Name"] = f"/{name}"
