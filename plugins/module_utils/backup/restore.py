# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore (runbook 4.3), and its undo: into a database beside the real one, proved, and only then in its place."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Callable

from ..compose.sidecar import remove_leftovers
from ..compose.stack import Stack
from ..core.errors import NOTHING_CHANGED, OpsError, Refused
from ..core.history import Recovered
from ..core.journal import Journal
from ..core.lock import held_by
from ..core.metrics import RESTORE_DURATION, RESTORE_SUCCESS, Sample
from ..core.progress import Progress
from .compare import counted
from .exchange import JOURNAL, Exchange, begin_record, journal_of
from .load import load
from .patience import Patience, attended
from .restore_compare import compare_restored
from .restore_options import RestoreOptions
from .restore_plan import RestorePlan, differences, plan
from .scratch import connected, drop_database
from .siblings import create_side, dress_side, drop_those, utc
from .source import Source
from .tools import Cancelled, Effects, drop_passfile
from .work import drop_work, work_directory

__all__ = ["JOURNAL", "effects_of", "interrupted", "recover", "restore"]

_NO_ROLE = re.compile(r'role "([^"]+)" does not exist')
_AGAIN = "Mend the cause, and run the same playbook again: it begins by recovering."


def effects_of(
    stack: Stack, cancelled: Callable[[], bool] = lambda: False, *, progress: Progress | None = None
) -> Effects:
    """What the backups act through, in this stack."""
    return Effects(
        stack.engine,
        stack.options.docker_host,
        stack.clock,
        cancelled=cancelled,
        redact=stack.redact,
        progress=progress or Progress(),
    )


def interrupted(stack: Stack) -> bool:
    """Whether an earlier restore left its journal."""
    return journal_of(stack).load() is not None


def restore(stack: Stack, options: RestoreOptions, effects: Effects, *, check_mode: bool) -> dict[str, Any]:
    """The whole operation: recover an interrupted one, plan, and apply when that is wanted and confirmed.

    Returns:
        What the module returns (its documentation, "Return values").

    Raises:
        OpsError: refused or failed; the message says what state the host is in.
    """
    warnings: list[str] = []
    dry = check_mode or options.confirm is None
    recovered: str | None = None
    before: dict[str, Any] = {}
    busy = held_by(stack.options.lock_file) if dry else None  # a plan waits for nobody
    if busy:
        warnings.append(f"An operation is under way, so that this plan may not hold: {busy}")
    elif dry and interrupted(stack):
        warnings.append("An interrupted restore was found: a real run finishes or undoes it first.")
    elif not dry:
        recovered, before = _recovered(stack, effects)
        warnings += stack.warnings
        stack.warnings.clear()
        if recovered:
            warnings.append(f"An interrupted restore was found and {recovered} first.")
    result: dict[str, Any] = {"confirmed": options.confirm is not None, "recovered": recovered, "warnings": warnings}
    # A repeated run wants what the interrupted one wanted; an undo after an interrupted restore wants that one undone,
    # and not the one before it.
    again = recovered == "finished" and before["asked"] == options.asked
    taken_back = recovered == "undone" and options.undo and not before["undo"]
    if again or taken_back:
        return {**result, "changed": True, "database": options.target.database, "steps": []}
    try:
        planned = plan(stack, options, cancelled=effects.cancelled, progress=effects.progress)
        warnings += planned.warnings
        result.update(_told(planned))
        if busy:
            result["tidied"] = []  # what looks left over may be that one's own
        if not dry:
            result.update(_apply(stack, planned, effects, warnings))
    except OpsError as exc:
        exc.facts["warnings"] = warnings
        if exc.state is None and "rolled_back" not in exc.facts:
            exc.state = NOTHING_CHANGED
        if exc.state == NOTHING_CHANGED and recovered:
            exc.state = f"An interrupted restore was {recovered} by this run; beyond that nothing was changed"
        raise
    return {"changed": options.confirm is not None, **result}


def recover(stack: Stack, effects: Effects | None = None) -> str | None:
    """Finish or undo an interrupted restore, if there is one.

    Returns:
        "finished", "undone", or None when there was nothing to do.

    Raises:
        OpsError: none was possible; the journal stays.
    """
    return _recovered(stack, effects or effects_of(stack))[0]


def _recovered(stack: Stack, effects: Effects) -> tuple[str | None, dict[str, Any]]:
    """How, and the journal of the interrupted one."""
    journal = journal_of(stack)
    record = journal.load()
    if record is None:
        journal.end()
        return None, {}
    if record["undo"]:
        journal = journal_of(stack, undo=True)
        journal.load()
    exchange = Exchange(stack, journal, effects)
    try:
        how = exchange.recover()
        stack.warnings += exchange.warnings
    except Exception as exc:
        told = exc if isinstance(exc, OpsError) else OpsError(f"{type(exc).__name__}: {exc}")
        raise OpsError(
            f"An interrupted restore of {exchange.target.database} was found and could not be undone: {told.msg}",
            state=_half_done(journal),
            hint=told.hint or _AGAIN,
            facts={**told.facts, "rolled_back": False},
        ) from exc
    operation = "restore_undo" if record["undo"] else "restore"
    stack.recovered.append(Recovered(operation, None, how, began=record.get("began")))
    stack.forget_model()
    return how, dict(record)


def _half_done(journal: Journal) -> str:
    writers = ", ".join(journal.record.get("writers", ())) or "no service"
    return f"The journal {journal.path} has what is needed to finish or undo it; until then stopped may be: {writers}"


def _told(planned: RestorePlan) -> dict[str, Any]:
    """The plan as a result shows it."""
    source, rows = planned.source, planned.rows
    told: dict[str, Any] = {
        "database": planned.database,
        "undo": planned.options.undo,
        "what": planned.what,
        "backup": None,
        "rows": None if rows is None else sum(rows.values()),
        "tables": None if rows is None else len(rows),
        "today": (
            {
                "rows": None if planned.today_rows is None else sum(planned.today_rows.values()),
                "tables": None if planned.today_rows is None else len(planned.today_rows),
                "size_bytes": planned.today.size_bytes,
            }
            if planned.today
            else None
        ),
        "differences": planned.differences(),
        "writers": list(planned.writers),
        "kept": planned.kept,
        "kept_until": utc(planned.until) if planned.kept else None,
        "needed_bytes": planned.needed_bytes,
        "steps": planned.steps(),
        "dropped": list(planned.expired),
        "tidied": list(planned.left),
        "diff": planned.diff(),
    }
    if source:
        backup = source.backup
        told["backup"] = {
            "name": backup.name,
            "path": backup.path,
            "size_bytes": backup.size_bytes,
            "kind": source.kind,
            "time": utc(backup.moment),
            "age_seconds": max(0, round(planned.moment - backup.moment)),
            "manifest": not source.foreign,
            "verified": source.made.verified,
        }
    return told


def _apply(stack: Stack, planned: RestorePlan, effects: Effects, warnings: list[str]) -> dict[str, Any]:
    clock, server, database = stack.clock, planned.server, planned.database
    began = clock.monotonic()
    tidied = remove_leftovers(effects.engine, server.container)
    drop_passfile(effects, server.container)
    drop_work(effects)
    for name in planned.left:
        drop_database(server.admin, name)
    journal = journal_of(stack, undo=planned.options.undo)
    try:
        journal.begin(begin_record(stack, planned))
    except OpsError as exc:
        journal.end()
        raise Refused(f"The restore of {database} was not begun: {exc.msg}", hint=exc.hint) from exc
    exchange = Exchange(stack, journal, effects)
    proved: list[str] = []
    rows: dict[str, int] | None = None
    seconds = None
    try:
        with clock.interrupted_by(lambda: _heed(effects)):
            if planned.source:
                rows, seconds = _load(planned, planned.source, effects, exchange, proved)
            exchange.swap(server)
        exchange.finish()
    except Exception as exc:  # whatever it is, no half of it must stay
        raise _undone(exchange, planned, journal, exc) from exc
    # Not before: whatever goes wrong until here, what is kept stays.
    dropped = drop_those(server.admin, database, planned.expired, planned.moment, warnings)
    # It is done by now: nobody who asks it to end is heard any more.
    patience = Patience(clock, lambda: False, planned.options.timeout)
    kept_rows = None if planned.kept is None else counted(server.admin.within(planned.kept), warnings, patience)
    ended = clock.now()
    found = planned.back_rows if rows is None else rows
    return {
        "changed": True,
        "rows": sum(found.values()),
        "tables": len(found),
        # of the old database as it was at the swap
        "differences": differences(found, kept_rows),
        "steps": exchange.steps,
        "proved": [*proved, *exchange.proved],
        "interruption": exchange.writers.interruption(),
        "restore_seconds": seconds,
        "seconds": round(clock.monotonic() - began, 3),
        "dropped": dropped,
        "tidied": [*planned.left, *tidied],
        "warnings": [*warnings, *exchange.warnings],
        "about": {"backup" if planned.source else "taken_back": planned.what, "kept": planned.kept},
        "samples": _samples(planned, ended, clock.monotonic() - began),
    }


def _samples(planned: RestorePlan, ended: float, seconds: float) -> list[Sample]:
    """An undo is no restore."""
    database = {"database": planned.database}
    both = [Sample(RESTORE_SUCCESS, database, ended), Sample(RESTORE_DURATION, database, seconds)]
    return both if planned.source else []


def _heed(effects: Effects) -> None:
    if effects.cancelled():
        raise Cancelled("The run was asked to end")


def _load(
    planned: RestorePlan,
    source: Source,
    effects: Effects,
    exchange: Exchange,
    proved: list[str],
) -> tuple[dict[str, int], float]:
    """The new database, loaded and compared; nobody knows of it yet. Gives its rows, and how long loading took."""
    options, server = planned.options, planned.server
    exchange.step("create the new database")
    way = create_side(server.admin, planned.database, planned.ident, planned.properties)
    exchange.step("load")
    began = effects.clock.monotonic()
    with work_directory(effects) as pipes:
        try:
            load(
                effects,
                server.container,
                way,
                source.backup,
                source.made,
                port=options.target.port,
                jobs=options.jobs,
                timeout=options.timeout,
                through=source.through,
                pipes=pipes,
            )
        except OpsError as exc:
            role = _NO_ROLE.search(exc.msg)
            if role:
                raise OpsError(exc.msg, hint=f"Create the role first (CREATE ROLE {role[1]};), and run again.") from exc
            raise
    seconds = round(effects.clock.monotonic() - began, 3)
    exchange.step("compare")
    patience = Patience(effects.clock, effects.cancelled, options.timeout)
    rows = compare_restored(planned, source, way, proved, patience)
    exchange.step("analyse")
    # Without statistics its first hours would be slow ones.
    with contextlib.closing(connected(way)) as session:
        attended(session, lambda: session.run(["ANALYZE"]), patience, "ANALYZE")
    dress_side(server.admin, planned.database, planned.ident, planned.properties)
    return rows, seconds


def _undone(exchange: Exchange, planned: RestorePlan, journal: Journal, exc: Exception) -> OpsError:
    """Undo after a failure; the error to raise says how that went."""
    failure = exc if isinstance(exc, OpsError) else OpsError(_words(exc))
    failed_at, stopped = exchange.at, bool(journal.record.get("stopped"))
    verb = "undo" if planned.options.undo else "restore"
    try:
        exchange.undo()
    except Exception as second:
        return OpsError(
            f'The {verb} of {planned.database} failed at "{failed_at}": {failure.msg.rstrip(".")}. '
            f"Undoing it failed, too: {second.msg if isinstance(second, OpsError) else _words(second)}",
            state=_half_done(journal) + _put_aside(exchange, planned),
            hint=(second.hint if isinstance(second, OpsError) else None) or _AGAIN,
            facts={**failure.facts, "rolled_back": False},
        )
    if stopped:
        who = ", ".join(planned.writers)
        state = f"The database {planned.database} is the one from before, and {who} was stopped for a while"
        state += " and runs with it again"
        state += "".join(f". {warning}" for warning in exchange.warnings)
    else:
        state = f"The database {planned.database} was not touched, and no service was stopped"
    if planned.source:
        state += _put_aside(exchange, planned) or "; the new database was dropped"
    return OpsError(
        f'The {verb} of {planned.database} failed at "{failed_at}": {failure.msg}',
        state=state,
        hint=failure.hint or "Mend the cause and run again.",
        facts={
            **failure.facts,
            "rolled_back": True,
            "steps": exchange.steps,
            "interruption": exchange.writers.interruption() if stopped else {},
        },
    )


def _put_aside(exchange: Exchange, planned: RestorePlan) -> str:
    """What has become of a new database that had the name for a while; empty where none had."""
    if exchange.aside is None:
        return ""
    meanwhile = "the new database, with what was written into it meanwhile"
    return f"; {meanwhile}, is kept as {exchange.aside} until {utc(planned.until)}"


def _words(exc: Exception) -> str:
    if isinstance(exc, OSError):
        return f"{exc.strerror or exc}" + (f" ({os.fspath(exc.filename)})" if exc.filename else "")
    return f"Unexpected error {type(exc).__name__}"
