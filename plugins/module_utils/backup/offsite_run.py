# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One action on the off-site repository, from its options to its result: for the module and for backup_db.sh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .fetch import fetch
from .offsite import check, copy, forget
from .offsite_options import OffsiteOptions
from .restic import Restic, ResticEffects

__all__ = ["perform"]


def perform(params: Mapping[str, Any], project_src: str, effects: ResticEffects, *, check_mode: bool) -> dict[str, Any]:
    """Do what ``action`` says (copy, forget, check, fetch); whoever calls holds the lock, unless in check mode.

    Raises:
        OpsError: it could not be done.
    """
    options = OffsiteOptions.from_params(params, project_src, effects.redact)
    restic = Restic(options.repository, effects)
    action = params["action"]
    if action == "fetch":
        return fetch(options, restic, name=params["name"], check_mode=check_mode)
    if action == "forget":
        return forget(options, restic, check_mode=check_mode)
    if action == "check":
        return check(options, restic, check_mode=check_mode)
    return copy(options, restic, init=params["init"], check_mode=check_mode)
