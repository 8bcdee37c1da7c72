# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of a restore that can be interrupted: what is true now, forward to the end, or back to where it began.

All that it must know is in its journal, so that a later run can do the same. Whether the names were swapped is never
noted: the server itself tells, by the oid of the database that has the real name. Names can be changed by hand; an oid
stays with its database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..compose.sidecar import remove_leftovers
from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import OpsError
from ..core.journal import Journal
from ..database.psql import quote_literal
from ..health.probe import Probe
from .options import Database
from .restore_plan import RestorePlan
from .scratch import connected
from .server import Server, awake
from .siblings import RESTORE, drop_side, failed_name, kept_mark, own_comment
from .swap import swap
from .tools import Effects, drop_passfile
from .work import drop_work
from .writers import Writers

__all__ = ["JOURNAL", "Exchange", "begin_record", "journal_of"]

JOURNAL = RESTORE


def journal_of(stack: Stack, *, undo: bool = False) -> Journal:
    """The journal of a restore, or of its undo: one of both is under way at a time."""
    return Journal(stack.options.state_path, JOURNAL, "restore_undo" if undo else "restore")


def begin_record(stack: Stack, planned: RestorePlan) -> dict[str, Any]:
    """The journal of a restore that begins."""
    options, database = planned.options, planned.database
    own = own_comment(str(planned.today.properties.get("comment") or "")) if planned.today else ""
    back = planned.back
    what = f"{planned.what} (an undo)" if options.undo else planned.what
    mark = kept_mark(database, planned.ident, what, planned.until, own)
    new = own_comment(back.comment if back else str(planned.properties.get("comment") or ""))
    if back:
        aside = kept_mark(database, back.id, back.what, back.until, back.comment, failed=back.failed)
    else:
        aside = kept_mark(database, planned.ident, what, planned.until, new, failed=True)
    return {
        "utc": stack.clock.utc(),
        "began": stack.began,
        "project": stack.name,
        "asked": options.asked,
        "what": planned.what,
        "ident": planned.ident,
        "undo": options.undo,
        "target": asdict(options.target),
        "there": planned.today is not None,
        "incoming": planned.incoming,
        "kept": planned.kept,
        # what the new one is called when the names were swapped back
        "aside": back.name if back else failed_name(database, planned.ident),
        # comments: of the database in use and of the other one, when swapped and when swapped back
        "new_comment": new,
        "kept_comment": mark,
        "own_comment": own,
        "aside_comment": aside,
        "writers": list(planned.writers),
        "well": list(planned.well),
        "stopped": False,
        "probes": [asdict(probe) for probe in planned.probes],
        "swapping": False,
        "health_timeout": options.health_timeout,
        "stop_timeout": options.stop_timeout,
    }


# What is shown while a step is under way; the journal and the results have the steps' own names.
_SHOWN = {
    "create the new database": "creating the new database",
    "load": "restoring",
    "compare": "comparing the rows of every table",
    "analyse": "analysing the new database",
    "stop the writers": "stopping the writers",
    "swap the names": "swapping the names",
    "start the writers": "starting the writers",
    "prove": "waiting until all is well",
    "undo": "putting everything back",
}


class Exchange:
    """Two databases and the writers: swapped and proved, or as they were.

    Args:
        stack: the stack.
        journal: with the record of ``begin_record``.
        effects: what it acts through.

    Attributes:
        steps: what was done, in order.
        proved: what was proved.
        warnings: what the operator should know.
        aside: what the database that a failed restore has made is called now; None where it was dropped.
    """

    def __init__(self, stack: Stack, journal: Journal, effects: Effects) -> None:
        record: Mapping[str, Any] = journal.record
        self._stack = stack
        self._journal = journal
        self._effects = effects
        self.target = Database(**record["target"])
        stack.known_as(record["project"])
        self.steps: list[str] = []
        self.proved: list[str] = []
        self.warnings: list[str] = []
        self.aside: str | None = None
        self.writers = Writers(
            stack,
            record["writers"],
            record["well"],
            [Probe.from_params(entry) for entry in record["probes"]],
            timeout=record["health_timeout"],
            stop_timeout=record["stop_timeout"],
        )

    @property
    def _record(self) -> dict[str, Any]:
        return self._journal.record

    @property
    def at(self) -> str:
        """The step that is under way."""
        return str(self._record.get("step", "begin"))

    def step(self, name: str, **changes: Any) -> None:
        """A step begins: on the disk before it does.

        Raises:
            Cancelled: the run was asked to end.
            OpsError: the journal cannot be written.
        """
        self._stack.clock.heed()
        self._journal.note(step=name, **changes)
        self._begun(name)

    def swap(self, server: Server) -> None:
        """From the stop of the writers to the new names."""
        record, database = self._record, self.target.database
        if self.writers.services:
            self.step("stop the writers", stopped=True)
            self.writers.stop()
        oids = self._oids(server)
        self.step("swap the names", swapping=True, new=oids.get(record["incoming"]), old=oids.get(database))
        names = {record["incoming"]: database}
        comments = {database: record["new_comment"]}
        if record["there"]:
            names = {database: record["kept"], **names}
            comments[record["kept"]] = record["kept_comment"]
        swap(server.admin, names, comments)

    def finish(self, *, late: bool = False) -> None:
        """From the new names to the proof; the journal ends.

        Args:
            late: a later run does it: who is not well then is told. Nobody knows what was written since, so that the
                new database stays.

        Raises:
            OpsError: the proof failed.
        """
        if self._record["stopped"]:
            self._note("start the writers")
            self.writers.start()
        self._note("prove")
        server = awake(self._stack, self.target, timeout=self._record["health_timeout"])
        if not self.swapped(server):
            raise OpsError(f"The database {self.target.database} is not the new one")
        if self._record["stopped"]:
            proved, warnings = self.writers.prove(demand=not late)
            self.proved += proved
            self.warnings += warnings
            if late and warnings and self._record["there"]:
                self.warnings.append(
                    f"Should {self.target.database} as it is now be the cause: "
                    f"restore.yml -e undo=true -e confirm={self.target.database} takes the database from before back"
                )
        self._journal.conclude("finished", ended=self._stack.clock.now())

    def swapped(self, server: Server) -> bool:
        """Whether the names are the new ones, by the server's own word.

        Raises:
            OpsError: it does not answer, or the database is neither the one nor the other.
        """
        record, database = self._record, self.target.database
        if not record["swapping"]:
            return False
        oid = self._oids(server).get(database)
        if oid is not None and oid == record["new"]:
            return True
        if oid == record["old"] or not record["there"]:
            return False
        which = f"({record['kept']} or {record['incoming']})"
        if oid is None:
            raise OpsError(
                f"The server has no database {database}: somebody has renamed or dropped it since",
                hint=f"Rename the right one {which} to {database} by hand.",
            )
        raise OpsError(
            f"The database {database} is neither the one from before nor the new one: somebody has replaced it since",
            hint=f"Rename the right one {which} to {database} by hand, and run recover.yml. If this is the right one, "
            f"move the journal {self._journal.path} away, and start what is stopped.",
        )

    def _oids(self, server: Server) -> dict[str, str]:
        """The oid of the database and of the one that takes its name, by name, as far as they are there."""
        wanted = ", ".join(quote_literal(str(name)) for name in (self.target.database, self._record["incoming"]))
        with contextlib.closing(connected(server.admin)) as session:
            rows = session.run([f"SELECT datname, oid FROM pg_catalog.pg_database WHERE datname IN ({wanted})"])
        return {row[0]: row[1] for row in rows}

    def undo(self) -> None:
        """Everything as it was before, by what is true now; the journal ends. May be repeated.

        A new database that had the name for a while stays, under another one: nobody knows what was written into it.

        Raises:
            OpsError: it is not, and the journal stays.
        """
        stack, record = self._stack, self._record
        self._note("undo")
        self._await_docker()
        server = awake(stack, self.target, timeout=record["health_timeout"])
        remove_leftovers(stack.engine, server.container)
        drop_passfile(self._effects, server.container)
        drop_work(self._effects)
        database = self.target.database
        if self.swapped(server):
            self.writers.stop()
            names = {database: record["aside"]}
            comments = {record["aside"]: record["aside_comment"]}
            if record["there"]:
                names[record["kept"]] = database
                comments[database] = record["own_comment"]
            swap(server.admin, names, comments)
            self.aside = None if record["undo"] else record["aside"]
        if record["stopped"]:
            self.writers.start()
        if not record["undo"]:
            drop_side(server.admin, database, record["ident"])
        if record["stopped"]:
            self.warnings += self.writers.prove(demand=False)[1]
        self._journal.conclude("undone", ended=self._stack.clock.now())

    def recover(self) -> str:
        """What an interrupted run has left: finished where the names are the new ones, else undone.

        Returns:
            "finished" or "undone".

        Raises:
            OpsError: none was possible; the journal stays.
        """
        self._await_docker()
        server = awake(self._stack, self.target, timeout=self._record["health_timeout"])
        if self.swapped(server):
            self.finish(late=True)
            return "finished"
        self.undo()
        return "undone"

    def _note(self, name: str) -> None:
        """A step that nothing may hold up any more, a full disk neither; no decision depends on it."""
        with contextlib.suppress(OpsError):
            self._journal.note(step=name)
        self._begun(name)

    def _begun(self, name: str) -> None:
        self.steps.append(name)
        self._effects.progress.phase(_SHOWN.get(name, name))

    def _await_docker(self) -> None:
        clock, engine = self._stack.clock, self._stack.engine
        timeout = self._record["health_timeout"]
        if wait_for(lambda: engine.answers() or None, timeout=timeout, clock=clock, interval=0.2) is None:
            raise OpsError(
                f"The Docker Engine did not come back within {timeout:g} seconds",
                hint="Start it (systemctl start docker), and run recover.yml.",
            )
