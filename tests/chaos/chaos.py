# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix: both rotations, interrupted for real at every boundary of their steps, on the sandbox Droplet.

The module's process is frozen (SIGSTOP) when it has written a step into its journal and before the step acts; then
something is done to the host, and it may go on, if it still lives. After the next run (the same playbook again, or
recover.yml, in turn) env file, database, and every holder must agree, every health endpoint be green, an active halt be
active still, and nothing be left behind but a line in the history. Half of the faults that last are still there when
the next run begins: it may then fail, with a clear sentence, and the run after the fault was mended must succeed.
Prints one row a case; exits with 0 only when every case converged.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import harness
import matrix
from harness import Result
from link import Playbook, Said, Trouble, module, run
from matrix import FAULTS, LASTING, ROTATIONS, UNDO, Case

KEYS = {"rotate_hmac": "HMAC_SECRET", "rotate_db_password": "TITAN_DB_PASSWORD"}
TRIES = 6
# Where the case of an undo makes the new containers sick.
WITHOUT_RETURN = "replace the env file"
STRANGER = "never-the-password-of-anybody"


class Rotations(harness.Harness[Case]):
    """The matrix of both rotations."""

    agent_program = "agent.py"
    columns = (("rotation", 19), ("at the step", 29), ("fault", 11))
    widths = (44, 58)
    faults = FAULTS
    lasting = LASTING
    names = ("rotation", "step", "fault")
    example = "rotation=rotate_hmac,step=re*,fault=kill"
    proves = "the prober and the final look"
    proved = "the prober sees a moment without a password, the final look sees what is planted"
    look = "docker ps -a; find /opt/titan -newermt '-10 minutes' -ls; tail -n 5 /opt/titan/logs/ops.jsonl"

    def __init__(self, options: argparse.Namespace, cases: Sequence[Case]) -> None:
        super().__init__(options, cases)
        self._arguments = ("-e", f"secrets_health_timeout={options.health_timeout:g}")

    @classmethod
    def representative(cls) -> int:
        return len(matrix.REPRESENTATIVE)

    @classmethod
    def cases(cls, representative: bool) -> list[Case]:
        # a new step is covered without a change here
        steps = {playbook: list(module(name, "--check")["steps"]) for playbook, name in ROTATIONS.items()}
        return matrix.representative(steps) if representative else matrix.full(steps)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--health-timeout",
            type=float,
            default=60,
            metavar="SECONDS",
            help="what a rotation gives the services (60)",
        )

    def prepare(self) -> None:
        self.agent("baseline", limit=300)

    def clear(self) -> None:
        self.agent("clean")

    def self_check(self) -> None:
        """Show that the prober and the final look see what they are for.

        Raises:
            Trouble: one of them does not.
        """
        password = self.agent("values")[KEYS["rotate_db_password"]]
        self.agent("prober_start")
        self.agent("sql", statement=f"ALTER ROLE titan PASSWORD '{STRANGER}'")
        time.sleep(1)  # for so long nobody could log in
        self.agent("sql", statement=f"ALTER ROLE titan PASSWORD '{password}'")
        seen = self.agent("prober_stop")
        if not seen["violations"] or not seen["let_in"]:
            raise Trouble(f"the prober did not see that no stored password was let in: {seen}")
        files = "/opt/titan/state/x.journal /opt/titan/compose/..env.prod.titan-new"
        try:
            plant = f"touch {files}; docker create --name odd titan/nats:2 >/dev/null"
            self._sees("rotate_hmac", plant, ("x.journal", ".titan-new", "odd"))
        finally:
            self.agent("run", script=f"rm -f {files}; docker rm -v odd >/dev/null")
        values = self.agent("values")
        self._sees("rotate_hmac", "", ("titan-brain still has the other secret",), [values[KEYS["rotate_db_password"]]])
        try:
            self._sees("rotate_hmac", "docker exec titan-execution rm /app/system.halt", ("the active halt is gone",))
        finally:
            self.agent("halt")
        for rotation, key in KEYS.items():
            file = "/opt/titan/compose/.env.prod"
            plant = f"cp -p {file} /root/chaos-env; sed -i 's/^{key}=.*/{key}={STRANGER}/' {file}"
            try:
                self._sees(rotation, plant, ("another", "refuses"))
            finally:
                self.agent("run", script=f"mv /root/chaos-env {file}")
            if left := self.verify(rotation, [STRANGER]):
                raise Trouble(f"the stack is not as it was before the self-check: {left}")

    def _sees(self, rotation: str, plant: str, words: Sequence[str], others: Sequence[str] = ()) -> None:
        self.agent("run", script=plant)
        seen = " ".join(self.verify(rotation, list(others), seconds=0))
        if missing := [word for word in words if word not in seen]:
            raise Trouble(f"the final look does not see what was planted ({missing}): {seen or 'nothing'}")

    def verify(self, rotation: str, others: list[str], seconds: float = 60) -> list[str]:
        """What is wrong now."""
        found: list[str] = self.agent("verify", rotation=rotation, others=others, seconds=seconds, limit=seconds + 120)
        return found

    def case(self, case: Case, result: Result[Case]) -> None:
        agent = self.agent
        lines = agent("history")
        if case.fault == "full":
            agent("small_disk")
        if case.rotation == "rotate_db_password":
            agent("prober_start")
        tries = 0
        while not self._interrupted(case, result):
            tries += 1
            if tries == TRIES:
                raise Trouble(f"it could not be frozen at this step in {TRIES} runs")
            lines = agent("history")
        before = agent("secrets")[0]
        others = agent("secrets")
        if case.step == UNDO:
            agent("mend", fault="exits", limit=300)
        self.go_on(case, result)
        result.wrong += self.verify(case.rotation, others)
        probed = result.more["probed"] = agent("prober_stop")
        if probed:
            result.wrong += probed["violations"]
            if not probed["let_in"]:
                result.wrong.append("the prober never got in, so it proves nothing")
        if case.fault == "full":
            agent("own_disk")
            result.wrong += self.verify(case.rotation, others)
        told = agent("history")[len(lines) :]
        if agent("values")[KEYS[case.rotation]] != before and not told:
            result.wrong.append("the secret was changed, and the history does not say so")
        if case.fault == "ssh":  # what it did when nobody heard it any more
            result.more["alone"] = told[0].split()[-1] if told else "nothing"

    def _interrupted(self, case: Case, result: Result[Case]) -> bool:
        """The run that meets the fault; False when it was through before it could be frozen, which is no harm."""
        journal = f"{ROTATIONS[case.rotation]}.journal"
        self.agent("arm", journal=journal, step=WITHOUT_RETURN if case.step == UNDO else case.step)
        playbook = Playbook(case.rotation, *self._arguments)
        try:
            if case.step == UNDO:
                if not self.frozen(playbook, result):
                    return False
                self.agent("arm_next", fault="exits", journal=journal, step=UNDO)
            if not self.frozen(playbook, result):
                return False
            result.injected = self.agent("inject", fault=case.fault)
            result.faulted = playbook.wait(400)
            return True
        finally:
            playbook.end()

    def begin_next(self, case: Case, result: Result[Case]) -> tuple[str, Said]:
        if case.recover:
            return "recover", run("recover")
        return "again", run(case.rotation, *self._arguments)

    def cells(self, case: Case) -> Sequence[str]:
        return (case.rotation, case.step, case.fault)

    def short(self, said: Said) -> str:
        return said.short()

    def faulted(self, result: Result[Case]) -> str:
        alone = result.more.get("alone")
        return super().faulted(result) + (f", went on alone: {alone}" if alone else "")

    def summary(self, results: Sequence[Result[Case]]) -> str:
        probed: list[dict[str, Any]] = [result.more["probed"] for result in results if result.more.get("probed")]
        if not probed:
            return ""
        let_in, away = (sum(item[name] for item in probed) for name in ("let_in", "away"))
        return (
            f"The prober: {let_in} times let in with a password stored on disk, {away} times the database was away, "
            f"{sum(len(item['violations']) for item in probed)} times no stored password was let in."
        )


if __name__ == "__main__":
    sys.exit(harness.main(Rotations, __doc__))
