# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which Compose project is meant: its directory, files, env files and name, taken from what really runs.

A stack lies in one of two layouts: a directory (``/opt/titan``), or releases (``/opt/titan/releases/<id>``, to one of
which ``/opt/titan/current`` leads). What must outlive a release lies in the directory that holds ``releases``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.errors import InvalidInput, Refused
from .container import Container

__all__ = ["DEFAULT_FILE", "Project", "StackOptions", "base_of", "locate", "members", "project_name", "secrets_file"]

DEFAULT_FILE = "docker-compose.prod.yml"
_SECRETS_FILE = "compose/.env.prod"
_RELEASES = "releases"


@dataclass(frozen=True)
class StackOptions:
    """What the operator said about the stack (the modules' common options)."""

    project_src: str = "/opt/titan"
    project_name: str | None = None
    files: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    state_dir: str | None = None
    lock_path: str | None = None
    lock_timeout: float = 60
    docker_host: str = "unix:///var/run/docker.sock"

    @property
    def state_path(self) -> str:
        """Where operations keep their journals."""
        return self.state_dir or os.path.join(base_of(self.project_src), "state")

    @property
    def lock_file(self) -> str:
        """The host lock: the file that Titan's own deployments lock, too."""
        return self.lock_path or os.path.join(self.state_path, "deploy.lock")


@dataclass(frozen=True)
class Project:
    """A located project; paths are absolute. ``name`` is None until containers or Compose tell it."""

    src: str
    name: str | None
    files: tuple[str, ...]
    env_files: tuple[str, ...]


def base_of(src: str) -> str:
    """The directory of what outlives a release: the one that holds ``releases``, else the project directory itself."""
    return os.path.dirname(_releases(src)) if _is_release(src) else src


def secrets_file(src: str, path: str) -> str:
    """Where an env file with secrets is, which the operator names absolutely or relative to the project directory.

    A release may have only a link to it, or nothing of it: then the same path below the directory that holds
    ``releases``, and a file of the same name in the release, are looked for as well.

    Args:
        src: the project directory.
        path: the file, e.g. ``compose/.env.prod``.

    Returns:
        An absolute path of something that is there (it may be a dangling symlink, or no file).

    Raises:
        InvalidInput: there is nothing; the message says where it was looked for.
    """
    places = [_absolute(src, path)]
    if _is_release(src) and not os.path.isabs(path):
        places += [_absolute(base_of(src), path), _absolute(src, os.path.basename(path))]
    for place in places:
        if os.path.lexists(place):
            return place
    others = f" (neither do {' and '.join(places[1:])})" if len(places) > 1 else ""
    raise InvalidInput(f"The env file {places[0]} does not exist{others}", hint="Check the path, or create it.")


def locate(options: StackOptions, containers: Iterable[Container]) -> Project:
    """Find the project's files and name.

    The labels of the containers that exist are the truth (another name means other volumes, that is, an empty
    database); what the operator says outright wins over them, except that a name no container bears is refused
    while the same Compose file runs under another.

    Args:
        options: what the operator said.
        containers: every Compose container of the host.

    Raises:
        InvalidInput: a directory or file is missing, or the containers tell of two projects, or of two sets of files.
    """
    src = options.project_src
    mine = _mine(options, containers)
    name = _name(options, src, mine)
    named = [item for item in mine if item.project == name]
    files = tuple(_absolute(src, path) for path in options.files) or _labelled_files(src, named)
    files = files or (os.path.join(src, DEFAULT_FILE),)
    for path in files:
        if not os.path.isfile(path):
            current = os.path.join(src, "current")
            moved = f", or set project_src to {current}" if os.path.isfile(os.path.join(current, DEFAULT_FILE)) else ""
            raise InvalidInput(f"There is no Compose file {path}", hint=f"Name the right ones with files{moved}.")
    env_files = tuple(_absolute(src, path) for path in options.env_files) or _default_env_files(src)
    for path in env_files:
        if not os.path.exists(path):
            what = "is a dangling symlink" if os.path.islink(path) else "does not exist"
            raise InvalidInput(f"The env file {path} {what}", hint="Mend it, or name the right ones with env_files.")
    return Project(src=src, name=name, files=files, env_files=env_files)


def project_name(options: StackOptions, containers: Iterable[Container]) -> str | None:
    """The project's name as far as the operator and the labels tell it, whatever has become of its files.

    Raises:
        InvalidInput: there is no such directory, or the containers tell of two projects.
    """
    return _name(options, options.project_src, _mine(options, containers))


def _mine(options: StackOptions, containers: Iterable[Container]) -> list[Container]:
    src = options.project_src
    if not os.path.isabs(src):
        raise InvalidInput(f"project_src must be an absolute path, not {src}")
    if not os.path.isdir(src):
        raise InvalidInput(f"There is no project directory {src}", hint="Name the right one with project_src.")
    return [item for item in containers if _belongs(item, src) and not item.one_off]


def members(options: StackOptions, containers: Iterable[Container]) -> list[Container]:
    """The containers of the stack by their labels alone, whatever has become of its Compose and env files.

    Args:
        options: what the operator said.
        containers: every Compose container of the host.

    Raises:
        InvalidInput: there is no such directory.
        Refused: the containers tell of two projects, or of another than ``options`` says.
    """
    mine = _mine(options, containers)
    name = _name(options, options.project_src, mine)
    return [item for item in mine if item.project == name]


def _name(options: StackOptions, src: str, mine: list[Container]) -> str | None:
    names = sorted({item.project for item in mine if item.project})
    if options.project_name:
        if names and options.project_name not in names:
            raise Refused(
                f"project_name is {options.project_name}, but the containers of {src} belong to {', '.join(names)}",
                hint="Another name would start a second stack on empty volumes; leave it out to use the labels.",
            )
        return options.project_name
    if len(names) > 1:
        raise Refused(
            f"Containers made from {src} belong to {len(names)} Compose projects: {', '.join(names)}",
            hint="Say which one is meant with project_name.",
        )
    return names[0] if names else None


def _belongs(container: Container, src: str) -> bool:
    """Whether it was made from this project directory; with releases, from any of them: they are the same stack."""
    home = _home(src)
    directory = container.label("project.working_dir")
    if directory and _home(directory) == home:
        return True
    return any(_home(os.path.dirname(path)) == home for path in _config_files(container))


def _home(directory: str) -> str:
    return _releases(directory) if _is_release(directory) else os.path.realpath(directory)


def _is_release(directory: str) -> bool:
    return os.path.basename(_releases(directory)) == _RELEASES


def _releases(directory: str) -> str:
    """The directory around a directory: the one of all releases, if this is a release."""
    return os.path.dirname(os.path.realpath(directory))


def _labelled_files(src: str, containers: list[Container]) -> tuple[str, ...]:
    """The Compose files from which the project's containers were made; none when there are no containers.

    Raises:
        Refused: the containers do not agree, or a file is gone. One left out would silently change the stack: a file of
            image digests, for example, keeps services from moving to ``latest``.
    """
    services: dict[tuple[str, ...], list[str]] = {}
    for container in containers:
        files = tuple(_here(src, path) for path in _config_files(container))
        if files:
            services.setdefault(files, []).append(container.service or container.name)
    sets = [
        f"{', '.join(os.path.relpath(path, src) if path.startswith(src + '/') else path for path in files)}"
        f" ({', '.join(sorted(set(names)))})"
        for files, names in sorted(services.items())
    ]
    hint = "Name the right ones with files, all of them and in their order (later ones override)."
    if len(sets) > 1:
        raise Refused(
            f"The containers of {src} were made from {len(sets)} different sets of Compose files: {'; '.join(sets)}",
            hint=hint,
        )
    found = next(iter(services), ())
    gone = [path for path in found if not os.path.isfile(path)]
    if gone:
        raise Refused(
            f"The containers of {src} were made from {sets[0]}, but there is no {' and no '.join(gone)} any more",
            hint=hint,
        )
    return found


def _config_files(container: Container) -> list[str]:
    """What its label says: absolute paths, or (an old Compose) relative to the working directory."""
    directory = container.label("project.working_dir") or "/"
    label = container.label("project.config_files") or ""
    return [os.path.join(directory, path) for path in label.split(",") if path]


def _here(src: str, path: str) -> str:
    """The file of the same name in the project directory that is meant, for one in that directory or another release.

    A "current" link that was moved since the container was made leads to the new release.
    """
    place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    inside = os.path.relpath(place, _home(src))
    if _is_release(src):
        inside = inside.partition("/")[2] if not inside.startswith("..") else ".."
    return _absolute(src, inside) if inside and not inside.startswith("..") else path


def _default_env_files(src: str) -> tuple[str, ...]:
    """What Compose would read by itself, then the runbook's secrets file; one file under two names counts once."""
    found: list[str] = []
    names = (_SECRETS_FILE, os.path.basename(_SECRETS_FILE))
    secrets = [path for path in (os.path.join(src, name) for name in names) if os.path.lexists(path)]
    if not secrets:  # a release without a link to it
        secrets = [path for path in (os.path.join(base_of(src), _SECRETS_FILE),) if os.path.lexists(path)]
    for path in (os.path.join(src, ".env"), *secrets):
        if os.path.lexists(path) and os.path.realpath(path) not in [os.path.realpath(other) for other in found]:
            found.append(path)
    return tuple(found)


def _absolute(src: str, path: str) -> str:
    return os.path.normpath(os.path.join(src, path))
