# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the database password's rotation, with what Titan's runbook and services make their defaults."""

from __future__ import annotations

import math
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..core.errors import InvalidInput
from ..database.server import Target
from ..health.probe import Probe
from .guards import Guard
from .hmac_options import ARMED, CARRY_FILES, STALE

__all__ = ["ALPHABET", "ON_SESSION_TIMEOUT", "PgOptions"]

ON_SESSION_TIMEOUT = ("undo", "terminate", "continue")
ALPHABET = string.ascii_letters + string.digits
# What no dotenv file, URL (RFC 3986, 2.3), shell or SQL text gives a meaning to, beyond a first letter. Not the tilde:
# it would be written in quotes, which some readers of env files take for part of the value.
_SAFE = ALPHABET + "._-"
_SHORTEST, _LONGEST = 16, 256
_ENOUGH_BITS = 96
_BRAIN_HEALTH = Probe.from_params({"service": "titan-brain", "port": 3100, "path": "/health"})


@dataclass(frozen=True)
class PgOptions:
    """The options of the rotation; times in seconds; described in the module's documentation."""

    env_file: str = "compose/.env.prod"
    key: str = "TITAN_DB_PASSWORD"
    password: str | None = field(default=None, repr=False)
    length: int = 40
    alphabet: str = ALPHABET
    role: str = "titan"
    database: str = "titan_brain"
    service: str = "titan-postgres"
    port: int = 5432
    host: str | None = None
    recover: bool = False
    recreate_database: bool = False
    services: tuple[str, ...] = ("titan-brain", "titan-execution")
    stale: str = "recreate"
    session_timeout: float = 30
    on_session_timeout: str = "undo"
    carry_files: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: CARRY_FILES)
    guards: tuple[Guard, ...] = (ARMED,)
    probes: tuple[Probe, ...] = (_BRAIN_HEALTH,)
    health_timeout: float = 300
    stop_timeout: float | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.stale not in STALE:
            raise InvalidInput(f"stale must be one of {', '.join(STALE)}, not {self.stale}")
        if self.on_session_timeout not in ON_SESSION_TIMEOUT:
            raise InvalidInput(
                f"on_session_timeout must be one of {', '.join(ON_SESSION_TIMEOUT)}, not {self.on_session_timeout}"
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key):
            raise InvalidInput(f"key is not a variable name: {self.key}")
        if not 1 <= self.port <= 65535:
            raise InvalidInput(f"port must be between 1 and 65535, not {self.port}")
        for name, paths in self.carry_files.items():
            if not all(path.startswith("/") and not path.endswith("/") for path in paths):
                raise InvalidInput(f"carry_files of {name} must be absolute paths of files, not: {', '.join(paths)}")
        if self.password is not None:
            _check_given(self.password)
        else:
            self._check_recipe()

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> PgOptions:
        """From a module's options; those that are None keep their defaults here.

        Raises:
            InvalidInput: an option is out of its range.
        """
        given = {item.name: params[item.name] for item in fields(cls) if params.get(item.name) is not None}
        if "carry_files" in given:
            given["carry_files"] = {
                str(name): tuple(str(path) for path in (paths if isinstance(paths, list) else [paths]))
                for name, paths in given["carry_files"].items()
            }
        if "guards" in given:
            given["guards"] = tuple(Guard(**entry) for entry in given["guards"])
        if "probes" in given:
            given["probes"] = tuple(Probe.from_params(entry) for entry in given["probes"])
        if "services" in given:
            given["services"] = tuple(given["services"])
        return cls(**given)

    @property
    def target(self) -> Target:
        """The role, and where it is."""
        return Target(self.service, self.port, self.database, self.role, self.host, self.recover)

    def new_password(self) -> str:
        """The given one, or one made now; it begins with a letter or digit, so that no shell takes it for an option."""
        if self.password is not None:
            return self.password
        first = [char for char in self.alphabet if char in ALPHABET]
        rest = [secrets.choice(self.alphabet) for _place in range(self.length - 1)]
        return secrets.choice(first) + "".join(rest)

    def _check_recipe(self) -> None:
        unsafe = "".join(sorted(set(self.alphabet) - set(_SAFE)))
        if unsafe:
            raise InvalidInput(
                f"alphabet has characters that would not survive every env file, URL, shell and SQL text: {unsafe}",
                hint="Use letters, digits and . _ - only.",
            )
        if not set(self.alphabet) & set(ALPHABET):
            raise InvalidInput("alphabet has no letter and no digit, with which a password begins")
        if not _SHORTEST <= self.length <= _LONGEST:
            raise InvalidInput(f"length is {self.length} characters; it must be between {_SHORTEST} and {_LONGEST}")
        bits = self.length * math.log2(len(set(self.alphabet)))
        if bits < _ENOUGH_BITS:
            raise InvalidInput(
                f"{self.length} characters out of {len(set(self.alphabet))} can be guessed ({bits:.0f} bits; "
                f"at least {_ENOUGH_BITS} are needed)",
                hint="Make the password longer or the alphabet larger.",
            )


def _check_given(password: str) -> None:
    """Refuse what would not survive; the message never quotes the password."""
    if len(password) < _SHORTEST:
        raise InvalidInput(f"The given password is too short: {len(password)} characters, at least {_SHORTEST} needed")
    if len(password) > _LONGEST:
        raise InvalidInput(f"The given password is too long: {len(password)} characters, at most {_LONGEST}")
    if set(password) - set(_SAFE):
        raise InvalidInput(
            "The given password has characters that would not survive every env file, URL, shell and SQL text",
            hint="Use letters, digits and . _ - only, or leave it out: then one is made.",
        )
    if password[0] not in ALPHABET:
        raise InvalidInput("The given password must begin with a letter or a digit, or a shell gives it a meaning")
