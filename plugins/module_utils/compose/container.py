# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container as the engine describes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.clock import parse_timestamp

__all__ = ["Container", "Port", "from_inspect"]

_PROJECT = "com.docker.compose.project"


@dataclass(frozen=True)
class Port:
    """A port of a running container, and where the host publishes it (None where it does not)."""

    container_port: int
    protocol: str
    host_ip: str | None = None
    host_port: int | None = None


@dataclass(frozen=True)
class Container:
    """A container as ``docker inspect`` shows it; times are seconds since the epoch or None for never."""

    id: str
    name: str
    labels: Mapping[str, str]
    status: str
    health: str | None
    exit_code: int
    restart_count: int
    restart_policy: str
    image: str
    image_id: str
    started_at: float | None
    finished_at: float | None
    healthy_at: float | None
    addresses: tuple[str, ...]
    error: str
    pid: int = 0
    networks: tuple[str, ...] = ()
    address_on: Mapping[str, str] = field(default_factory=dict)  # by network
    ports: tuple[Port, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def running(self) -> bool:
        """True while its process runs (Docker's states running and paused)."""
        return self.status in ("running", "paused")

    @property
    def address(self) -> str | None:
        """Where the host reaches it: its network address; 127.0.0.1 with host networking; None while it has neither."""
        if not self.running:
            return None
        return self.addresses[0] if self.addresses else ("127.0.0.1" if "host" in self.networks else None)

    @property
    def service(self) -> str | None:
        """The Compose service it belongs to, if any."""
        return self.labels.get("com.docker.compose.service")

    @property
    def project(self) -> str | None:
        """The Compose project it belongs to, if any."""
        return self.labels.get(_PROJECT)

    @property
    def completed(self) -> bool:
        """True for a one-shot container (no restart policy) that ended well."""
        return self.status == "exited" and self.exit_code == 0 and self.restart_policy in ("no", "on-failure")

    @property
    def one_off(self) -> bool:
        """True for a container of ``docker compose run``."""
        return self.labels.get("com.docker.compose.oneoff", "").lower() == "true"

    def env_list(self) -> list[str]:
        """The environment as Docker lists it, sorted."""
        return sorted(f"{name}={value}" for name, value in self.environment.items())

    def label(self, name: str) -> str | None:
        """The value of a ``com.docker.compose.*`` label, named without that prefix."""
        return self.labels.get("com.docker.compose." + name)


def from_inspect(raw: Mapping[str, Any]) -> Container:
    """Read a container from what the Engine API's ContainerInspect answers."""
    state, config = raw["State"], raw["Config"]
    health = state.get("Health") or {}
    networks: Mapping[str, Any] = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    started = parse_timestamp(state.get("StartedAt") or "")
    passed = [parse_timestamp(entry["End"]) for entry in health.get("Log") or [] if entry.get("ExitCode") == 0]
    # Docker keeps the log when it starts a container again.
    since = [moment for moment in passed if moment is not None and (started is None or moment >= started)]
    return Container(
        id=raw["Id"],
        name=raw["Name"].lstrip("/"),
        labels=dict(config.get("Labels") or {}),
        status=state["Status"],
        health=health.get("Status") if health.get("Status") != "none" else None,
        exit_code=int(state.get("ExitCode") or 0),
        restart_count=int(raw.get("RestartCount") or 0),
        restart_policy=((raw.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no",
        image=config.get("Image") or "",
        image_id=raw.get("Image") or "",
        started_at=started,
        finished_at=parse_timestamp(state.get("FinishedAt") or ""),
        healthy_at=since[0] if since else None,
        addresses=tuple(_addresses(networks.values())),
        error=state.get("Error") or "",
        pid=int(state.get("Pid") or 0),
        networks=tuple(sorted(networks)),
        address_on={name: entry["IPAddress"] for name, entry in networks.items() if entry.get("IPAddress")},
        ports=tuple(_ports((raw.get("NetworkSettings") or {}).get("Ports") or {})),
        environment=dict(_split(entry) for entry in config.get("Env") or []),
    )


def _addresses(networks: Iterable[Mapping[str, Any]]) -> list[str]:
    return [network["IPAddress"] for network in networks if network.get("IPAddress")]


def _ports(published: Mapping[str, Any]) -> list[Port]:
    """From NetworkSettings.Ports, e.g. {"3100/tcp": [{"HostIp": "127.0.0.1", "HostPort": "3100"}], "53/udp": None}."""
    found = []
    for name, bindings in sorted(published.items()):
        number, _separator, protocol = name.partition("/")
        for binding in bindings or [{}]:
            host_port = int(binding["HostPort"]) if binding.get("HostPort") else None
            found.append(Port(int(number), protocol or "tcp", binding.get("HostIp") or None, host_port))
    return found


def _split(entry: str) -> tuple[str, str]:
    name, _separator, value = entry.partition("=")
    return name, value
