# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a container's own layer, carried over to the container that replaces it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from ..compose.container import Container
from ..compose.engine import Engine
from ..core.errors import OpsError
from ..core.files import ensure_private_dir, read_regular, write_atomic

__all__ = ["CarryStore"]


class CarryStore:
    """Keeps the files safe on the host (0600 in 0700) from before the old container goes until the new one has them.

    Args:
        directory: where; exists only while an operation is under way.
        files: paths inside the containers, by service.
    """

    def __init__(self, directory: str, files: Mapping[str, Sequence[str]]) -> None:
        self._directory = directory
        self._files = {service: tuple(paths) for service, paths in files.items()}
        self._memory: dict[str, bytes] = {}

    @classmethod
    def beside(cls, journal: str, files: Mapping[str, Sequence[str]]) -> CarryStore:
        """The store of the operation that keeps this journal."""
        return cls(journal + ".files", files)

    def save(self, engine: Engine, service: str, container: Container, *, durably: bool = True) -> list[str]:
        """Copy a container's files; what was saved of it before is replaced, and forgotten if gone now.

        A container that has never run may have files, too: those that it got from here, and may get yet.

        Args:
            engine: Docker.
            service: the container's service.
            container: as just read.
            durably: fail where they cannot be written to disk. Without, this process keeps them then: on a full disk
                the services must start again.

        Returns:
            The paths that were there.
        """
        found = []
        for path in self._files.get(service, ()):
            target = self._path(service, container, path)
            if container.started_at is None and (target in self._memory or os.path.exists(target)):
                continue
            archive = engine.read_archive(container.id, path)
            self._memory.pop(target, None)
            if archive is None:
                if os.path.exists(target):
                    os.unlink(target)
                continue
            try:
                ensure_private_dir(self._directory)
                write_atomic(target, archive)
            except OpsError:
                if durably:
                    raise
                self._memory[target] = archive
            found.append(path)
        return found

    def load(self, engine: Engine, service: str, container: Container, *, missing_only: bool = False) -> list[str]:
        """Put the saved files into a container, with ``missing_only`` those that it does not have; gives the paths."""
        placed = []
        for path in self._files.get(service, ()):
            saved = self._path(service, container, path)
            there = saved in self._memory or os.path.exists(saved)
            if there and not (missing_only and engine.path_exists(container.id, path)):
                archive = self._memory[saved] if saved in self._memory else read_regular(saved).data
                engine.write_archive(container.id, os.path.dirname(path) or "/", archive)
                placed.append(path)
        return placed

    def clear(self) -> None:
        """Remove everything saved."""
        if os.path.isdir(self._directory):
            shutil.rmtree(self._directory)

    def _path(self, service: str, container: Container, path: str) -> str:
        # the replica's number, for Compose gives a replacement its final name late
        number = container.label("container-number") or "1"
        return os.path.join(self._directory, f"{service}-{number}{path.replace('/', '%')}.tar")
