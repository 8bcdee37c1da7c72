# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every kind of rotation begins and ends with: an interrupted one is recovered first, and the errors tell so."""

from __future__ import annotations

from typing import Any, Callable

from ..compose.stack import Stack
from ..core.errors import NOTHING_CHANGED, InvalidInput, OpsError, Refused
from ..core.history import Recovered
from ..core.journal import Journal
from ..core.lock import held_by
from .carry import CarryStore
from .switch import Switch
from .transaction import Transaction

__all__ = ["in_frame", "interrupted", "journal_of", "recover_interrupted"]


# By the kinds of journals, what the history calls these operations.
_OPERATIONS = {"hmac_rotate": "rotate_hmac", "pg_password": "rotate_db_password"}


def journal_of(stack: Stack, kind: str) -> Journal:
    """The journal of a kind of rotation."""
    return Journal(stack.options.state_path, kind, _OPERATIONS[kind])


def interrupted(stack: Stack, kind: str) -> bool:
    """Whether an earlier rotation of this kind left its journal."""
    return journal_of(stack, kind).load() is not None


def recover_interrupted(stack: Stack, kind: str, transaction: Callable[[Journal, Switch], Transaction]) -> str | None:
    """Finish or undo an interrupted rotation of this kind, if there is one.

    Args:
        stack: the stack.
        kind: the journal's name.
        transaction: makes the transaction again from what the journal says.

    Returns:
        "finished", "undone", "superseded", or None when there was nothing to do.

    Raises:
        OpsError: none was possible.
    """
    journal = journal_of(stack, kind)
    record = journal.load()
    if record is None:
        journal.end()
        CarryStore.beside(journal.path, {}).clear()  # of a run that was killed when all was done but this
        return None
    switch = Switch.from_record(record)
    done = transaction(journal, switch).recover()
    stack.recovered.append(Recovered(_OPERATIONS[kind], switch.key, done, began=record.get("began")))
    stack.forget_model()  # it may have been read from the files as the interrupted run had left them
    return done


def in_frame(
    stack: Stack,
    kind: str,
    key: str,
    *,
    check_mode: bool,
    recover: Callable[[], str | None],
    work: Callable[[list[str]], dict[str, Any]],
) -> dict[str, Any]:
    """A rotation: recover an interrupted one of its kind, then do the work; errors and result tell what was recovered.

    Args:
        stack: the stack.
        kind: the journal's name.
        key: the variable of the secret.
        check_mode: nothing may be recovered.
        recover: recovers an interrupted rotation of this kind.
        work: plans and applies; gets the list of warnings, to which it adds, and returns the result.

    Raises:
        OpsError: refused or failed; the message says what state the host is in.
    """
    warnings: list[str] = []
    recovered = None
    if not check_mode:
        recovered = recover()
        if recovered:
            warnings.append(f"An interrupted rotation was found and {recovered} first.")
    elif interrupted(stack, kind):
        busy = held_by(stack.options.lock_file)  # check mode waits for nobody
        warnings.append(
            f"An operation is under way, so that this plan may be of a half-changed stack: {busy}"
            if busy
            else "An interrupted rotation was found: a real run finishes or undoes it first."
        )
    try:
        return {"changed": True, "key": key, **work(warnings), "recovered": recovered, "warnings": warnings}
    except OpsError as exc:
        exc.facts["warnings"] = warnings
        # A transaction that has begun tells its state itself, and whether it was undone.
        untold = exc.state is None and "rolled_back" not in exc.facts
        if untold:
            exc.state = NOTHING_CHANGED
            exc.hint = exc.hint or "Mend the cause and run the same playbook again."
        if (isinstance(exc, InvalidInput) or untold) and stack.recovered:
            done = " and ".join(dict.fromkeys(item.how for item in stack.recovered))
            exc.state = f"An interrupted rotation was {done} by this run; beyond that nothing was changed"
        if isinstance(exc, InvalidInput) and check_mode and interrupted(stack, kind):
            busy = held_by(stack.options.lock_file)
            if busy:
                raise Refused(
                    f"An operation is under way ({busy}), so that no plan can be made: {exc.msg}",
                    hint="Run again when it has ended.",
                    facts=exc.facts,
                ) from exc
            raise Refused(
                f"An interrupted rotation of {key} was found, so that no plan can be made: {exc.msg}",
                hint="Run the same playbook without --check: it finishes or undoes that rotation first. Do not start "
                "services by hand before.",
                facts=exc.facts,
            ) from exc
        raise
