# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of a restore, with what Titan's runbook makes their defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..core.errors import Mistaken
from ..health.probe import Probe
from .naming import check_database
from .options import Database, database_spec, directory_of

__all__ = ["RestoreOptions", "restore_spec"]

_MOST_JOBS = 64
BRAIN_HEALTH = Probe.from_params({"service": "titan-brain", "port": 3100, "path": "/health"})


def restore_spec() -> dict[str, Any]:
    """The argument specification of db_restore, without the common options."""
    return {
        **database_spec(),
        "backup": {"type": "str"},
        "confirm": {"type": "str"},
        "undo": {"type": "bool", "default": False},
        "kept": {"type": "str"},
        "writers": {"type": "list", "elements": "str", "default": ["titan-brain"]},
        "probes": {
            "type": "list",
            "elements": "dict",
            "options": {
                "service": {"type": "str", "required": True},
                "port": {"type": "int", "required": True},
                "path": {"type": "str", "default": "/health"},
                "status": {"type": "list", "elements": "int", "default": [200]},
            },
        },
        "keep_days": {"type": "int", "default": 7},
        "jobs": {"type": "int", "default": 1},
        "partial": {"type": "bool", "default": False},
        "space_margin": {"type": "float", "default": 1.2},
        "timeout": {"type": "float", "default": 21600.0},
        "health_timeout": {"type": "float", "default": 300.0},
        "stop_timeout": {"type": "float"},
    }


@dataclass(frozen=True)
class RestoreOptions:
    """The options of a restore; times in seconds; described in the module's documentation."""

    target: Database
    directory: str
    backup: str | None = None
    confirm: str | None = None
    undo: bool = False
    kept: str | None = None
    writers: tuple[str, ...] = ("titan-brain",)
    probes: tuple[Probe, ...] = (BRAIN_HEALTH,)
    keep_days: int = 7
    jobs: int = 1
    partial: bool = False
    space_margin: float = 1.2
    timeout: float = 21600
    health_timeout: float = 300
    stop_timeout: float | None = None

    @classmethod
    def from_params(cls, params: Mapping[str, Any], project_src: str) -> RestoreOptions:
        """Read and check a module's options.

        Raises:
            Mistaken: one cannot be, or two do not go together.
        """
        given = {
            item.name: params[item.name]
            for item in fields(cls)
            if item.name not in ("target", "directory") and params.get(item.name) is not None
        }
        given["writers"] = tuple(given.get("writers", ()))
        if "probes" in given:
            given["probes"] = tuple(Probe.from_params(entry) for entry in given["probes"])
        target = Database.from_params(params)
        options = cls(target=target, directory=directory_of(project_src, params["directory"]), **given)
        options._check()
        return options

    @property
    def asked(self) -> str:
        """What was asked for, to tell a run that is repeated from another one."""
        return f"undo {self.kept or ''}".strip() if self.undo else f"restore {self.backup}"

    def _check(self) -> None:
        check_database(self.target.database)
        database = self.target.database
        if database in ("postgres", "template0", "template1"):
            raise Mistaken(f"{database} is the server's own database, which cannot be replaced")
        if self.confirm is not None and self.confirm != database:
            raise Mistaken(
                f"confirm names {self.confirm!r}, but the database that would be replaced is {database}",
                hint=f"Give confirm={database} if that is what you mean.",
            )
        if self.undo and self.backup is not None:
            raise Mistaken(
                "undo takes the database from before back, and needs no backup",
                hint="Leave backup out, or undo; an older database than the newest that is kept is named with kept.",
            )
        if self.kept is not None and not self.undo:
            raise Mistaken("kept says which database undo takes back, and goes with it")
        if not 1 <= self.jobs <= _MOST_JOBS:
            raise Mistaken(f"jobs must be from 1 to {_MOST_JOBS}, not {self.jobs}")
        for name, low in (("keep_days", 0), ("space_margin", 0), ("timeout", 1), ("health_timeout", 1)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low):
                raise Mistaken(f"{name} must be {low} or more, not {value:g}")
        if self.keep_days > 3650:
            raise Mistaken(f"keep_days must be at most 3650, not {self.keep_days}")
