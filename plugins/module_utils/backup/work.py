# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a restore or a drill keeps the pipe that psql reads a plain dump from: in memory, for root alone."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from ..core.errors import OpsError
from ..core.files import ensure_private_dir
from .tools import Effects

__all__ = ["drop_work", "work_directory"]


@contextlib.contextmanager
def work_directory(effects: Effects) -> Iterator[str]:
    """Make the directory; afterwards it is gone.

    Raises:
        OpsError: it cannot be made.
    """
    path = _path(effects)
    drop_work(effects)
    try:
        ensure_private_dir(effects.run_dir)
        os.mkdir(path, 0o700)
    except OSError as exc:
        raise OpsError(f"The directory {path} cannot be made: {exc.strerror or exc}") from exc
    try:
        yield path
    finally:
        drop_work(effects)


def drop_work(effects: Effects) -> None:
    """Remove what a killed run has left of it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        shutil.rmtree(_path(effects))


def _path(effects: Effects) -> str:
    return os.path.join(effects.run_dir, "restore")
