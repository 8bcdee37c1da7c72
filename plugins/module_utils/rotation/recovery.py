# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finishes or undoes whatever was interrupted, of any kind, so that the next operation begins on a whole stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from ..backup import restore
from ..compose.stack import Stack
from ..core.errors import Refused
from ..core.journal import Journal
from ..core.lock import held_by
from ..database.server import Server
from . import hmac, pg
from .hmac_options import HmacOptions

__all__ = ["KINDS", "recover_all", "recover_others"]

KINDS = (hmac.JOURNAL, pg.JOURNAL, restore.JOURNAL)


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
        found = [kind for kind in KINDS if Journal(stack.options.state_path, kind).load() is not None]
        return dict.fromkeys(found, "under way" if found and held_by(stack.options.lock_file) else "interrupted")
    return _recover(stack, KINDS, socket=socket, connector=connector)


def _recover(stack: Stack, kinds: Sequence[str], *, socket: bool, connector: pg.Connector) -> dict[str, str]:
    ways: dict[str, Callable[[], str | None]] = {
        hmac.JOURNAL: lambda: hmac.recover(stack, HmacOptions()),
        pg.JOURNAL: lambda: pg.recover(stack, socket=socket, connector=connector),
        # After them: it wants a password that the database takes.
        restore.JOURNAL: lambda: restore.recover(stack),
    }
    done = {kind: way() for kind, way in ways.items() if kind in kinds}
    return {kind: how for kind, how in done.items() if how}


def recover_others(stack: Stack, kind: str, *, check_mode: bool, connector: pg.Connector = Server) -> None:
    """Before an operation of one kind, recover the others; in check mode, refuse to plan over a half-done one.

    Args:
        stack: the stack.
        kind: of the operation that begins.
        check_mode: nothing may be recovered; the host's lock is not ours.
        connector: gives the database.

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
                f"An interrupted operation of another kind was found ({', '.join(others)}): no plan can be made",
                hint="Run recover.yml first: it finishes or undoes that one.",
            )
    else:
        _recover(stack, [name for name in KINDS if name != kind], socket=False, connector=connector)
