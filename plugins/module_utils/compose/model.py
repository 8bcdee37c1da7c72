# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stack as its Compose files declare it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import InvalidInput

__all__ = ["Model", "Service", "texts", "to_seconds"]

Definition = Mapping[str, Any]
_PREFIX = "titan-"


@dataclass(frozen=True)
class Service:
    """One service: resolved (secrets included, never shown) and raw (before interpolation)."""

    name: str
    container_name: str | None
    image: str | None
    environment: Mapping[str, str] = field(repr=False)
    definition: Definition = field(repr=False)
    raw: Definition = field(repr=False)

    @property
    def has_healthcheck(self) -> bool:
        """Whether the Compose file declares a check of its own (the image may bring another)."""
        check = self.definition.get("healthcheck") or {}
        return bool(check.get("test")) and not check.get("disable")

    @property
    def stop_grace(self) -> float | None:
        """Declared seconds between stop signal and kill; None where Docker's ten seconds hold."""
        return to_seconds(self.definition.get("stop_grace_period"))

    @property
    def raw_environment(self) -> dict[str, str | None]:
        """``environment:`` as the Compose file writes it: ``${VAR}`` stays, env_file's variables are absent."""
        return _pairs(self.raw.get("environment"))

    @property
    def env_files(self) -> list[str]:
        """Absolute paths of ``env_file:``, in order (a list of paths before Compose 2.24, of objects since)."""
        declared = self.raw.get("env_file") or []
        entries = [declared] if isinstance(declared, (str, Mapping)) else declared
        return [str(entry.get("path")) if isinstance(entry, Mapping) else str(entry) for entry in entries]


@dataclass(frozen=True)
class Model:
    """A Compose project."""

    name: str
    services: Mapping[str, Service]
    secrets: Mapping[str, Definition] = field(default_factory=dict, repr=False)
    volumes: Mapping[str, Definition] = field(default_factory=dict, repr=False)
    configs: Mapping[str, Definition] = field(default_factory=dict, repr=False)

    @classmethod
    def from_config(cls, config: Definition, raw: Definition) -> Model:
        """Build the model from what ``docker compose config`` prints with and without interpolation.

        Interpolated output writes every dollar sign twice, so that it can be read as a Compose file again.
        """
        config = _undouble(config)
        raw_services: Mapping[str, Definition] = raw.get("services") or {}
        services = {
            name: Service(
                name=name,
                container_name=body.get("container_name"),
                image=body.get("image"),
                environment={key: value for key, value in _pairs(body.get("environment")).items() if value is not None},
                definition=body,
                raw=raw_services.get(name) or {},
            )
            for name, body in sorted((config.get("services") or {}).items())
        }
        return cls(
            name=str(config.get("name") or ""),
            services=services,
            secrets=config.get("secrets") or {},
            volumes=config.get("volumes") or {},
            configs=config.get("configs") or {},
        )

    def resolve(self, name: str) -> str:
        """The service meant by a service or container name.

        A name that only differs by Titan's prefix will do (``titan-nats`` for ``nats`` and the other way round) where
        one service alone is meant by it: the runbook's names and those of the versions of the stack are not the same.

        Raises:
            InvalidInput: there is none, or a container name of one service is another service's name.
        """
        by_container = {service.container_name: key for key, service in self.services.items() if service.container_name}
        if name in self.services:
            other = by_container.get(name)
            if other is not None and other != name:
                raise InvalidInput(
                    f"{name} is ambiguous: it is a service and also the container name of the service {other}",
                    hint="Rename one of them in the Compose file.",
                )
            return name
        if name in by_container:
            return by_container[name]
        generated = re.fullmatch(re.escape(self.name) + r"[-_](.+)[-_]\d+", name)
        if generated and generated[1] in self.services:
            return generated[1]
        other = name[len(_PREFIX) :] if name.startswith(_PREFIX) else _PREFIX + name
        candidates = {other if other in self.services else None, by_container.get(other)} - {None}
        if len(candidates) == 1:
            return str(candidates.pop())
        raise InvalidInput(
            f"The stack has no service or container named {name}",
            hint=f"It has: {', '.join(self.services)}.",
        )

    def resolve_all(self, names: Iterable[str]) -> list[str]:
        """Several names resolved, in the order given, each service once."""
        return list(dict.fromkeys(self.resolve(name) for name in names))


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text inside a definition with its place, e.g. (``environment.DATABASE_URL``, ``postgres://...``)."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from texts(item, f"{path}[{index}]")
    elif isinstance(value, str):
        yield path, value


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|ns|m|s)")
_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def to_seconds(duration: object) -> float | None:
    """Seconds in one of Compose's durations, e.g. 1m30s (Compose specification, "Specifying durations")."""
    if isinstance(duration, (int, float)):
        return float(duration) / 1e9
    parts = _DURATION.findall(duration) if isinstance(duration, str) else []
    return sum(float(number) * _UNIT[unit] for number, unit in parts) if parts else None


def _pairs(environment: object) -> dict[str, str | None]:
    """An ``environment:`` as a dict, whether it was written as a mapping or as a list."""
    if isinstance(environment, Mapping):
        return {str(key): None if value is None else _plain(value) for key, value in environment.items()}
    pairs: dict[str, str | None] = {}
    for entry in environment if isinstance(environment, (list, tuple)) else ():
        name, separator, value = str(entry).partition("=")
        pairs[name] = _plain(value) if separator else None
    return pairs


def _undouble(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, Mapping):
        return {key: _undouble(item) for key, item in value.items()}
    return [_undouble(item) for item in value] if isinstance(value, list) else value


def _plain(value: object) -> str:
    """Compose prints booleans and numbers of an environment as text already; be sure."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
