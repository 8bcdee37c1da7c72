# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing one backup, by name."""

from __future__ import annotations

import os
from typing import Any

from ..core.errors import Mistaken, Refused
from . import catalog

__all__ = ["remove_backup"]


def remove_backup(directory: str, name: str, *, check_mode: bool) -> dict[str, Any]:
    """Remove a backup and its manifest; gives what a result says of it.

    Raises:
        Mistaken: it is neither a plain name nor the path of one in the directory.
        Refused: it is the last good backup of its database.
        OpsError: the file system refused.
    """
    name = catalog.called(directory, name)
    if os.path.basename(name) != name or not name:
        raise Mistaken(f"name must be a backup's name in {directory}, without a path or with that one: {name!r}")
    there = catalog.listed(directory)
    found = next((item for item in there if item.name == name), None)
    if found is None:
        return {"changed": False, "removed": [], "diff": {"before": "", "after": ""}}
    others = [item for item in there if item is not found and item.state == catalog.GOOD and _same(item, found)]
    if found.state == catalog.GOOD and not others:
        raise Refused(
            f"{name} is the only good backup of its database in {directory}",
            hint="Make another one first, or remove it by hand.",
        )
    if not check_mode:
        catalog.take_away(found.path)
    return {
        "changed": True,
        "removed": [name],
        "diff": {"before": f"{name}\n", "after": ""},
        "about": {"backup": name},  # for the history
    }


def _same(one: catalog.Backup, other: catalog.Backup) -> bool:
    return bool(one.manifest and other.manifest and one.manifest.database == other.manifest.database)
