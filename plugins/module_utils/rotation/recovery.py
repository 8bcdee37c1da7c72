# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finishes or undoes whatever rotation was interrupted, of any kind, so that the next one begins on a whole stack."""

from __future__ import annotations

from ..compose.stack import Stack
from ..core.errors import Refused
from ..core.lock import held_by
from ..database.server import Server
from . import hmac, pg
from .frame import interrupted
from .hmac_options import HmacOptions

__all__ = ["KINDS", "recover_all", "recover_others"]

KINDS = (hmac.JOURNAL, pg.JOURNAL)


def recover_all(
    stack: Stack, *, check_mode: bool = False, socket: bool = False, connector: pg.Connector = Server
) -> dict[str, str]:
    """Recover each kind that left its journal.

    Args:
        stack: the stack.
        check_mode: only say which there are.
        socket: let the database's password be set through the container's socket.
        connector: gives the database.

    Returns:
        By kind, what was done: finished, undone or superseded; in check mode interrupted, or under way while somebody
        holds the host's lock.

    Raises:
        OpsError: one could not be recovered; its journal stays.
    """
    if check_mode:
        found = [kind for kind in KINDS if interrupted(stack, kind)]
        return dict.fromkeys(found, "under way" if found and held_by(stack.options.lock_file) else "interrupted")
    done = {
        hmac.JOURNAL: hmac.recover(stack, HmacOptions()),
        pg.JOURNAL: pg.recover(stack, socket=socket, connector=connector),
    }
    return {kind: how for kind, how in done.items() if how}


def recover_others(stack: Stack, kind: str, *, check_mode: bool, connector: pg.Connector = Server) -> None:
    """Before a rotation of one kind, recover the others; in check mode, refuse to plan over a half-done one.

    Raises:
        Refused: in check mode, when another kind was interrupted.
        OpsError: it could not be recovered.
    """
    if check_mode:
        others = [name for name in recover_all(stack, check_mode=True) if name != kind]
        busy = held_by(stack.options.lock_file) if others else None
        if busy:
            raise Refused(
                f"Another operation is under way ({', '.join(others)}), so that no plan can be made: {busy}",
                hint="Run again when it has ended.",
            )
        if others:
            raise Refused(
                f"An interrupted rotation of another kind was found ({', '.join(others)}), so that no plan can be made",
                hint="Run recover.yml first: it finishes or undoes that rotation.",
            )
    elif kind == pg.JOURNAL:
        hmac.recover(stack, HmacOptions())
    else:
        pg.recover(stack, connector=connector)
