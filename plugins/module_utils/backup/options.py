# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the backups, with what Titan's runbook makes their defaults."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..compose.project import base_of
from ..core.errors import InvalidInput
from .codec import LEVELS
from .naming import COMPRESSIONS, FORMATS, check_database, check_label
from .retention import Policy

__all__ = [
    "VIA",
    "BackupOptions",
    "Database",
    "DrillOptions",
    "backup_spec",
    "database_spec",
    "directory_of",
    "drill_spec",
]

VIA = ("auto", "sidecar", "exec")
_MOST_THREADS = 64


def directory_of(project_src: str, directory: str) -> str:
    """Where the backups are: an absolute path, or one below the directory that outlives a release."""
    return os.path.join(base_of(project_src), directory).rstrip("/")


@dataclass(frozen=True)
class Database:
    """Which database, and how it lets us in.

    Attributes:
        service: the server's Compose service or container name.
        database: the database.
        role: as whom to log in.
        port: the server's port in its container.
        host: where the host reaches the server; None for the container's address or its published port.
        env_file: the file with the password, absolute or relative to the project directory.
        key: the variable of the password in it.
    """

    service: str = "titan-postgres"
    database: str = "titan_brain"
    role: str = "titan"
    port: int = 5432
    host: str | None = None
    env_file: str = "compose/.env.prod"
    key: str = "TITAN_DB_PASSWORD"

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Database:
        """Those of a module's options that say so."""
        return cls(**{item.name: params[item.name] for item in fields(cls)})


def database_spec() -> dict[str, Any]:
    """The argument specification of ``Database`` (documentation fragment titan.ops.backup)."""
    return {
        "service": {"type": "str", "default": "titan-postgres"},
        "database": {"type": "str", "default": "titan_brain"},
        "role": {"type": "str", "default": "titan"},
        "port": {"type": "int", "default": 5432},
        "host": {"type": "str"},
        "env_file": {"type": "path", "default": "compose/.env.prod"},
        "key": {"type": "str", "default": "TITAN_DB_PASSWORD", "no_log": False},
        "directory": {"type": "path", "default": "backups/db"},
    }


def drill_spec() -> dict[str, Any]:
    """The argument specification of a drill: db_verify's, but for which backup."""
    return {
        **database_spec(),
        "jobs": {"type": "int", "default": 1},
        "space_margin": {"type": "float", "default": 1.2},
        "timeout": {"type": "float", "default": 21600.0},
    }


def backup_spec() -> dict[str, Any]:
    """The argument specification of db_backup, without the common options."""
    return {
        **drill_spec(),
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "name": {"type": "str"},
        "label": {"type": "str"},
        "format": {"type": "str", "choices": list(FORMATS), "default": "plain"},
        "compression": {"type": "str", "choices": list(COMPRESSIONS), "default": "none"},
        "level": {"type": "int"},
        "threads": {"type": "int", "default": 1},
        "via": {"type": "str", "choices": list(VIA), "default": "auto"},
        "keep_daily": {"type": "int", "default": 7},
        "keep_weekly": {"type": "int", "default": 4},
        "keep_monthly": {"type": "int", "default": 12},
        "lock_wait_timeout": {"type": "float", "default": 60.0},
    }


@dataclass(frozen=True)
class BackupOptions:
    """The options of a backup; times in seconds; described in the module's documentation."""

    target: Database
    directory: str
    label: str | None = None
    format: str = "plain"
    compression: str = "none"
    level: int | None = None
    threads: int = 1
    jobs: int = 1
    via: str = "auto"
    keep: Policy = field(default_factory=Policy)
    space_margin: float = 1.2
    timeout: float = 21600
    lock_wait_timeout: float = 60

    @classmethod
    def from_params(cls, params: Mapping[str, Any], project_src: str) -> BackupOptions:
        """Read and check a module's options.

        Raises:
            InvalidInput: one cannot be, or two do not go together.
        """
        target = Database.from_params(params)
        plain = ("label", "format", "compression", "level", "threads", "jobs", "via")
        options = cls(
            target=target,
            directory=directory_of(project_src, params["directory"]),
            keep=Policy(params["keep_daily"], params["keep_weekly"], params["keep_monthly"]),
            space_margin=params["space_margin"],
            timeout=params["timeout"],
            lock_wait_timeout=params["lock_wait_timeout"],
            **{name: params[name] for name in plain},
        )
        options._check()
        return options

    def _check(self) -> None:
        check_database(self.target.database)
        if self.label is not None:
            check_label(self.label)
        for name, value in (("keep_daily", self.keep.daily), ("keep_weekly", self.keep.weekly)):
            _at_least(name, value, 0)
        _at_least("keep_monthly", self.keep.monthly, 0)
        _at_least("space_margin", self.space_margin, 0)
        _at_least("timeout", self.timeout, 1)
        _at_least("lock_wait_timeout", self.lock_wait_timeout, 1)
        _some("threads", self.threads)
        _some("jobs", self.jobs)
        if self.level is not None:
            if self.compression == "none":
                raise InvalidInput("level says how much to compress, but compression is none")
            low, high, _default = LEVELS[self.compression]
            if not low <= self.level <= high:
                raise InvalidInput(f"level must be from {low} to {high} for {self.compression}, not {self.level}")
        if self.threads > 1 and (self.format != "plain" or self.compression == "none"):
            raise InvalidInput("threads compress a plain dump", hint="Use jobs with format: directory.")
        if self.jobs > 1 and self.format != "directory":
            raise InvalidInput("jobs dump beside one another into a directory", hint="Say format: directory.")
        if self.via == "exec" and self.format == "directory":
            raise InvalidInput("A directory cannot be dumped through docker exec", hint="Leave via at auto.")


@dataclass(frozen=True)
class DrillOptions:
    """The options of a drill; times in seconds; described in the documentation of db_verify."""

    target: Database
    directory: str
    jobs: int = 1
    space_margin: float = 1.2
    timeout: float = 21600

    @classmethod
    def from_params(cls, params: Mapping[str, Any], project_src: str, *, jobs: str = "jobs") -> DrillOptions:
        """Read and check them; ``jobs`` is what that option is called.

        Raises:
            InvalidInput: one cannot be.
        """
        _some(jobs, params[jobs])
        _at_least("space_margin", params["space_margin"], 0)
        _at_least("timeout", params["timeout"], 1)
        return cls(
            target=Database.from_params(params),
            directory=directory_of(project_src, params["directory"]),
            jobs=params[jobs],
            space_margin=params["space_margin"],
            timeout=params["timeout"],
        )


def _some(name: str, value: int) -> None:
    if not 1 <= value <= _MOST_THREADS:
        raise InvalidInput(f"{name} must be from 1 to {_MOST_THREADS}, not {value}")


def _at_least(name: str, value: float, low: float) -> None:
    if not (math.isfinite(value) and value >= low):
        raise InvalidInput(f"{name} must be {low:g} or more, not {value:g}")
