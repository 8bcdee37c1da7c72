# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One action on the off-site repository, from its options to its result: for the module and for backup_db.sh."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Callable

from ..compose.project import StackOptions
from ..core.clock import Clock
from ..core.errors import OpsError
from ..core.lock import host_lock
from ..core.progress import Progress
from ..core.redact import Redactor
from .fetch import drop_staging, fetch
from .offsite import check, copy, forget
from .offsite_options import LOCK, OffsiteOptions, action_spec
from .restic import Restic, ResticEffects
from .settings import typed

__all__ = ["HISTORY", "perform", "perform_locked"]

# The operation's name in the history and the metrics, by action.
HISTORY = {
    "copy": "backup_offsite",
    "forget": "backup_offsite_forget",
    "check": "backup_offsite_check",
    "fetch": "backup_offsite_fetch",
}


def perform(params: Mapping[str, Any], project_src: str, effects: ResticEffects, *, check_mode: bool) -> dict[str, Any]:
    """Do what ``action`` says (copy, forget, check, fetch); whoever calls holds the lock, unless in check mode.

    Raises:
        OpsError: it could not be done.
    """
    try:
        return _perform(params, project_src, effects, check_mode=check_mode)
    except OSError as exc:  # a full /tmp, say
        raise OpsError(
            f"{params['action']} off-site could not go on: {exc.strerror or exc}",
            state="The backups on the host are as they were",
        ) from exc


def _perform(
    params: Mapping[str, Any], project_src: str, effects: ResticEffects, *, check_mode: bool
) -> dict[str, Any]:
    options = OffsiteOptions.from_params(params, project_src, effects.redact)
    restic = Restic(options.repository, effects)
    action = params["action"]
    if not check_mode:
        drop_staging(options)
    if action == "fetch":
        return fetch(options, restic, name=params["name"], check_mode=check_mode)
    if action == "forget":
        return forget(options, restic, check_mode=check_mode)
    if action == "check":
        return check(options, restic, check_mode=check_mode)
    return copy(options, restic, init=params["init"], check_mode=check_mode)


def perform_locked(
    settings: Mapping[str, Any],
    action: str,
    stack: StackOptions,
    *,
    holder: str,
    clock: Clock,
    cancelled: Callable[[], bool],
    redact: Redactor,
    progress: Progress,
) -> dict[str, Any]:
    """Do an action by the settings of backup_db.sh, under the lock.

    Raises:
        OpsError: it could not be done.
    """
    params = typed(action_spec(), settings)
    progress.phase("waiting for the lock of the copies off-site")
    with host_lock(
        os.path.join(stack.state_path, LOCK),
        reason=f"{action} backups off-site",
        holder=holder,
        timeout=stack.lock_timeout,
        clock=clock,
        waiting=lambda held: progress.phase(f"waiting for the lock of the copies off-site, held by {held}"),
    ) as lock:
        effects = ResticEffects(clock, cancelled, redact, kept=(lock,), progress=progress)
        return perform({**params, "action": action}, stack.project_src, effects, check_mode=False)
