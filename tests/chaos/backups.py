# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix of backups, drills and restores, for real on the sandbox Droplet.

A backup or a drill is frozen (SIGSTOP) at each boundary that can be seen from outside (a file made, its first bytes,
its name; a database made), a restore at each step of its journal; then something is done to the host, and it may go
on, if it still lives. Others get a damaged file, or company. At once what it said must be true, and no file under a
final name be less than whole. After the next run (again, or recover.yml, in turn) the database in use is untouched or
fully the restored one, everything is healthy, and nothing is left behind. Backups and drills are run by the playbooks
and by backup_db.sh. Prints one row a case; exits with 0 only when every case converged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import backup_matrix as matrix
import harness
from backup_matrix import BACKUPS, BEFORE, DRILLS, FAULTS, HARMS, LASTING, OVERLAPS, Case
from backup_plants import plants
from backup_runs import PATIENCE, SCRIPTS, TOLD, Runs, recovered, short
from harness import Result
from link import SANDBOX, Running, Said, Trouble, module, run
from truth import untrue, untrue_mark

JOURNAL = "db_restore.journal"
TRIES = 20
# backup_db.sh's exit code when the host's lock is held.
BUSY = 75
# What the manifest of a backup that is to be drilled has said before.
OLD_MARK = "2020-01-01T00:00:00Z"


class Backups(harness.Harness[Case]):
    """The matrix of backups, drills and restores."""

    agent_program = "backup_agent.py"
    columns = (("operation", 14), ("of", 11), ("at", 24), ("fault", 16))
    widths = (48, 40)
    faults = MappingProxyType({**FAULTS, **HARMS, **OVERLAPS})
    lasting = LASTING
    names = ("operation", "form", "step", "fault")
    example = "operation=restore,form=plain,step=l*,fault=kill"
    proves = "the final look"
    proved = "the final look sees what is planted"
    look = "docker ps -a; ls -la /opt/titan/backups/db /opt/titan/state; tail -n 5 /opt/titan/logs/ops.jsonl"

    def __init__(self, options: argparse.Namespace, cases: Sequence[Case]) -> None:
        super().__init__(options, cases)
        self._forms = {"plain", *(case.form for case in cases)}
        parts = {part for case in cases for part in (case.operation, case.fault.rpartition("-")[0])}
        self._scripted = not parts.isdisjoint(SCRIPTS)
        # What there was before, which nothing here touches; None until that is known.
        self._there: list[str] | None = None
        self.runs = Runs(self.agent)

    @classmethod
    def representative(cls) -> int:
        return len(matrix.REPRESENTATIVE)

    @classmethod
    def cases(cls, representative: bool) -> list[Case]:
        steps = planned_steps()
        return matrix.representative(steps) if representative else matrix.full(steps)

    def prepare(self) -> None:
        self.runs = Runs(self.agent)
        if self._scripted:
            self.runs.install()
        there = self.agent("baseline", limit=300)["files"]
        if self._there is None:
            self._there = there
        self.runs.seed(self._forms)

    def reset(self) -> None:
        super().reset()
        self._there = []

    def clear(self) -> None:
        if self._there is not None:
            self.agent("clear", files=self._there)
        self.agent("own_schedule")

    # --- the proof that it can see ------------------------------------------------------------------------------

    def self_check(self) -> None:
        self.agent("begin")
        for words, (plant, away) in plants(self.runs.seeds["plain"]).items():
            try:
                self.agent("run", script=plant)
                seen = "; ".join(self._check(None, None, seconds=0))
            finally:
                self.agent("run", script=away)
            if words not in seen:
                raise Trouble(f'the final look does not see "{words}": {seen or "nothing"}')
        if left := self._check(None, False):
            raise Trouble(f"the stack is not as it was before the self-check: {left}")

    def _check(self, backup: str | None, swapped: bool | None, seconds: float = 90) -> list[str]:
        arguments = {"backup": backup, "swapped": swapped, "seconds": seconds}
        found: list[str] = self.agent("check", limit=seconds + 120, **arguments)
        return found

    # --- a case -------------------------------------------------------------------------------------------------

    def case(self, case: Case, result: Result[Case]) -> None:
        agent = self.agent
        if case.fault == "full":
            agent("small_disk")
        before = self._begin(case)
        if case.step == BEFORE:
            agent("harm", name=self.runs.seeds[case.form], harm=case.fault)
            before = agent("look")
            result.faulted = self.runs.run(case.operation, case.form)
        else:
            tries = 0
            while not self._interrupted(case, result):
                tries += 1
                if tries == TRIES:
                    raise Trouble(f"it could not be frozen at this step in {TRIES} runs: {result.injected}")
                agent("drop_kept")
                before = self._begin(case)
        self._judge(case, result, before)
        if case.step == BEFORE:
            agent("mend_file", name=self.runs.seeds[case.form])
        self.go_on(case, result)
        swapped = self._swapped(case, result)
        restored = case.operation == "restore" or case.fault.startswith("restore")
        backup = self.runs.seeds[case.form] if restored else None
        result.wrong += self._check(backup, swapped)
        if case.operation in DRILLS and not case.then:
            result.wrong += untrue_mark(case, 0, OLD_MARK, agent("look")["marks"].get(self.runs.seeds[case.form]))
        if case.fault == "full":
            agent("own_disk")
            result.wrong += self._check(backup, swapped)
        agent("drop_kept")

    def _begin(self, case: Case) -> dict[str, Any]:
        """What is there right before the run; an undo needs something to undo, a drill a mark that it may lose."""
        if case.operation == "undo":
            said = self.runs.run("restore", case.form)
            if said.code != 0:
                raise Trouble(f"no restore to undo: {said.output[-800:]}")
        if case.operation in DRILLS:
            self.agent("mark", name=self.runs.seeds[case.form], moment=OLD_MARK)
        self.agent("begin")
        before: dict[str, Any] = self.agent("look")
        return before

    def _judge(self, case: Case, result: Result[Case], before: dict[str, Any]) -> None:
        """What it said, and what lies there, right after it."""
        assert result.faulted is not None
        said, now = result.faulted, self.agent("look")
        if case.step != BEFORE:
            result.wrong += now["not_whole"]
        if said.failure:
            result.wrong += untrue(said.failure, before, now, stirred=case.fault == "daemon")
        # By content, too: what the retention takes gives its name back.
        new = now["files"].items() - before["files"].items()
        if said.code == 0 and case.operation in BACKUPS and not new:
            result.wrong.append("it ended well, and there is no new backup")
        seed = self.runs.seeds[case.form]
        if case.operation in DRILLS and case.fault != "missing":
            result.wrong += untrue_mark(case, said.code, OLD_MARK, now["marks"].get(seed))
        if case.harmless and said.code != 0:
            result.wrong.append(f"it failed: {said.words()}")
        if case.fault in HARMS and not case.harmless and said.code == 0:
            result.wrong.append("it took the damaged backup")
        if said.code != 0 and case.fault != "kill" and not said.clear():
            result.wrong.append(f"it failed without a clear sentence: {said.output[-600:]}")
        told = f"{TOLD.get(case.operation)} {'ok' if said.code == 0 else 'failed'}"
        if case.operation in TOLD and case.fault != "kill" and told not in now["history"][len(before["history"]) :]:
            result.wrong.append(f"the history does not say: {told}")

    def _interrupted(self, case: Case, result: Result[Case]) -> bool:
        """The run that meets the fault; False when it was through before it could be frozen, which is no harm."""
        self.agent("arm", journal=JOURNAL, step=case.step)
        running = self.runs.begin(case.operation, case.form)
        try:
            if not self.frozen(running, result):
                return False
            if case.fault in OVERLAPS:
                self._meanwhile(case, running, result)
            else:
                result.injected = self.agent("inject", fault=case.fault)
                result.faulted = running.wait(400)
            return True
        finally:
            running.end()

    def _meanwhile(self, case: Case, first: Running, result: Result[Case]) -> None:
        """Another one while it is frozen."""
        operation, _dash, how = case.fault.rpartition("-")
        second = self.runs.begin(operation, case.form, 0.5 if how == "refused" else PATIENCE)
        try:
            if how == "refused":
                said = second.wait(120)
                result.wrong += refusal(operation, said)
            else:
                self.agent("waiting", seconds=60)
            result.injected = self.agent("inject", fault="nothing")
            result.faulted = first.wait(400)
            if how == "waits":
                said = second.wait(400)
            result.following.append((f"{operation} meanwhile", said))
            if how == "waits" and said.code != 0:
                result.wrong.append(f"the other one failed: {said.words()}")
        finally:
            second.end()

    def _swapped(self, case: Case, result: Result[Case]) -> bool | None:
        """Whether the restored database must be in place by now; None where either will do."""
        if case.operation in (*BACKUPS, *DRILLS):
            return case.fault == "restore-waits"
        if not case.recover:
            return True
        how = [how for _name, said in result.following for how in recovered(said)]
        if how:
            return how[-1] == "finished"
        said = result.faulted
        if said is None or (said.code != 0 and not said.failure):
            return None  # it was killed, and nothing was left to recover: at its beginning or at its end
        return said.code == 0

    def begin_next(self, case: Case, result: Result[Case]) -> tuple[str, Said]:
        # An undo of an undo would be a restore.
        done = case.operation == "undo" and result.faulted is not None and result.faulted.code == 0
        if case.recover or done:
            return "recover", run("recover")
        return case.then or "again", self.runs.run(case.then or case.operation, case.form)

    def cells(self, case: Case) -> Sequence[str]:
        return (case.operation, case.form, case.step, case.fault)

    def short(self, said: Said) -> str:
        return short(said)


def refusal(operation: str, said: Said) -> list[str]:
    """What is wrong with how an operation was refused that found the host's lock held."""
    state = str(said.failure.get("state"))
    if said.code == 0 or "The host lock" not in str(said.failure.get("reason")) or not said.clear():
        return [f"the other one was not refused: {said.output[-600:]}"]
    if "othing was changed" not in state:
        return [f"the other one does not say that nothing was changed: {state}"]
    if operation in SCRIPTS and said.code != BUSY:
        return [f"the other one ended with {said.code}, not {BUSY}"]
    return []


def planned_steps() -> list[str]:
    """The steps of a restore, as its own check mode predicts them: a new step is covered without a change here."""
    path = module("db_backup", "-a", json.dumps({"label": "chaos_steps"}))[
        "backup"
    ]  # a plan wants something to restore
    try:
        return list(module("db_restore", "--check", "-a", json.dumps({"backup": path}))["steps"])
    finally:
        # not by the module, which never removes the only good one
        subprocess.run([SANDBOX, "ssh", "--", f"sudo rm {path} {path}.manifest.json"], check=True, timeout=60)


if __name__ == "__main__":
    sys.exit(harness.main(Backups, __doc__))
