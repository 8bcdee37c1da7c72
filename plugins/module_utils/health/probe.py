# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A health probe as it is declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..core.errors import InvalidInput

__all__ = ["KINDS", "WAYS", "Probe", "probe_spec"]

KINDS = ("http", "tcp", "command", "container")
WAYS = ("host", "address", "inside")


@dataclass(frozen=True)
class Probe:
    """One question, and the answers to it that count as well.

    Attributes:
        name: what the operator calls it; made from the rest by default.
        kind: http, tcp, command or container.
        service: Compose service or container name; None means the host itself.
        via: for http and tcp, from where: host, address (the container's, asked from the host) or inside.
        port: for http and tcp.
        path: for http.
        status: for http, the codes that count as well.
        headers: for http; their values are masked in every output.
        json: for http, dotted path of a field -> the value, or a list of values, that count as well.
        argv: for command, run in the service's container; exit code 0 counts as well.
        timeout: seconds for one try.
    """

    name: str | None = None
    kind: str = "http"
    service: str | None = None
    via: str | None = None
    port: int | None = None
    path: str = "/"
    status: tuple[int, ...] = (200,)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Mapping[str, Any] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    timeout: float = 5

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Probe:
        """From a module's suboptions; those that are None or absent get their defaults here.

        Raises:
            InvalidInput: they do not make a probe.
        """
        given: dict[str, Any] = {
            item.name: params[item.name] for item in fields(cls) if params.get(item.name) is not None
        }
        for name in ("status", "argv"):
            if name in given:
                given[name] = tuple(given[name])
        if "headers" in given:
            given["headers"] = {str(name): str(value) for name, value in given["headers"].items()}
        probe = cls(**given)
        nonsense = probe._nonsense()
        if nonsense:
            named = probe.name or f"of {probe.service or 'the host'}"
            raise InvalidInput(f"The probe {named} cannot be asked: {nonsense}")
        return replace(probe, name=probe.name or probe._title(), via=probe._way())

    @property
    def _networked(self) -> bool:
        return self.kind in ("http", "tcp")

    def _way(self) -> str | None:
        if not self._networked:
            return None
        return self.via or ("address" if self.service else "host")

    def _title(self) -> str:
        place = self.service or "host"
        if self.kind == "command":
            return f"{place}: {' '.join(self.argv)}"
        if self.kind == "container":
            return place
        return f"{place}:{self.port}" + (self.path if self.kind == "http" else "")

    def _nonsense(self) -> str | None:
        if self.kind not in KINDS:
            return f"its kind must be one of {', '.join(KINDS)}, not {self.kind}"
        if self.via not in (None, *WAYS):
            return f"its via must be one of {', '.join(WAYS)}, not {self.via}"
        if self._networked and not 1 <= (self.port or 0) <= 65535:
            return f"{self.kind} needs a port between 1 and 65535"
        if not self.service and not self._networked:
            return f"{self.kind} needs the service whose container is meant"
        if not self.service and self.via in ("address", "inside"):
            return f"via {self.via} needs the service whose container is meant"
        if self.kind == "command" and not self.argv:
            return "command needs argv, the command and its arguments"
        if not self.path.startswith("/"):
            return f"its path must begin with a slash: {self.path}"
        if self.timeout <= 0:
            return "its timeout must be more than 0 seconds"
        return None


def probe_spec() -> dict[str, dict[str, Any]]:
    """The suboptions of the option ``probes`` of the module health_check, as plain data."""
    return {
        "name": {"type": "str"},
        "kind": {"type": "str", "choices": list(KINDS), "default": "http"},
        "service": {"type": "str"},
        "via": {"type": "str", "choices": list(WAYS)},
        "port": {"type": "int"},
        "path": {"type": "str", "default": "/"},
        "status": {"type": "list", "elements": "int", "default": [200]},
        # An Authorization header must not end up in a log; the rest of the headers is no loss.
        "headers": {"type": "dict", "default": {}, "no_log": True},
        "json": {"type": "dict", "default": {}},
        "argv": {"type": "list", "elements": "str", "default": []},
        "timeout": {"type": "float", "default": 5.0},
    }
