# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions that a killed run of ours has left in the server, which may still change what they were sent to change.

PostgreSQL does not notice that a client is gone while its statement waits for a lock: what was undone meanwhile would
be changed after all as soon as it gets that.
"""

from __future__ import annotations

from typing import Callable

from ..core.clock import Clock, wait_for
from ..core.errors import OpsError
from .login import APPLICATION, Row
from .psql import quote_literal

__all__ = ["end_own"]

# Seconds that a session of ours has to leave by itself, and to be gone when it was ended.
_LEAVE, _GO = 1.0, 10.0


def end_own(run: Callable[[str], list[Row]], role: str, clock: Clock) -> None:
    """End them, and wait until they are gone.

    Args:
        run: runs a statement on the server, in a session that is not among them.
        role: whose password they may change.
        clock: the source of time.

    Raises:
        OpsError: there are some, and they cannot be ended.
    """
    left: list[str] = []

    def gone() -> bool | None:
        rows = run(
            f"SELECT pid::text FROM pg_catalog.pg_stat_activity WHERE application_name = '{APPLICATION}'"
            # through the socket it was a superuser
            f" AND (usename = {quote_literal(role)}"
            " OR usename IN (SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper))"
            " AND pid <> pg_backend_pid() ORDER BY pid"
        )
        left[:] = [str(int(row[0])) for row in rows]
        return None if left else True

    why = f"they are still there {_GO:g} seconds after they were told to end"
    if wait_for(gone, timeout=_LEAVE, clock=clock):  # the last login's own session needs a moment, too
        return
    try:
        run(f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{', '.join(left)}]) pid")
    except OpsError as exc:
        why = exc.msg
    else:
        if wait_for(gone, timeout=_GO, clock=clock):
            return
    raise OpsError(
        f"Sessions of an interrupted run ({APPLICATION}, process {', '.join(left)}) may still change the password of "
        f"{role}, and cannot be ended: {why}",
        hint="End them as the database's superuser (SELECT pg_terminate_backend(...)), and run the same playbook "
        "again.",
    )
