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
# How places begin that are files.
_FILES = ("mount ", "secrets.", "configs.")
# A bigger file is no place for a secret.
_BIG = 1_000_000


@dataclass(frozen=True)
class Holder:
    """A service that gets the value, and every place where it gets it.

    Places are, for example, ``environment.OPS_SECRET``, ``command[2]``, and for files ``secrets.hmac``, ``configs.env``
    and ``mount /run/env`` (the path in the container).
    """

    service: str
    places: tuple[str, ...]

    @property
    def variables(self) -> list[str]:
        """The names of the environment variables among the places."""
        return [place[len("environment.") :] for place in self.places if place.startswith("environment.")]

    @property
    def files(self) -> list[str]:
        """The mounted files among the places. A file that was replaced reaches only a container that is made anew."""
        return [place for place in self.places if place.startswith(_FILES)]


@dataclass(frozen=True)
class Literal:
    """A copy of a secret that changing the env file does not reach; ``encoded`` where it is percent-encoded."""

    service: str
    variable: str
    path: str
    line: int | None
    encoded: bool = False

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}" if self.line else self.path
        what = self.variable if self.variable.startswith(_FILES) else f"variable {self.variable}"
        return f"service {self.service}, {what} ({where})"


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


def find_holders(model: Model, key: str, value: str, env_file: str | None = None) -> list[Holder]:
    """Every service that gets the value, or that has a variable named ``key``.

    Args:
        model: the stack.
        key: the variable of the secret.
        value: the secret.
        env_file: where the secret is kept: a service that has this file, or a directory with it, mounted holds it, too.
            The host's whole file system does not count: what has that mounted is a monitor.
    """
    found = []
    for service in model.services.values():
        places = [place for place, text in texts(service.definition) if carries(text, value)]
        if key in service.environment and f"environment.{key}" not in places:
            places.append(f"environment.{key}")
        places += [place for place, _path in _files_holding(service, model, value)]
        places += _places_of(env_file, service, model) if env_file else []
        places += _mounts_from_variables(service, model, key, value)
        if places:
            found.append(Holder(service.name, tuple(sorted(set(places)))))
    return found


def find_literals(model: Model, key: str, value: str, files: Sequence[str], env_file: str) -> list[Literal]:
    """Copies of the value that a change of ``env_file`` does not reach.

    They are: the variable ``key``, or any text with the value, written out in a Compose file; the value in another env
    file, or in another file that is mounted (as a secret, a config or by itself).
    """
    found: list[Literal] = []
    real = os.path.realpath(env_file)
    for service in model.services.values():
        for variable, text in _literal_texts(service, key, value):
            path, line = _find_line(files, service.name, variable, text)
            found.append(Literal(service.name, variable, path, line, _is_encoded(text, value)))
        for path in service.env_files:
            if os.path.realpath(path) != real:
                found += [Literal(service.name, *entry) for entry in _in_env_file(path, key, value)]
        for place, path in _files_holding(service, model, value):
            if os.path.realpath(path) != real:
                found.append(Literal(service.name, place, path, None))
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


def _is_encoded(text: str, value: str) -> bool:
    """Whether a text contains a value percent-encoded only, so that the value as it is might break it."""
    return value not in text and carries(text, value)


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


def _files_holding(service: Service, model: Model, value: str) -> list[tuple[str, str]]:
    """(place, path on the host) of every file with the value that the service has mounted, in whatever way."""
    return [(place, path) for place, path in _mounted(service, model) if _file_carries(path, value)]


def _places_of(env_file: str, service: Service, model: Model) -> list[str]:
    """Where the service has the env file mounted, by itself or within a directory, whatever it says at the moment."""
    real = os.path.realpath(env_file)
    around = set()
    while real != "/":  # who has that mounted looks at the host, and reads no secrets of ours
        around.add(real)
        real = os.path.dirname(real)
    return [place for place, path in _mounted(service, model) if os.path.realpath(path) in around]


def _mounted(service: Service, model: Model) -> list[tuple[str, str]]:
    """(place, path on the host) of what the service gets as a bind mount, or as a secret or config with ``file:``."""
    volumes = [entry for entry in service.definition.get("volumes") or [] if isinstance(entry, Mapping)]
    found = [(f"mount {entry.get('target')}", entry.get("source")) for entry in volumes if entry.get("type") == "bind"]
    for kind, declared in (("secrets", model.secrets), ("configs", model.configs)):
        for entry in service.definition.get(kind) or []:
            name = str(entry.get("source") if isinstance(entry, Mapping) else entry)
            found.append((f"{kind}.{name}", (declared.get(name) or {}).get("file")))
    return [(place, str(path)) for place, path in found if path]


def _file_carries(path: str, value: str) -> bool:
    """Whether a file contains the value; a short one, as for ``carries``, must be all that it says."""
    try:  # sockets, devices and data are mounted, too
        small = os.path.isfile(path) and os.path.getsize(path) <= _BIG
    except OSError:
        small = False
    text = _read(path) if small else b""
    secret = value.encode("utf-8", "surrogateescape")
    return bool(secret) and (secret in text if len(value) >= 8 else secret == text.strip())


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


def _in_env_file(path: str, key: str, value: str) -> list[tuple[str, str, int, bool]]:
    """Entries of another env file that are named ``key`` or contain the value, as the fields of a literal."""
    return [
        (entry.key, path, entry.line, _is_encoded(entry.raw_value, value))
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
