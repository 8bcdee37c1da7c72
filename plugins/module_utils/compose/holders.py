# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds a secret: found by value in everything that Compose hands to a service, never assumed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from .container import Container
from .dotenv import parse
from .model import Model, Service, texts

__all__ = ["Holder", "Literal", "carries", "env_carries", "find_holders", "find_literals", "find_outsiders"]

# What a Compose file can read from the env file; anything else in it is fixed text.
_REFERENCE = re.compile(r"(?<!\$)\$(?:\{|[A-Za-z_])")


@dataclass(frozen=True)
class Holder:
    """A service that gets the value, and every place where it gets it (``environment.OPS_SECRET``, ``command[2]``)."""

    service: str
    places: tuple[str, ...]

    @property
    def variables(self) -> list[str]:
        """The names of the environment variables among the places."""
        return [place[len("environment.") :] for place in self.places if place.startswith("environment.")]


@dataclass(frozen=True)
class Literal:
    """A copy of a secret that changing the env file does not reach."""

    service: str
    variable: str
    path: str
    line: int | None

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}" if self.line else self.path
        return f"service {self.service}, variable {self.variable} ({where})"


def carries(text: str, value: str) -> bool:
    """Whether a text contains a value as it is or percent-encoded, as inside a URL (RFC 3986, 2.1).

    A value of less than eight characters is looked for as the whole text only: it would be found everywhere.
    """
    if len(value) < 8:
        return bool(value) and text == value
    return value in text or value in unquote(text)


def env_carries(environment: Mapping[str, str], value: str) -> list[str]:
    """The variables of an environment that contain the value."""
    return sorted(name for name, text in environment.items() if carries(text, value))


def find_holders(model: Model, key: str, value: str) -> list[Holder]:
    """Every service whose resolved definition contains the value, or that has a variable named ``key``."""
    found = []
    for service in model.services.values():
        places = [place for place, text in texts(service.definition) if carries(text, value)]
        if key in service.environment and f"environment.{key}" not in places:
            places.append(f"environment.{key}")
        places += [f"secrets.{name}" for name in _secret_files_holding(service, model, value)]
        places += _mounts_from_variables(service, model, key, value)
        if places:
            found.append(Holder(service.name, tuple(sorted(places))))
    return found


def find_literals(model: Model, key: str, value: str, files: Sequence[str], env_file: str) -> list[Literal]:
    """Copies of the value that a change of ``env_file`` does not reach.

    They are: the variable ``key``, or any text with the value, written out in a Compose file; the value in another env
    file or in a mounted secret's file.
    """
    found: list[Literal] = []
    real = os.path.realpath(env_file)
    for service in model.services.values():
        for variable, text in _literal_texts(service, key, value):
            path, line = _find_line(files, service.name, variable, text)
            found.append(Literal(service.name, variable, path, line))
        for path in service.env_files:
            if os.path.realpath(path) != real:
                found += [Literal(service.name, name, path, line) for name, line in _in_env_file(path, key, value)]
        for name in _secret_files_holding(service, model, value):
            found.append(Literal(service.name, f"secret {name}", str(model.secrets[name].get("file")), None))
    return found


def find_outsiders(
    containers: Iterable[Container], project: str, services: Iterable[str], value: str
) -> list[Container]:
    """Running containers whose environment contains the value although no service of the stack accounts for them."""
    known = set(services)
    return [
        item
        for item in containers
        if item.running
        and not (item.project == project and item.service in known and not item.one_off)
        and env_carries(item.environment, value)
    ]


def _literal_texts(service: Service, key: str, value: str) -> list[tuple[str, str]]:
    """(variable or place, text as written) of everything fixed in the Compose file that is or holds the secret."""
    literals: list[tuple[str, str]] = []
    environment = service.raw_environment
    for name, text in environment.items():
        if text is not None and (carries(text, value) or (name == key and not _REFERENCE.search(text))):
            literals.append((name, text))
    elsewhere = {place: body for place, body in service.raw.items() if place not in ("environment", "env_file")}
    literals += [(place, text) for place, text in texts(elsewhere) if carries(text, value)]
    return literals


def _secret_files_holding(service: Service, model: Model, value: str) -> list[str]:
    """Names of mounted secrets (``secrets:`` with ``file:``) whose file contains the value."""
    held = []
    for entry in service.definition.get("secrets") or []:
        name = entry.get("source") if isinstance(entry, Mapping) else entry
        path = (model.secrets.get(str(name)) or {}).get("file")
        if path and value and value.encode() in _read(str(path)):
            held.append(str(name))
    return held


def _mounts_from_variables(service: Service, model: Model, key: str, value: str) -> list[str]:
    """Files that Compose makes from the variable: secrets with ``environment: KEY``, configs with ``content:``."""
    found = []
    for kind, declared in (("secrets", model.secrets), ("configs", model.configs)):
        for entry in service.definition.get(kind) or []:
            name = str(entry.get("source") if isinstance(entry, Mapping) else entry)
            body = declared.get(name) or {}
            if body.get("environment") == key or carries(str(body.get("content") or ""), value):
                found.append(f"{kind}.{name}")
    return found


def _in_env_file(path: str, key: str, value: str) -> list[tuple[str, int]]:
    """(name, line) of entries of another env file that are named ``key`` or contain the value."""
    return [
        (entry.key, entry.line)
        for entry in parse(_read(path)).entries
        if entry.key == key or carries(entry.raw_value, value)
    ]


def _find_line(files: Sequence[str], service: str, variable: str, text: str) -> tuple[str, int | None]:
    """Where a Compose file says it: the file, and the line if its block style lets us tell."""
    bare = variable.rpartition(".")[2].partition("[")[0]
    fallback: tuple[str, int | None] = (files[0], None)
    for path in reversed(files):  # later files win
        inside, level = False, 0
        for number, line in enumerate(_read(path).decode("utf-8", "replace").splitlines(), start=1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            indent = len(line) - len(line.lstrip())
            if inside and indent <= level:
                inside = False
            if re.match(rf"\s+['\"]?{re.escape(service)}['\"]?\s*:", line) and not inside:
                inside, level = True, indent
            if text and text in line and (inside or fallback[1] is None):
                if inside:
                    return path, number
                fallback = (path, number)
            elif inside and re.match(rf"\s*-?\s*['\"]?{re.escape(bare)}['\"]?\s*[:=]", line):
                return path, number
    return fallback


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""  # a file that is missing or unreadable was refused by Compose already
