# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration hash that Compose would label a container with that it creates now.

``docker compose config --hash`` on the project's own files does not tell it:

- Compose 2.22 and later hash a service there without its ``env_file``, but with it when they create a container
  (docker/compose issue 14001), so that every service with an env_file looks changed.
- Compose 2.19 to 2.29.2 hash ``depends_on``, too, but not under ``--no-deps`` (docker/compose issue 12069).

A project that is resolved already has no ``env_file`` left; hashing that, with and without ``depends_on``, tells both.
"""

from __future__ import annotations

import json
from typing import Any

from ..core.runner import Completed, Runner
from .cli import ComposeCli
from .stack import Stack

__all__ = ["config_hashes"]


def config_hashes(stack: Stack, runner: Runner, *, dependencies: bool = True) -> dict[str, str]:
    """Every active service's configuration hash.

    Args:
        stack: the stack.
        runner: runs Compose; the resolved project, with its secrets, goes to its standard input.
        dependencies: as ``up`` hashes; without them as ``up --no-deps`` does.

    Raises:
        OpsError: Compose refuses the project.
    """
    project = stack.cli.config(project=stack.name)
    if not dependencies:
        for service in (project.get("services") or {}).values():
            service.pop("depends_on", None)
    cli = ComposeCli(
        _Feeding(runner, json.dumps(project).encode()),
        project_src=stack.project.src,
        files=["-"],
        profiles=stack.options.profiles,
        docker_host=stack.options.docker_host,
    )
    return cli.hashes(stack.name)


class _Feeding(Runner):
    """A runner that gives the same standard input to whatever it runs."""

    def __init__(self, runner: Runner, data: bytes) -> None:
        self._runner = runner
        self._data = data

    def run(self, argv: Any, **options: Any) -> Completed:
        return self._runner.run(argv, **{**options, "data": self._data})
