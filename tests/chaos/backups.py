# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix of backups and restores, for real on the sandbox Droplet.

A backup is frozen (SIGSTOP) at each boundary that can be seen from outside (a file made, its first bytes, its name), a
restore at each step of its journal; then something is done to the host, and it may go on, if it still lives. Others get
a damaged file, or company. At once what it said must be true, and no file under a final name be less than whole. After
the next run (again, or recover.yml, in turn) the database in use is untouched or fully the restored one, everything is
healthy, and nothing is left behind. Prints one row a case; exits with 0 only when every case converged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from backup_matrix import BEFORE, FAULTS, HARMLESS, HARMS, LASTING, OVERLAPS, Case, full, representative
from link import ROOT, SANDBOX, Agent, Playbook, Said, Trouble, module, run
from matrix import only, shard
from truth import untrue

EVIDENCE = ROOT / ".cache/chaos"
JOURNAL = "db_restore.journal"
TRIES = 20
FORMATS = {
    "plain": ("plain", "none"),
    "gzip": ("plain", "gzip"),
    "custom": ("custom", "none"),
    "directory": ("directory", "gzip"),
}
PLAYBOOKS = {"backup": "backup", "restore": "restore", "undo": "restore"}
# With these a new nightly backup lets the one before go.
KEEP = {"backup_keep_daily": 0, "backup_keep_weekly": 0, "backup_keep_monthly": 0}
ROW = "{:>7}  {:9}{:11}{:24}{:16}{:48}{:40}{:>6}  {}"


@dataclass
class Result:
    """How a case went."""

    case: Case
    faulted: Said | None = None
    injected: str = ""
    following: list[tuple[str, Said]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0

    def row(self, number: str) -> str:
        """A line of the table."""
        case = self.case
        said = short(self.faulted) if self.faulted else "-"
        then = " > ".join(f"{how}: {short(run)}" for how, run in self.following) or "-"
        verdict = "ok" if not self.wrong else "FAILED: " + "; ".join(self.wrong)
        columns = (case.operation, case.form, case.step, case.fault, _cut(said, 46), _cut(then, 38))
        return ROW.format(number, *columns, f"{self.seconds:.0f} s", verdict)


class Harness:
    """Runs cases one after the other.

    Args:
        forms: of the backups that they restore.
    """

    def __init__(self, forms: set[str]) -> None:
        self._forms = {"plain", *forms}
        self.agent = Agent("backup_agent.py")
        self._there: list[str] = self.agent("baseline", limit=300)["files"]
        self.seeds: dict[str, str] = {}
        self._seed()

    def _seed(self) -> None:
        """One backup of each form to restore, and one that the next nightly lets go."""
        self.seeds = {form: self._made(form, f"chaos_{form}") for form in sorted(self._forms)}
        self._made("plain", None)

    def _made(self, form: str, label: str | None) -> str:
        said = run("backup", *self._arguments("backup", form), *(["-e", f"label={label}"] if label else []))
        names = [item["name"] for item in said.results if "sha256" in item]
        if said.code != 0 or not names:
            raise Trouble(f"no backup to begin with: {said.output[-800:]}")
        return str(names[0])

    def close(self) -> None:
        """Take everything of ours off the Droplet."""
        with contextlib.suppress(Trouble):
            self.agent("heal", limit=300)
            self.agent("clear", files=self._there)
        self.agent.close()

    def _arguments(self, operation: str, form: str, lock_timeout: float | None = None) -> list[str]:
        """Of the playbook."""
        variables: dict[str, Any] = {"backup_health_timeout": 60}
        if operation == "backup":
            kind, compression = FORMATS[form]
            variables.update(KEEP, backup_format=kind, backup_compression=compression)
        elif operation == "restore":
            variables.update(backup=self.seeds[form], confirm="titan_brain")
        elif operation == "undo":
            variables.update(undo=True, confirm="titan_brain")
        if lock_timeout is not None:
            variables["titan_stack"] = {"lock_timeout": lock_timeout}
        return ["-e", json.dumps(variables)]

    # --- the proof that it can see ------------------------------------------------------------------------------

    def self_check(self) -> None:
        """Show that the final look sees what it is for.

        Raises:
            Trouble: it does not.
        """
        self.agent("begin")
        place, seed = "/opt/titan/backups/db", self.seeds["plain"]
        psql = "docker exec titan-postgres psql -q -U titan -d titan_brain -c"
        side = "titan_brain__restore_20200101000000"
        made = json.dumps(f'"name": "{seed}"')[1:-1]
        plants = {
            "planted.sql is not what its manifest says": (
                f"head -c 100000 {place}/{seed} >{place}/planted.sql;"
                f' sed \'s/{made}/\\"name\\": \\"planted.sql\\"/\' {place}/{seed}.manifest.json'
                f" >{place}/planted.sql.manifest.json",
                f"rm {place}/planted.sql*",
            ),
            "nothing.sql has no manifest": (f"touch {place}/nothing.sql", f"rm {place}/nothing.sql"),
            "hidden files: ['.x.sql.partial']": (f"touch {place}/.x.sql.partial", f"rm {place}/.x.sql.partial"),
            f"databases left: ['{side}']": (f"{psql} 'CREATE DATABASE {side}'", f"{psql} 'DROP DATABASE {side}'"),
            "sidecar containers": (
                "docker create --name odd --label titan.ops.sidecar=x titan/nats:2 >/dev/null",
                "docker rm -v odd >/dev/null",
            ),
            "volumes: ['odd'] too many": ("docker volume create odd >/dev/null", "docker volume rm odd >/dev/null"),
            "left in memory: ['/run/titan-ops/pgpass-x']": (
                "mkdir -p -m 700 /run/titan-ops; touch /run/titan-ops/pgpass-x",
                "rm /run/titan-ops/pgpass-x",
            ),
            "public.alerts has": (
                f"{psql} \"INSERT INTO alerts (severity, message) VALUES ('info', 'planted')\"",
                f"{psql} \"DELETE FROM alerts WHERE message = 'planted'\"",
            ),
            "titan-opsd is exited": ("docker stop -t 1 titan-opsd >/dev/null", "docker start titan-opsd >/dev/null"),
        }
        for words, (plant, away) in plants.items():
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
            self.agent = Agent("backup_agent.py")
            self.agent("baseline", limit=300)
            self._seed()
        return result

    def _case(self, case: Case, result: Result) -> None:
        agent = self.agent
        if case.fault == "full":
            agent("small_disk")
        before = self._begin(case)
        if case.step == BEFORE:
            agent("harm", name=self.seeds[case.form], harm=case.fault)
            before = agent("look")
            result.faulted = run(PLAYBOOKS[case.operation], *self._arguments(case.operation, case.form))
        else:
            tries = 0
            while not self._interrupted(case, result):
                tries += 1
                if tries == TRIES:
                    raise Trouble(f"it could not be frozen at this step in {TRIES} runs: {result.injected}")
                agent("drop_kept")
                before = self._begin(case)
        self._judge(case, result, before)
        swapped = self._go_on(case, result)
        restored = case.operation == "restore" or case.fault.startswith("restore")
        backup = self.seeds[case.form] if restored else None
        result.wrong += self._check(backup, swapped)
        if case.fault == "full":
            agent("own_disk")
            result.wrong += self._check(backup, swapped)
        agent("drop_kept")

    def _begin(self, case: Case) -> dict[str, Any]:
        """What is there right before the run; for an undo there must be something to undo."""
        if case.operation == "undo":
            said = run("restore", *self._arguments("restore", case.form))
            if said.code != 0:
                raise Trouble(f"no restore to undo: {said.output[-800:]}")
        self.agent("begin")
        before: dict[str, Any] = self.agent("look")
        return before

    def _judge(self, case: Case, result: Result, before: dict[str, Any]) -> None:
        """What it said, and what lies there, right after it."""
        assert result.faulted is not None
        said, now = result.faulted, self.agent("look")
        if case.step != BEFORE:
            result.wrong += now["not_whole"]
        if said.failure:
            result.wrong += untrue(said.failure, before, now, stirred=case.fault == "daemon")
        # By content, too: what the retention takes gives its name back.
        new = now["files"].items() - before["files"].items()
        if said.code == 0 and case.operation == "backup" and not new:
            result.wrong.append("it ended well, and there is no new backup")
        if case.fault in (*HARMLESS, *OVERLAPS) and said.code != 0:
            result.wrong.append(f"it failed: {said.failure.get('msg') or said.output[-600:]}")
        if case.fault in HARMS and case.fault not in HARMLESS and said.code == 0:
            result.wrong.append("it took the damaged backup")
        if said.code != 0 and case.fault != "kill" and not said.clear():
            result.wrong.append(f"it failed without a clear sentence: {said.output[-600:]}")

    def _interrupted(self, case: Case, result: Result) -> bool:
        """The run that meets the fault; False when it was through before it could be frozen, which is no harm."""
        self.agent("arm", journal=JOURNAL, step=case.step)
        playbook = Playbook(PLAYBOOKS[case.operation], *self._arguments(case.operation, case.form))
        try:
            if not self._frozen(playbook, result):
                return False
            if case.fault in OVERLAPS:
                self._meanwhile(case, playbook, result)
            else:
                result.injected = self.agent("inject", fault=case.fault)
                result.faulted = playbook.wait(400)
            return True
        finally:
            playbook.end()

    def _meanwhile(self, case: Case, first: Playbook, result: Result) -> None:
        """Another one while it is frozen."""
        operation, _dash, how = case.fault.partition("-")
        patience = 0.5 if how == "refused" else 300
        second = Playbook(operation, *self._arguments(operation, case.form, patience))
        try:
            if how == "refused":
                said = second.wait(120)
                state = str(said.failure.get("state"))
                if said.code == 0 or "The host lock" not in str(said.failure.get("reason")) or not said.clear():
                    result.wrong.append(f"the other one was not refused: {said.output[-600:]}")
                elif "othing was changed" not in state:
                    result.wrong.append(f"the other one does not say that nothing was changed: {state}")
            else:
                self.agent("waiting", seconds=60)
            result.injected = self.agent("inject", fault="nothing")
            result.faulted = first.wait(400)
            if how == "waits":
                said = second.wait(400)
            result.following.append((f"{operation} meanwhile", said))
            if how == "waits" and said.code != 0:
                result.wrong.append(f"the other one failed: {said.failure.get('msg') or said.output[-600:]}")
        finally:
            second.end()

    def _frozen(self, playbook: Playbook, result: Result) -> bool:
        """Wait until it is; False when the run was through before."""
        deadline = time.monotonic() + 300
        while not self.agent("frozen", seconds=0.5):
            if not playbook.running() or time.monotonic() > deadline:
                result.faulted = playbook.wait(0.1)
                found = self.agent("disarm")
                result.injected = f"{found}"
                if result.faulted.code == 0:
                    return False
                raise Trouble(f"it did not come to this step, but to: {found}")
        return True

    def _go_on(self, case: Case, result: Result) -> bool | None:
        """The next run, and where it met a fault that lasts and failed, one more after that was mended.

        Returns:
            Whether the restored database must be in place by now; None where either will do.
        """
        if case.step == BEFORE:
            self.agent("mend_file", name=self.seeds[case.form])
        if case.standing:
            if self._next(case, result, "unmended").code == 0:
                self.agent("mend", fault=case.fault, limit=300)
                return self._swapped(case, result)
            if not result.following[-1][1].clear():
                result.wrong.append("the next run failed without a clear sentence")
        if case.fault in LASTING:
            self.agent("mend", fault=case.fault, limit=300)
        last = self._next(case, result, "mended" if case.fault in LASTING else "")
        if last.code != 0:
            result.wrong.append(f"the next run failed: {last.failure.get('msg') or last.output[-600:]}")
        return self._swapped(case, result)

    def _swapped(self, case: Case, result: Result) -> bool | None:
        if case.operation == "backup":
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

    def _next(self, case: Case, result: Result, how: str) -> Said:
        # An undo of an undo would be a restore.
        done = case.operation == "undo" and result.faulted is not None and result.faulted.code == 0
        recover = case.recover or done
        arguments = self._arguments(case.operation, case.form)
        said = run("recover") if recover else run(PLAYBOOKS[case.operation], *arguments)
        result.following.append((" ".join(filter(None, ("recover" if recover else "again", how))), said))
        return said

    def _keep(self, result: Result) -> None:
        """What a failed case leaves for those who look into it."""
        place = EVIDENCE / str(result.case).replace(", ", "--").replace(" ", "-").replace("(", "").replace(")", "")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        place.joinpath("wrong").write_text("\n".join([result.injected, *result.wrong]) + "\n")
        runs = [
            ("0-faulted", result.faulted),
            *((f"{n}-{how}", said) for n, (how, said) in enumerate(result.following, 1)),
        ]
        for name, said in runs:
            if said:
                place.joinpath(name.replace(" ", "-")).write_text(said.output)
        with contextlib.suppress(Trouble):
            script = "docker ps -a; ls -la /opt/titan/backups/db /opt/titan/state; tail -n 5 /opt/titan/logs/ops.jsonl"
            place.joinpath("host").write_text(self.agent("run", script=script))
        print(f"         (outputs are in {place.relative_to(ROOT)})", flush=True)

    def reset(self) -> None:
        """A whole stack again."""
        with contextlib.suppress(Trouble):
            self.agent("heal", limit=300)
        done = subprocess.run([SANDBOX, "reset"], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise SystemExit(f"The sandbox cannot be reset: {done.stderr}")
        self._there = []


def recovered(said: Said) -> list[str]:
    """What recover.yml has done with an interrupted restore."""
    found = [item["recovered"] for item in said.results if isinstance(item.get("recovered"), dict)]
    return [how for item in found for how in item.values()]


def short(said: Said) -> str:
    """A run in a few words."""
    failure = said.failure
    if said.code == 0:
        for item in said.results:
            if isinstance(item.get("recovered"), dict):
                return ", ".join(recovered(said)) or "nothing to do"
            if "confirmed" in item:
                first = f"{item['recovered']}, " if item.get("recovered") else ""
                return first + ("restored" if item.get("steps") else "nothing more")
            if "sha256" in item:
                return "made"
        return "ended well"
    if not failure:
        return "ended without a word"
    reason = str(failure["reason"]).replace("/opt/titan/backups/db/", "")
    if failure.get("rolled_back") is not None:
        _verb, _at, at = reason.partition("failed at ")
        return f"{'undone' if failure['rolled_back'] else 'not undone yet'}: {at or reason}"
    return reason


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _options() -> argparse.Namespace:
    told = {**FAULTS, **HARMS, **OVERLAPS}
    faults = "; ".join(f"{name}: {text}" for name, text in told.items())
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"Faults: {faults}.")
    parser.add_argument("--representative", action="store_true", help="the half dozen cases of `make test`")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CONDITIONS",
        help='e.g. "operation=restore,form=plain,step=l*,fault=kill", each a shell pattern; may be repeated',
    )
    parser.add_argument("--shard", metavar="K/N", help="the K-th of N parts, for N Droplets side by side")
    parser.add_argument("--list", action="store_true", help="show the cases and do nothing")
    parser.add_argument("--no-self-check", action="store_true", help="do not prove the final look first")
    return parser.parse_args()


def _cases(options: argparse.Namespace) -> list[Case]:
    """Those that were asked for."""
    steps = planned_steps()
    cases = only(
        representative(steps) if options.representative else full(steps),
        options.only,
        ("operation", "form", "step", "fault"),
    )
    return shard(cases, options.shard) if options.shard else cases


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


def main() -> int:
    """The matrix."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both set the Droplet right before they end
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        cases = _cases(options)
    except (Trouble, ValueError, subprocess.TimeoutExpired) as exc:
        print(f"chaos: {exc}", file=sys.stderr)
        return 2
    if options.list:
        for case in cases:
            print(f"{case}; next: {'recover.yml' if case.recover else 'again'}{', unmended' if case.standing else ''}")
        return 0
    results: list[Result] = []
    harness = None
    try:
        harness = Harness({case.form for case in cases})
        if not options.no_self_check:
            harness.self_check()
            print("self-check: the final look sees what is planted", flush=True)
        head = ("operation", "of", "at", "fault", "the faulted run", "the next run", "time", "verdict")
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
        if harness:
            harness.reset()
        return 130
    finally:
        if harness:
            harness.close()
    good = sum(not result.wrong for result in results)
    print(f"{good} of {len(cases)} cases converged ({100 * good / len(cases):.4g} %), {time.monotonic() - began:.0f} s")
    return int(good != len(cases))


if __name__ == "__main__":
    sys.exit(main())
