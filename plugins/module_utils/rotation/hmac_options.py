# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the HMAC rotation, with what Titan's runbook and services make their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Callable

from ..core.errors import InvalidInput
from .drain import Drain
from .guards import Guard
from .signed import SignedProbe

__all__ = ["ARMED", "CARRY_FILES", "STALE", "Counter", "HmacOptions"]

STALE = ("warn", "fail", "recreate")
_MINIMUM_BYTES = 16  # below 128 bits a key can be searched (RFC 2104, 3)

# Trading state lives in execution's own container layer: without this a replacement would clear an active halt and
# forget shadow positions. Being armed is not carried over: after a replacement the engine starts disarmed.
CARRY_FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"titan-execution": ("/app/system.halt", "/app/titan_execution.redb")}
)
ARMED = Guard(
    service="titan-execution",
    path="/app/execution.armed",
    reason="The trading engine is armed",
    hint="Disarm it first (docker exec titan-execution rm /app/execution.armed), or use force: it ends disarmed",
)
_BRAIN_PROBE = SignedProbe(service="titan-brain", port=3100, path="/services")
_DRAIN = Drain()


@dataclass(frozen=True)
class Counter:
    """A Prometheus counter of a service that is shown before and after."""

    service: str
    port: int
    metric: str
    path: str = "/metrics"


_COUNTERS = (
    Counter("titan-execution", 3002, "titan_execution_intents_accepted_total"),
    Counter("titan-execution", 3002, "titan_execution_rejection_events_total"),
)


@dataclass(frozen=True)
class HmacOptions:
    """The options of the rotation; times in seconds, ``length`` in bytes; described in the module's documentation."""

    env_file: str = "compose/.env.prod"
    key: str = "HMAC_SECRET"
    length: int = 32
    services: tuple[str, ...] = ("titan-brain", "titan-execution")
    producers: tuple[str, ...] = ("titan-brain",)
    stale: str = "recreate"
    drain: Drain = _DRAIN
    carry_files: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: CARRY_FILES)
    guards: tuple[Guard, ...] = (ARMED,)
    probes: tuple[SignedProbe, ...] = (_BRAIN_PROBE,)
    counters: tuple[Counter, ...] = _COUNTERS
    health_timeout: float = 300
    stop_timeout: float | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.length < _MINIMUM_BYTES:
            raise InvalidInput(f"length is {self.length} bytes; an HMAC secret needs at least {_MINIMUM_BYTES}")
        if self.length > 1024:
            raise InvalidInput(f"length is {self.length} bytes; more than 1024 make no secret safer")
        if self.stale not in STALE:
            raise InvalidInput(f"stale must be one of {', '.join(STALE)}, not {self.stale}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key):
            raise InvalidInput(f"key is not a variable name: {self.key}")
        for name, paths in self.carry_files.items():
            if not all(path.startswith("/") and not path.endswith("/") for path in paths):
                raise InvalidInput(f"carry_files of {name} must be absolute paths of files, not: {', '.join(paths)}")

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> HmacOptions:
        """From a module's options; those that are None keep their defaults here.

        Raises:
            InvalidInput: an option is out of its range.
        """
        given = {item.name: params[item.name] for item in fields(cls) if params.get(item.name) is not None}
        if "drain" in given:
            given["drain"] = Drain(**given["drain"])
        if "carry_files" in given:
            given["carry_files"] = {
                str(name): tuple(str(path) for path in (paths if isinstance(paths, list) else [paths]))
                for name, paths in given["carry_files"].items()
            }
        makers: dict[str, Callable[..., Any]] = {"guards": Guard, "probes": SignedProbe, "counters": Counter}
        for name, make in makers.items():
            if name in given:
                given[name] = tuple(make(**entry) for entry in given[name])
        for name in ("services", "producers"):
            if name in given:
                given[name] = tuple(given[name])
        return cls(**given)
