# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill: a backup is a file that was restored."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..compose.container import Container
from ..compose.project import StackOptions, members
from ..compose.sidecar import remove_leftovers
from ..core.clock import parse_timestamp
from ..core.errors import NOTHING_CHANGED, Damaged, InvalidInput, Mistaken, OpsError, Refused
from ..core.metrics import BACKUP_VERIFIED, Sample
from . import catalog, manifest
from .catalog import Backup
from .compare import compare
from .load import load
from .manifest import Manifest
from .options import Database
from .patience import Patience
from .report import told_of_future
from .retention import is_ahead
from .scratch import drop_leftovers, leftovers, refuse_without_space, scratch_database, scratch_name
from .session import Way, database_facts, find_way, locate_server
from .source import Source
from .tools import Effects, drop_passfile
from .work import work_directory

__all__ = ["VerifyPlan", "apply", "plan", "refuse_damaged"]

_NEWEST = "latest"
_AGAIN = "Mend the cause and run again."


@dataclass(frozen=True)
class VerifyPlan:
    """What a drill would do.

    Attributes:
        target: the database.
        backup: what would be restored.
        made: its manifest.
        container: the server's container.
        way: how to log in.
        name: of the scratch database.
        left: scratch databases that killed drills have left.
        warnings: what the operator should know.
    """

    target: Database
    backup: Backup
    made: Manifest
    container: Container
    way: Way
    name: str
    left: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def plan(
    stack: StackOptions, target: Database, directory: str, name: str | None, effects: Effects, *, space_margin: float
) -> VerifyPlan:
    """Find the backup and the server; changes nothing.

    Raises:
        InvalidInput: there is no such backup, or nothing that it could be compared with (Mistaken: it was not made
            here).
        OpsError: the database cannot be reached.
    """
    effects.progress.phase("looking at the database and its backups")
    backup, warnings = _chosen(directory, name, target.database, effects.clock.now())
    made = backup.manifest
    if made is None:
        # A file that was not made here is not to be drilled: whoever named it was wrong, and no backup is bad.
        kind = Mistaken if backup.state == catalog.UNKNOWN else Refused
        raise kind(f"{backup.name} cannot be verified: {backup.trouble}", hint="Name another backup.")
    container = locate_server(members(stack, effects.engine.project_containers()), target.service)
    way = find_way(container, target, stack)
    if way.password is not None:
        effects.redact.add(way.password)
    left = leftovers(way)
    needed = round(database_facts(way).size_bytes * space_margin)
    refuse_without_space(way, container, needed, left, tablespace=made.properties.get("tablespace"))
    return VerifyPlan(target, backup, made, container, way, scratch_name(target.database), tuple(left), tuple(warnings))


def _chosen(directory: str, name: str | None, database: str, now: float) -> tuple[Backup, list[str]]:
    """The one that was named, else the newest good one that is not dated in the future; with what to warn of."""
    there = catalog.listed(directory)
    good = [
        item for item in there if item.state == catalog.GOOD and item.manifest and item.manifest.database == database
    ]
    if name not in (None, _NEWEST):
        found = next((item for item in there if item.name == catalog.called(directory, str(name))), None)
        if found is None:
            known = ", ".join(item.name for item in good[:3]) or "none"
            raise Mistaken(f"There is no backup {name!r} in {directory}", hint=f"The newest good ones there: {known}.")
        return found, []
    if not good:
        raise InvalidInput(f"There is no good backup of {database} in {directory}", hint="Make one with backup.yml.")
    # Else one run under a wrong clock would be the newest for years, and no other be proved meanwhile.
    return next((item for item in good if not is_ahead(item.moment, now)), good[0]), told_of_future(good, now)


def refuse_damaged(planned: VerifyPlan) -> None:
    """Refuse a backup whose size tells that it is not whole, as the drill does; one that a drill proved bad it tries.

    Raises:
        Damaged: it is not.
    """
    backup = planned.backup
    if backup.state != catalog.GOOD and not backup.proved_bad:
        raise Damaged(f"{backup.name} is damaged: {backup.trouble}", state=NOTHING_CHANGED, hint=_distrust(planned))


def _distrust(planned: VerifyPlan) -> str:
    """What to do about a backup that is proved bad."""
    one = planned.backup
    older: list[str] = []
    with contextlib.suppress(OpsError):
        older = [
            item.name
            for item in catalog.listed(os.path.dirname(one.path))
            if (item.moment, item.name) < (one.moment, one.name)
            and item.state == catalog.GOOD
            and item.manifest is not None
            and item.manifest.database == planned.made.database
        ]
    then = f", and verify the next older one, {older[0]}" if older else "; there is no older good one"
    return f"Do not rely on this backup: make a new one{then}."


def apply(planned: VerifyPlan, effects: Effects, *, jobs: int, timeout: float) -> dict[str, Any]:
    """Restore, compare, drop, and mark the manifest; gives what a result says of it.

    Raises:
        OpsError: the backup is not what its manifest says, and is then marked as damaged, or cannot be restored.
    """
    made, target = planned.made, planned.target
    try:
        refuse_damaged(planned)
    except Damaged as exc:
        exc.state = f"Nothing was restored.{_unmarked(planned)}"
        raise
    warnings = list(planned.warnings)
    tidied = [*drop_leftovers(planned.way, warnings), *remove_leftovers(effects.engine, planned.container)]
    tidied += catalog.clean(planned.backup.path.rpartition("/")[0])
    drop_passfile(effects, planned.container)
    ticks = effects.clock.monotonic()
    try:
        with scratch_database(planned.way, planned.name, made.properties, warnings) as way:
            with work_directory(effects) as pipes:
                load(
                    effects,
                    planned.container,
                    way,
                    planned.backup,
                    made,
                    port=target.port,
                    jobs=jobs,
                    timeout=timeout,
                    through=lambda chunks: _guarded(planned, chunks),
                    pipes=pipes,
                )
            seconds = round(effects.clock.monotonic() - ticks, 3)
            effects.progress.phase("comparing the rows of every table")
            compare(way, made, Patience(effects.clock, effects.cancelled, timeout))
    except (OpsError, OSError) as exc:
        raise _failed(planned, effects, exc, warnings) from exc
    moment = effects.clock.utc()
    try:
        manifest.write(planned.backup.path, replace(made, verified=moment, damaged=None))
    except OpsError as exc:
        told = f"{made.name} restores, as its manifest says, but that cannot be noted there: {exc.msg}"
        raise _failed(planned, effects, OpsError(told, hint=exc.hint, facts=exc.facts), warnings) from exc
    return {
        "restore_seconds": seconds,
        "rows": sum(made.rows.values()),
        "tables": len(made.rows),
        "verified": moment,
        "tidied": tidied,
        "warnings": warnings,
        "about": {"backup": planned.backup.name},
        "samples": [Sample(BACKUP_VERIFIED, {"database": made.database}, parse_timestamp(moment) or 0.0)],
    }


def _guarded(planned: VerifyPlan, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The dump as a restore has psql read it."""
    try:
        yield from Source.of(planned.backup, planned.made).through(chunks)
    except InvalidInput as exc:  # a restore refuses it, too
        raise Damaged(exc.msg) from exc


def _failed(planned: VerifyPlan, effects: Effects, exc: OpsError | OSError, warnings: list[str]) -> OpsError:
    """What to say; a backup that is proved bad is marked as that."""
    state = _state(planned)
    if isinstance(exc, OSError):
        return OpsError(f"{planned.backup.name} could not be restored: {exc.strerror or exc}", state=state, hint=_AGAIN)
    facts = {**exc.facts, "warnings": warnings} if warnings else exc.facts
    if isinstance(exc, Damaged):
        return Damaged(
            exc.msg, state=state + _unmarked(planned, effects.clock.utc()), hint=_distrust(planned), facts=facts
        )
    return OpsError(exc.msg, state=state, hint=exc.hint or _AGAIN, facts=facts)


def _unmarked(planned: VerifyPlan, damaged: str | None = None) -> str:
    """Have the backup count as verified no more, for the retention would keep it as the one to rely on; says so.

    Args:
        planned: the drill.
        damaged: when it proved the backup bad, which from then on counts as a good one no more: its size tells nobody.
    """
    made = planned.made
    marked = replace(made, verified=None, damaged=made.damaged or damaged)
    if marked == made:
        return ""
    try:
        manifest.write(planned.backup.path, marked)
    except OpsError as exc:
        calls = "still calls it verified" if made.verified else "does not call it damaged"
        return f" The manifest of the backup {calls}: {exc.msg}."
    said = " The backup does not count as verified any more." if made.verified else ""
    return f"{said} It counts as damaged until a drill restores it." if damaged else said


def _state(planned: VerifyPlan) -> str:
    """What a drill that failed has left."""
    try:
        left = planned.name in leftovers(planned.way)
    except OpsError:
        left = True  # as far as anybody can tell while the server is gone
    rest = (
        f"; the next drill drops the scratch database {planned.name}" if left else ", and the scratch one was dropped"
    )
    return f"The database {planned.target.database} itself was not touched{rest}."
