# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Docker Engine as this collection needs it: containers read and driven through the Docker SDK for Python."""

from __future__ import annotations

import functools
import glob
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.errors import OpsError
from ..core.redact import Redactor
from .container import Container, from_inspect

try:
    import docker
    import docker.errors
    import requests.exceptions

    IMPORT_ERROR: ImportError | None = None
except ImportError as exc:  # reported by connect(), with the package's name
    IMPORT_ERROR = exc

__all__ = ["Engine", "EngineGone", "connect"]

_PROJECT = "com.docker.compose.project"


class EngineGone(OpsError):
    """The engine did not answer, or broke off: its daemon is being restarted, perhaps."""


def connect(docker_host: str) -> Engine:
    """Connect to the Docker Engine.

    Args:
        docker_host: its address, e.g. unix:///var/run/docker.sock.

    Raises:
        OpsError: the SDK is missing, or the engine does not answer.
    """
    if IMPORT_ERROR is not None:
        raise OpsError(
            f"The Python module {IMPORT_ERROR.name} is missing on this host",
            state="Nothing was changed.",
            hint="Install the package python3-docker (bootstrap.yml does).",
        )
    try:
        _knock(docker_host)
        api = docker.APIClient(base_url=docker_host, version="auto", timeout=120)
    except (OSError, docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise OpsError(
            f"The Docker Engine does not answer at {docker_host}: {_reason(exc)}",
            state="Nothing was changed.",
            hint="Start it (systemctl start docker), or name the right socket with docker_host.",
        ) from exc
    return Engine(api)


def _knock(docker_host: str) -> None:
    """The SDK leaves its socket open when nobody answers (docker 7.1, UnixHTTPConnection.connect); this does not."""
    scheme, _separator, path = docker_host.partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(10)
            knocking.connect("/" + path.lstrip("/"))


class Engine:
    """Reads and drives containers. All methods raise OpsError when the engine refuses, EngineGone when it is gone."""

    def __init__(self, api: Any) -> None:
        self._api = api

    def project_containers(self, project: str | None = None) -> list[Container]:
        """Every container of a Compose project (of any project without a name), stopped ones included."""
        label = f"{_PROJECT}={project}" if project else _PROJECT
        return self._list({"label": label})

    def all_containers(self) -> list[Container]:
        """Every container of this engine, stopped ones included."""
        return self._list({})

    def inspect(self, container: str) -> Container | None:
        """One container by name or id; None when there is none."""
        try:
            return from_inspect(self._call("inspect_container", container))
        except _NotFound:
            return None

    def inspect_raw(self, container: str) -> dict[str, Any]:
        """One container as the Engine API shows it, environment included."""
        raw: dict[str, Any] = self._call("inspect_container", container)
        return raw

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Create a container from a body of the Engine API; gives its id."""
        return str(self._call("create_container_from_config", dict(body), name)["Id"])

    def connect_network(self, network: str, container: str, endpoint: Mapping[str, Any]) -> None:
        """Connect a container to a network with the given endpoint settings."""
        self._call(
            "connect_container_to_network",
            container,
            network,
            ipv4_address=(endpoint.get("IPAMConfig") or {}).get("IPv4Address"),
            aliases=endpoint.get("Aliases"),
            links=endpoint.get("Links"),
            driver_opt=endpoint.get("DriverOpts"),
        )

    def remove(self, container: str, *, volumes: bool = False) -> None:
        """Remove a container, running or not; its volumes stay, or with ``volumes`` its anonymous ones go with it.

        Gone already is fine.
        """
        try:
            self._call("remove_container", container, force=True, v=volumes)
        except _NotFound:
            return

    def stop(self, container: str, *, timeout: float) -> None:
        """Ask a container to stop; after ``timeout`` seconds it is killed. Stopped already is fine."""
        self._call("stop", container, timeout=max(1, round(timeout)))

    def start(self, container: str) -> None:
        """Start a container that exists. Running already is fine."""
        self._call("start", container)

    def unpause(self, container: str) -> None:
        """Let a paused container go on."""
        self._call("unpause", container)

    def answers(self) -> bool:
        """Whether the engine is there."""
        try:
            self._call("version")
        except OpsError:
            return False
        return True

    def start_together(self, containers: Sequence[str]) -> None:
        """Start containers at the same moment.

        Raises:
            OpsError: at least one did not start; the message has every reason.
        """
        _together("start", {name: functools.partial(self.start, name) for name in containers})

    def stop_together(self, containers: Mapping[str, float]) -> None:
        """Stop containers at the same time, each with its own grace in seconds.

        Raises:
            OpsError: at least one did not stop; the message has every reason.
        """
        _together(
            "stop", {name: functools.partial(self.stop, name, timeout=grace) for name, grace in containers.items()}
        )

    def logs(self, container: str, *, tail: int) -> list[str]:
        """The last lines of a container's log, both streams; not yet redacted."""
        raw: bytes = self._call("logs", container, stdout=True, stderr=True, tail=tail)
        return raw.decode("utf-8", "replace").splitlines()

    def path_exists(self, container: str, path: str) -> bool:
        """Whether a path exists in a container's file system, running or not."""
        try:
            stream, _info = self._call("get_archive", container, path)
        except _NotFound:
            return False
        stream.close()
        return True

    def read_archive(self, container: str, path: str) -> bytes | None:
        """A file or directory of a container as a tar archive; None when it is not there."""
        try:
            stream, _info = self._call("get_archive", container, path)
            return b"".join(stream)
        except _NotFound:
            return None

    def write_archive(self, container: str, directory: str, archive: bytes) -> None:
        """Unpack a tar archive below a directory of a container, running or not; owners and modes are kept."""
        if not self._call("put_archive", container, directory, archive):
            raise OpsError(f"Docker did not take the files for {directory} in {container}")

    def execute(self, container: str, argv: Sequence[str], *, timeout: float | None = None) -> tuple[int, str]:
        """Run a command in a running container; gives its exit code and output (both streams, not yet redacted).

        With ``timeout`` (seconds), a command that does not end in time is killed, where that is safe, and OpsError
        raised when it has ended. Whoever cannot wait for the others calls this from a thread.
        """
        created = self._call("exec_create", container, list(argv))["Id"]
        killed: list[bool] = []
        timer = None
        if timeout is not None:
            timer = threading.Timer(timeout, lambda: killed.append(self._kill_exec(created)))
            timer.daemon = True
            timer.start()
        try:
            output: bytes = self._call("exec_start", created)
        finally:
            if timer is not None:
                timer.cancel()
        if killed:
            how = " and was killed" if killed[0] else ""
            raise OpsError(f"`{' '.join(argv)}` did not end within {timeout:g} seconds{how}")
        code = self._call("exec_inspect", created)["ExitCode"]
        return int(code if code is not None else -1), output.decode("utf-8", "replace")

    def image_id(self, image: str) -> str | None:
        """The id of a local image; None when it is not there."""
        try:
            return str(self._call("inspect_image", image)["Id"])
        except _NotFound:
            return None

    def volumes(self) -> dict[str, dict[str, str]]:
        """The labels of every volume that Compose made, by the volume's name."""
        answer = self._call("volumes", filters={"label": _PROJECT})
        return {item["Name"]: dict(item.get("Labels") or {}) for item in answer.get("Volumes") or []}

    def image_digests(self, image: str) -> list[str]:
        """The repository digests of a local image (empty for one that was never pushed or pulled)."""
        try:
            return sorted(self._call("inspect_image", image).get("RepoDigests") or [])
        except _NotFound:
            return []

    def image_environment(self, image: str) -> dict[str, str] | None:
        """The variables that a local image sets; None when the image is not there."""
        try:
            config = self._call("inspect_image", image).get("Config") or {}
        except _NotFound:
            return None
        return dict(entry.partition("=")[::2] for entry in config.get("Env") or [])

    def image_labels(self, image: str) -> dict[str, str]:
        """The labels that a local image gives to its containers; none for an image that is not there."""
        try:
            return dict((self._call("inspect_image", image).get("Config") or {}).get("Labels") or {})
        except _NotFound:
            return {}

    def version(self) -> str:
        """The engine's version."""
        return str(self._call("version")["Version"])

    def disk_usage(self) -> dict[str, int]:
        """Bytes that images, containers' layers, volumes and the build cache take (Engine API, SystemDataUsage)."""
        usage = self._call("df")
        return {
            "images_bytes": int(usage.get("LayersSize") or 0),
            "containers_bytes": sum(int(item.get("SizeRw") or 0) for item in usage.get("Containers") or []),
            "volumes_bytes": sum(
                max(0, int((item.get("UsageData") or {}).get("Size", 0))) for item in usage.get("Volumes") or []
            ),
            "build_cache_bytes": sum(int(item.get("Size") or 0) for item in usage.get("BuildCache") or []),
        }

    def root_directory(self) -> str:
        """Where the engine keeps its data, /var/lib/docker unless configured otherwise."""
        return str(self._call("info")["DockerRootDir"])

    def _kill_exec(self, created: str) -> bool:
        """End the process of an exec (the Engine API has no call for that); tells whether it was.

        One that has children is left alone: they would become those of the container's first process, and PostgreSQL,
        where it is that, takes the death of any child for a crash and throws everybody out.
        """
        try:
            detail = self._call("exec_inspect", created)
            pid = int(detail.get("Pid") or 0)
            # Only on this very machine does the number mean that process: the engine may be a remote one.
            with open(f"/proc/{pid}/cgroup", encoding="ascii", errors="replace") as stream:
                here = detail["ContainerID"] in stream.read()
            if not here or not detail.get("Running") or _has_children(pid):
                return False
            os.kill(pid, signal.SIGKILL)
        except (OpsError, OSError):
            return False  # gone already, or out of reach
        return True

    def _list(self, filters: dict[str, str]) -> list[Container]:
        found = []
        for entry in self._call("containers", all=True, filters=filters):
            container = self.inspect(entry["Id"])
            if container is not None:  # removed between the two calls
                found.append(container)
        return sorted(found, key=lambda item: item.name)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._api, method)(*args, **kwargs)
        except docker.errors.NotFound as exc:
            raise _NotFound(f"Docker: {_reason(exc)}") from exc
        except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
            # what the engine itself says comes as both
            kind = OpsError if isinstance(exc, docker.errors.DockerException) else EngineGone
            raise kind(f"The Docker Engine could not {method.replace('_', ' ')}: {_reason(exc)}") from exc


def _together(verb: str, calls: Mapping[str, Callable[[], None]]) -> None:
    """Make calls at the same moment, one thread each; the error tells every failure."""
    errors: list[str] = []
    gone: list[bool] = []
    gate = threading.Barrier(max(1, len(calls)))

    def make(name: str, call: Callable[[], None]) -> None:
        gate.wait()
        try:
            call()
        except OpsError as exc:
            errors.append(f"{name}: {exc.msg}")
            gone.append(isinstance(exc, EngineGone))

    threads = [threading.Thread(target=make, args=item, daemon=True) for item in calls.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise (EngineGone if any(gone) else OpsError)(f"Containers did not {verb}: " + "; ".join(sorted(errors)))


class _NotFound(OpsError):
    """Docker knows no such container, image or path."""


def _has_children(pid: int) -> bool:
    """Whether a process has any (proc(5), /proc/pid/task/tid/children); a kernel that does not tell counts as yes."""
    lists = glob.glob(f"/proc/{pid}/task/*/children")
    for path in lists:
        with open(path, encoding="ascii") as stream:
            if stream.read().split():
                return True
    return not lists


def _reason(exc: Exception) -> str:
    explanation = getattr(exc, "explanation", None)
    text = explanation.decode("utf-8", "replace") if isinstance(explanation, bytes) else explanation
    return Redactor()(str(text or exc).strip())
