# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which Compose project is meant: its directory, files, env files and name, taken from what really runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.errors import InvalidInput, Refused
from .container import Container

__all__ = ["DEFAULT_FILE", "Project", "StackOptions", "locate"]

DEFAULT_FILE = "docker-compose.prod.yml"
_SECRETS_FILE = "compose/.env.prod"


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
        return self.state_dir or os.path.join(self.project_src, "state")

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


def locate(options: StackOptions, containers: Iterable[Container]) -> Project:
    """Find the project's files and name.

    The labels of the containers that exist are the truth (another name means other volumes, that is, an empty
    database); what the operator says outright wins over them, except that a name no container bears is refused
    while the same Compose file runs under another.

    Args:
        options: what the operator said.
        containers: every Compose container of the host.

    Raises:
        InvalidInput: a directory or file is missing, or two projects run from the same directory.
    """
    src = options.project_src
    if not os.path.isabs(src):
        raise InvalidInput(f"project_src must be an absolute path, not {src}")
    if not os.path.isdir(src):
        raise InvalidInput(f"There is no project directory {src}", hint="Name the right one with project_src.")
    mine = [item for item in containers if _belongs(item, src) and not item.one_off]
    name = _name(options, src, mine)
    named = [item for item in mine if item.project == name]
    files = tuple(_absolute(src, path) for path in options.files) or _labelled_files(src, named)
    files = files or (os.path.join(src, DEFAULT_FILE),)
    for path in files:
        if not os.path.isfile(path):
            raise InvalidInput(f"There is no Compose file {path}", hint="Name the right ones with files.")
    env_files = tuple(_absolute(src, path) for path in options.env_files) or _default_env_files(src)
    for path in env_files:
        if not os.path.exists(path):
            what = "is a dangling symlink" if os.path.islink(path) else "does not exist"
            raise InvalidInput(f"The env file {path} {what}", hint="Mend it, or name the right ones with env_files.")
    return Project(src=src, name=name, files=files, env_files=env_files)


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
    real = os.path.realpath(src)
    directory = container.label("project.working_dir")
    if directory and os.path.realpath(directory) == real:
        return True
    files = (container.label("project.config_files") or "").split(",")
    return any(path and os.path.dirname(os.path.realpath(path)) == real for path in files)


def _labelled_files(src: str, containers: list[Container]) -> tuple[str, ...]:
    """The Compose files of the project's newest container, when they are all still there."""
    newest = max(containers, key=lambda item: item.started_at or 0.0, default=None)
    if newest is None:
        return ()
    paths = [path for path in (newest.label("project.config_files") or "").split(",") if path]
    if not all(os.path.isfile(path) for path in paths):
        return ()
    # A file in project_src is named by that path, so that a "current" link moved later leads to the new release.
    real = os.path.realpath(src)
    return tuple(
        os.path.join(src, os.path.basename(path)) if os.path.realpath(os.path.dirname(path)) == real else path
        for path in paths
    )


def _default_env_files(src: str) -> tuple[str, ...]:
    """What Compose would read by itself, then the runbook's secrets file; one file under two names counts once."""
    found: list[str] = []
    for path in (os.path.join(src, ".env"), os.path.join(src, _SECRETS_FILE)):
        present = os.path.exists(path) or os.path.islink(path)
        if present and os.path.realpath(path) not in [os.path.realpath(other) for other in found]:
            found.append(path)
    return tuple(found)


def _absolute(src: str, path: str) -> str:
    return os.path.normpath(os.path.join(src, path))
