# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of backup_db.sh: as it reads them, and checked before schedule_backups.yml writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from ..compose.project import StackOptions
from ..core.errors import InvalidInput
from ..core.files import read_regular
from ..core.redact import Redactor
from .offsite_options import OffsiteOptions, action_spec
from .options import BackupOptions, DrillOptions, backup_spec, drill_spec

__all__ = ["Settings", "typed"]

_STACK = ("project_src", "project_name", "state_dir", "lock_path", "docker_host")
_AGAIN = "Run schedule_backups.yml again."


def _yes(value: Any) -> bool:
    return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]


# Templates of older Ansible versions give every value as text, and nothing as an empty one.
_KINDS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "bool": (_yes, "true or false"),
}


def typed(spec: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of an argument specification, as the settings or its default say.

    Raises:
        InvalidInput: one is of another kind, or none of its choices.
    """
    return {name: _value(name, item, given.get(name)) for name, item in spec.items()}


def _value(name: str, item: Mapping[str, Any], given: Any) -> Any:
    value = item.get("default") if given in (None, "") else given
    if value is None:
        return None
    if item["type"] in _KINDS:
        convert, what = _KINDS[item["type"]]
        try:
            value = convert(value)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise InvalidInput(f"{name} must be {what}, not {value!r}") from None
    if "choices" in item and value not in item["choices"]:
        raise InvalidInput(f"{name} must be one of {', '.join(item['choices'])}, not {value!r}")
    return value


# Where the backups and the drill differ, the drill has a name of its own.
_DRILL_JOBS = "restore_jobs"


@dataclass(frozen=True)
class Settings:
    """What schedule_backups.yml has written.

    Attributes:
        given: the settings by name.
        stack: where the stack is.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    stack: StackOptions = field(default_factory=StackOptions)

    @classmethod
    def read(cls, path: str) -> Settings:
        """Read them from their file.

        Raises:
            InvalidInput: that cannot be read.
        """
        try:
            given = json.loads(read_regular(path, what="settings file").data)
        except ValueError as exc:
            raise InvalidInput(f"The settings {path} are not JSON", hint=_AGAIN) from exc
        if not isinstance(given, dict):
            raise InvalidInput(f"The settings {path} are no JSON object", hint=_AGAIN)
        return cls.of(given)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Take them as they are; where the stack is must be said well.

        Raises:
            InvalidInput: the time to wait for the lock is no number.
        """
        there = {name: value for name, value in given.items() if value not in (None, "")}
        patience = _value("lock_timeout", {"type": "float", "default": 60.0}, there.get("lock_timeout"))
        stack = {name: there[name] for name in _STACK if name in there}
        return cls(there, StackOptions(**stack, lock_timeout=patience))

    def backup(self, label: str | None = None) -> BackupOptions:
        """The options of a backup.

        Raises:
            InvalidInput: one cannot be, or two do not go together.
        """
        params = {**typed(backup_spec(), self.given), "label": label}
        return BackupOptions.from_params(params, self.stack.project_src)

    def drill(self) -> DrillOptions:
        """The options of a drill.

        Raises:
            InvalidInput: one cannot be.
        """
        spec = drill_spec()
        spec[_DRILL_JOBS] = spec.pop("jobs")
        return DrillOptions.from_params(typed(spec, self.given), self.stack.project_src, jobs=_DRILL_JOBS)

    @property
    def offsite(self) -> Mapping[str, Any]:
        """The settings of the off-site repository; empty where there is none."""
        found = self.given.get("offsite") or {}
        return found if found.get("repository") else {}

    def check(self) -> None:
        """Find out now what would fail every night.

        Raises:
            InvalidInput: one cannot be, two do not go together, the backups would have no directory, or a file with a
                secret of the off-site repository is missing.
        """
        place = self.backup().directory
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            raise InvalidInput(f"{place} is not a directory", hint="Name another with backup_directory.")
        self.drill()
        if self.offsite:
            OffsiteOptions.from_params(typed(action_spec(), self.offsite), self.stack.project_src, Redactor())
