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
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from link import ROOT, SANDBOX, Agent, Playbook, Said, Trouble, module, run
from matrix import FAULTS, LASTING, ROTATIONS, UNDO, Case, full, only, representative, shard

EVIDENCE = ROOT / ".cache/chaos"
KEYS = {"rotate_hmac": "HMAC_SECRET", "rotate_db_password": "TITAN_DB_PASSWORD"}
TRIES = 6
# Where the case of an undo makes the new containers sick.
WITHOUT_RETURN = "replace the env file"
STRANGER = "never-the-password-of-anybody"
ROW = "{:>7}  {:19}{:29}{:11}{:44}{:58}{:>6}  {}"


@dataclass
class Result:
    """How a case went."""

    case: Case
    faulted: Said | None = None
    injected: str = ""
    following: list[tuple[str, Said]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    probed: Mapping[str, Any] | None = None
    alone: str = ""
    seconds: float = 0

    def row(self, number: str) -> str:
        """A line of the table."""
        case = self.case
        said = self.faulted.short() if self.faulted else "-"
        said += f", went on alone: {self.alone}" if self.alone else ""
        then = " > ".join(f"{how}: {run.short()}" for how, run in self.following) or "-"
        verdict = "ok" if not self.wrong else "FAILED: " + "; ".join(self.wrong)
        columns = (case.rotation, case.step, case.fault, _cut(said, 42), _cut(then, 56), f"{self.seconds:.0f} s")
        return ROW.format(number, *columns, verdict)


class Harness:
    """Runs cases one after the other.

    Args:
        health_timeout: seconds that a rotation gives the services.
    """

    def __init__(self, health_timeout: float) -> None:
        self._arguments = ("-e", f"secrets_health_timeout={health_timeout:g}")
        self.agent = Agent()
        self.agent("baseline", limit=300)

    def close(self) -> None:
        """Take everything of ours off the Droplet."""
        with contextlib.suppress(Trouble):
            self.agent("heal", limit=300)
            self.agent("clean")
        self.agent.close()

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

    def run(self, case: Case) -> Result:
        """One case, from a whole stack to a whole stack; whatever happens, the next one finds one."""
        result = Result(case)
        began = time.monotonic()
        try:
            self._case(case, result)
        except (Trouble, subprocess.SubprocessError, OSError) as exc:
            result.wrong.append(f"{exc}")
        result.seconds = time.monotonic() - began
        if result.wrong:
            self._keep(result)
            self.reset()
            self.agent.close()
            self.agent = Agent()
            self.agent("baseline", limit=300)
        return result

    def _case(self, case: Case, result: Result) -> None:
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
        self._go_on(case, result)
        result.wrong += self.verify(case.rotation, others)
        result.probed = agent("prober_stop")
        if result.probed:
            result.wrong += result.probed["violations"]
            if not result.probed["let_in"]:
                result.wrong.append("the prober never got in, so it proves nothing")
        if case.fault == "full":
            agent("own_disk")
            result.wrong += self.verify(case.rotation, others)
        told = agent("history")[len(lines) :]
        if agent("values")[KEYS[case.rotation]] != before and not told:
            result.wrong.append("the secret was changed, and the history does not say so")
        if case.fault == "ssh":  # what it did when nobody heard it any more
            result.alone = told[0].split()[-1] if told else "nothing"

    def _interrupted(self, case: Case, result: Result) -> bool:
        """The run that meets the fault; False when it was through before it could be frozen, which is no harm."""
        journal = f"{ROTATIONS[case.rotation]}.journal"
        self.agent("arm", journal=journal, step=WITHOUT_RETURN if case.step == UNDO else case.step)
        playbook = Playbook(case.rotation, *self._arguments)
        try:
            if case.step == UNDO:
                if not self._frozen(playbook, result):
                    return False
                self.agent("arm_next", fault="exits", journal=journal, step=UNDO)
            if not self._frozen(playbook, result):
                return False
            result.injected = self.agent("inject", fault=case.fault)
            result.faulted = playbook.wait(400)
            return True
        finally:
            playbook.end()

    def _frozen(self, playbook: Playbook, result: Result) -> bool:
        """Wait until it is; False when the run was through before."""
        deadline = time.monotonic() + 300
        while not self.agent("frozen", seconds=0.5):
            if not playbook.running() or time.monotonic() > deadline:
                result.faulted = playbook.wait(0.1)
                seen = self.agent("disarm")["seen"]
                if result.faulted.code == 0:
                    return False
                raise Trouble(f"it did not come to this step, but to: {', '.join(seen) or 'none'}")
        return True

    def _go_on(self, case: Case, result: Result) -> None:
        """The next run, and where it met a fault that lasts and failed, one more after that was mended."""
        if case.step == UNDO:
            self.agent("mend", fault="exits", limit=300)
        if case.standing:
            if self._next(case, result, "unmended").code == 0:
                self.agent("mend", fault=case.fault, limit=300)
                return
            if not result.following[-1][1].clear():
                result.wrong.append("the next run failed without a clear sentence")
        if case.fault in LASTING:
            self.agent("mend", fault=case.fault, limit=300)
        last = self._next(case, result, "mended" if case.fault in LASTING else "")
        if last.code != 0:
            result.wrong.append(f"the next run failed: {last.failure.get('msg') or last.output[-600:]}")

    def _next(self, case: Case, result: Result, how: str) -> Said:
        said = run("recover") if case.recover else run(case.rotation, *self._arguments)
        result.following.append((" ".join(filter(None, ("recover" if case.recover else "again", how))), said))
        return said

    def _keep(self, result: Result) -> None:
        """What a failed case leaves for those who look into it."""
        place = EVIDENCE / str(result.case).replace(", ", "--").replace(" ", "-").replace("(", "").replace(")", "")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        place.joinpath("wrong").write_text("\n".join([result.injected, *result.wrong, str(result.probed)]) + "\n")
        runs = [
            ("0-faulted", result.faulted),
            *((f"{n}-{how}", said) for n, (how, said) in enumerate(result.following, 1)),
        ]
        for name, said in runs:
            if said:
                place.joinpath(name.replace(" ", "-")).write_text(said.output)
        with contextlib.suppress(Trouble):
            script = "docker ps -a; find /opt/titan -newermt '-10 minutes' -ls; tail -n 5 /opt/titan/logs/ops.jsonl"
            place.joinpath("host").write_text(self.agent("run", script=script))
        print(f"         (outputs are in {place.relative_to(ROOT)})", flush=True)

    def reset(self) -> None:
        """A whole stack again."""
        with contextlib.suppress(Trouble):
            self.agent("heal", limit=300)
        done = subprocess.run([SANDBOX, "reset"], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise SystemExit(f"The sandbox cannot be reset: {done.stderr}")


def planned_steps() -> dict[str, list[str]]:
    """The steps of each rotation, as its own check mode predicts them: a new step is covered without a change here."""
    return {playbook: list(module(name, "--check")["steps"]) for playbook, name in ROTATIONS.items()}


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _options() -> argparse.Namespace:
    faults = "; ".join(f"{name}: {text}" for name, text in FAULTS.items())
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"Faults: {faults}.")
    parser.add_argument("--representative", action="store_true", help="the dozen cases of `make test`")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CONDITIONS",
        help='e.g. "rotation=rotate_hmac,step=re*,fault=kill", each a shell pattern; may be repeated',
    )
    parser.add_argument("--shard", metavar="K/N", help="the K-th of N parts, for N Droplets side by side")
    parser.add_argument("--list", action="store_true", help="show the cases and do nothing")
    parser.add_argument(
        "--health-timeout", type=float, default=60, metavar="SECONDS", help="what a rotation gives the services (60)"
    )
    parser.add_argument("--no-self-check", action="store_true", help="do not prove the prober and the final look first")
    return parser.parse_args()


def main() -> int:
    """The matrix."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both set the Droplet right before they end
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        steps = planned_steps()
        cases = only(representative(steps) if options.representative else full(steps), options.only)
        cases = shard(cases, options.shard) if options.shard else cases
    except (Trouble, ValueError, subprocess.TimeoutExpired) as exc:
        print(f"chaos: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("chaos: interrupted; nothing has been done yet")
        return 130
    if options.list:
        for case in cases:
            print(f"{case}; next: {'recover.yml' if case.recover else 'again'}{', unmended' if case.standing else ''}")
        return 0
    try:
        harness = Harness(options.health_timeout)
    except (Trouble, KeyboardInterrupt) as exc:
        print(f"chaos: {exc or 'interrupted; nothing has been done yet'}", file=sys.stderr)
        return 2
    results: list[Result] = []
    try:
        if not options.no_self_check:
            harness.self_check()
            print(
                "self-check: the prober sees a moment without a password, the final look sees what is planted",
                flush=True,
            )
        head = ("rotation", "at the step", "fault", "the faulted run", "the next run", "time", "verdict")
        print(ROW.format("case", *head), flush=True)
        for number, case in enumerate(cases, 1):
            result = harness.run(case)
            print(result.row(f"{number}/{len(cases)}"), flush=True)
            results.append(result)
    except Trouble as exc:
        print(f"chaos: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("chaos: interrupted; putting the sandbox's stack back to its beginning (half a minute)", flush=True)
        harness.reset()
        return 130
    finally:
        harness.close()
    good = sum(not result.wrong for result in results)
    probed = [result.probed for result in results if result.probed]
    if probed:
        let_in, away = (sum(item[name] for item in probed) for name in ("let_in", "away"))
        print(
            f"The prober: {let_in} times let in with a password stored on disk, {away} times the database was away, "
            f"{sum(len(item['violations']) for item in probed)} times no stored password was let in."
        )
    print(f"{good} of {len(cases)} cases converged ({100 * good / len(cases):.4g} %), {time.monotonic() - began:.0f} s")
    return int(good != len(cases))


if __name__ == "__main__":
    sys.exit(main())
