# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation changes, and how that is written into its journal."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Switch"]


@dataclass(frozen=True)
class Switch:
    """What a rotation changes; everything that a later run needs to finish or undo it.

    Attributes:
        key: the variable.
        env_file: real path of the env file.
        old: the value before.
        new: the value after.
        old_data: the env file before.
        new_data: the env file after.
        producers: services stopped first, before the drain.
        services: services switched together (producers among them).
        stale: other holders, recreated after those have started.
        holders: the variables that carry the secret, by service.
        carry: files carried over, by service.
        health_timeout: seconds for becoming healthy.
        first: holders that are recreated before the services start, because these need them.
        context: what a later run must know beside that to finish or undo it; plain data.
    """

    key: str
    env_file: str
    old: str = field(repr=False)
    new: str = field(repr=False)
    old_data: bytes = field(repr=False)
    new_data: bytes = field(repr=False)
    producers: tuple[str, ...]
    services: tuple[str, ...]
    stale: tuple[str, ...]
    holders: Mapping[str, Sequence[str]]
    carry: Mapping[str, Sequence[str]]
    health_timeout: float
    first: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def everyone(self) -> list[str]:
        """Every service that gets the new value."""
        return [*self.first, *self.services, *self.stale]

    def to_record(self) -> dict[str, Any]:
        """For the journal."""
        return {
            **{name: getattr(self, name) for name in ("key", "env_file", "old", "new", "health_timeout")},
            **{name: list(getattr(self, name)) for name in ("producers", "services", "stale", "first")},
            "holders": {name: list(variables) for name, variables in self.holders.items()},
            "carry": {name: list(paths) for name, paths in self.carry.items()},
            "old_data": base64.b64encode(self.old_data).decode(),
            "new_data": base64.b64encode(self.new_data).decode(),
            "context": dict(self.context),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Switch:
        """From the journal."""
        return cls(
            key=record["key"],
            env_file=record["env_file"],
            old=record["old"],
            new=record["new"],
            health_timeout=record["health_timeout"],
            producers=tuple(record["producers"]),
            services=tuple(record["services"]),
            stale=tuple(record["stale"]),
            first=tuple(record.get("first", ())),
            holders=record["holders"],
            carry=record["carry"],
            old_data=base64.b64decode(record["old_data"]),
            new_data=base64.b64decode(record["new_data"]),
            context=record.get("context", {}),
        )
