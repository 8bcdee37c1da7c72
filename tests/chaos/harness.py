# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the fault matrices share: cases one after the other, each from a whole stack to a whole stack; the table of how
they went; what a failed one leaves to look into; and the command line."""

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
from typing import Any, Generic, Protocol, TypeVar

from link import ROOT, SANDBOX, Agent, Running, Said, Trouble
from matrix import only, shard

EVIDENCE = ROOT / ".cache/chaos"


class AnyCase(Protocol):
    """What a case of any matrix has."""

    @property
    def fault(self) -> str:
        """What is done to the host."""

    @property
    def standing(self) -> bool:
        """Whether the next run begins with the fault still there."""

    @property
    def next_run(self) -> str:
        """What the next run is: again, or another playbook."""


Kind = TypeVar("Kind", bound=AnyCase)


@dataclass
class Result(Generic[Kind]):
    """How a case went.

    Attributes:
        case: the case.
        faulted: what the run said that met the fault.
        injected: what was done to it.
        following: what the next runs said, and how they were begun.
        wrong: all that was not as it must be.
        more: what this matrix alone has found out.
        seconds: how long it took.
    """

    case: Kind
    faulted: Said | None = None
    injected: str = ""
    following: list[tuple[str, Said]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0


class Harness(Generic[Kind]):
    """Runs cases one after the other.

    Attributes:
        agent_program: what runs on the Droplet.
        columns: of the table, those that say which case it is: head and width.
        widths: of the columns with the faulted run and with the next one.
        faults: each with a sentence for the help.
        lasting: those faults that somebody must mend.
        names: what ``--only`` may name.
        example: of ``--only``.
        proves: what the self-check proves, for the help.
        proved: what it prints.
        look: a script that shows what a failed case has left on the host.
    """

    agent_program: str
    columns: Sequence[tuple[str, int]]
    widths: tuple[int, int]
    faults: Mapping[str, str]
    lasting: Sequence[str]
    names: Sequence[str]
    example: str
    proves: str
    proved: str
    look: str

    def __init__(self, options: argparse.Namespace, cases: Sequence[Kind]) -> None:
        self.options = options
        self.to_come = cases
        self.agent = Agent(self.agent_program)

    # --- what a matrix brings along -----------------------------------------------------------------------------

    @classmethod
    def representative(cls) -> int:
        """How many cases `make test` has."""
        raise NotImplementedError

    @classmethod
    def cases(cls, representative: bool) -> list[Kind]:
        """Every case, or those of `make test`."""
        raise NotImplementedError

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """What else the command line takes."""

    def prepare(self) -> None:
        """Remember the healthy stack; again after a reset."""
        raise NotImplementedError

    def self_check(self) -> None:
        """Show that the final look sees what it is for.

        Raises:
            Trouble: it does not.
        """
        raise NotImplementedError

    def case(self, case: Kind, result: Result[Kind]) -> None:
        """One case; what is wrong goes into the result."""
        raise NotImplementedError

    def begin_next(self, case: Kind, result: Result[Kind]) -> tuple[str, Said]:
        """The next run: how it was begun, and what it said."""
        raise NotImplementedError

    def cells(self, case: Kind) -> Sequence[str]:
        """What stands in ``columns``."""
        raise NotImplementedError

    def short(self, said: Said) -> str:
        """A run in a few words."""
        raise NotImplementedError

    def faulted(self, result: Result[Kind]) -> str:
        """The faulted run in a few words."""
        return self.short(result.faulted) if result.faulted else "-"

    def clear(self) -> None:
        """Take what only these tests need off the Droplet."""
        raise NotImplementedError

    def summary(self, results: Sequence[Result[Kind]]) -> str:
        """What else there is to say at the end."""
        return ""

    # --- a case -------------------------------------------------------------------------------------------------

    def run(self, case: Kind) -> Result[Kind]:
        """One case; whatever happens, the next one finds a whole stack."""
        result = Result(case)
        began = time.monotonic()
        try:
            self.case(case, result)
        except (Trouble, subprocess.SubprocessError, OSError) as exc:
            result.wrong.append(f"{exc}")
        result.seconds = time.monotonic() - began
        if result.wrong:
            self._keep(result)
            self.reset()
            self.agent.close()
            self.agent = Agent(self.agent_program)
            self.prepare()
        return result

    def frozen(self, running: Running, result: Result[Kind]) -> bool:
        """Wait until the run is frozen; False when it was through before.

        Raises:
            Trouble: it ended otherwise.
        """
        deadline = time.monotonic() + 300
        while not self.agent("frozen", seconds=0.5):
            if not running.running() or time.monotonic() > deadline:
                result.faulted = running.wait(0.1)
                found = self.agent("disarm")
                result.injected = f"{found}"
                if result.faulted.code == 0:
                    return False
                raise Trouble(f"it did not come to this step, but to: {', '.join(found['seen']) or 'none'}")
        return True

    def go_on(self, case: Kind, result: Result[Kind]) -> None:
        """The next run, and where it met a fault that lasts and failed, one more after that was mended."""
        if case.standing:
            if self._next(case, result, "unmended").code == 0:
                self.agent("mend", fault=case.fault, limit=300)
                return
            if not result.following[-1][1].clear():
                result.wrong.append("the next run failed without a clear sentence")
        if case.fault in self.lasting:
            self.agent("mend", fault=case.fault, limit=300)
        last = self._next(case, result, "mended" if case.fault in self.lasting else "")
        if last.code != 0:
            result.wrong.append(f"the next run failed: {last.words()}")

    def _next(self, case: Kind, result: Result[Kind], how: str) -> Said:
        what, said = self.begin_next(case, result)
        result.following.append((" ".join(filter(None, (what, how))), said))
        return said

    def _keep(self, result: Result[Kind]) -> None:
        """What a failed case leaves for those who look into it."""
        place = EVIDENCE / str(result.case).replace(", ", "--").replace(" ", "-").replace("(", "").replace(")", "")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        place.joinpath("wrong").write_text("\n".join([result.injected, *result.wrong, str(result.more)]) + "\n")
        runs = [
            ("0-faulted", result.faulted),
            *((f"{n}-{how}", said) for n, (how, said) in enumerate(result.following, 1)),
        ]
        for name, said in runs:
            if said:
                place.joinpath(name.replace(" ", "-")).write_text(said.output)
        with contextlib.suppress(Trouble):
            place.joinpath("host").write_text(self.agent("run", script=self.look))
        print(f"         (outputs are in {place.relative_to(ROOT)})", flush=True)

    def reset(self) -> None:
        """A whole stack again."""
        with contextlib.suppress(Trouble):
            self.agent("heal", limit=300)
        done = subprocess.run([SANDBOX, "reset"], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise SystemExit(f"The sandbox cannot be reset: {done.stderr}")

    def close(self) -> None:
        """Take everything of ours off the Droplet."""
        with contextlib.suppress(Trouble):
            self.agent("heal", limit=300)
            self.clear()
        self.agent.close()

    # --- the table ----------------------------------------------------------------------------------------------

    def head(self) -> str:
        """Its first line."""
        titles = [title for title, _width in self.columns]
        return self._line("case", titles, ("the faulted run", "the next run"), "time", "verdict")

    def row(self, number: str, result: Result[Kind]) -> str:
        """The line of a case."""
        then = " > ".join(f"{how}: {self.short(said)}" for how, said in result.following) or "-"
        verdict = "ok" if not result.wrong else "FAILED: " + "; ".join(result.wrong)
        said = (self.faulted(result), then)
        return self._line(number, self.cells(result.case), said, f"{result.seconds:.0f} s", verdict)

    def _line(self, number: str, cells: Sequence[str], said: Sequence[str], seconds: str, verdict: str) -> str:
        which = "".join(f"{text:{width}}" for text, (_title, width) in zip(cells, self.columns))
        runs = "".join(f"{_cut(text, width - 2):{width}}" for text, width in zip(said, self.widths))
        return f"{number:>7}  {which}{runs}{seconds:>6}  {verdict}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _options(matrix: type[Harness[Any]], description: str | None) -> argparse.Namespace:
    faults = "; ".join(f"{name}: {text}" for name, text in matrix.faults.items())
    parser = argparse.ArgumentParser(description=description, epilog=f"Faults: {faults}.")
    parser.add_argument(
        "--representative", action="store_true", help=f"the {matrix.representative()} cases of `make test`"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CONDITIONS",
        help=f'e.g. "{matrix.example}", each a shell pattern; may be repeated',
    )
    parser.add_argument("--shard", metavar="K/N", help="the K-th of N parts, for N Droplets side by side")
    parser.add_argument("--list", action="store_true", help="show the cases and do nothing")
    matrix.add_arguments(parser)
    parser.add_argument("--no-self-check", action="store_true", help=f"do not prove {matrix.proves} first")
    return parser.parse_args()


def main(matrix: type[Harness[Any]], description: str | None) -> int:
    """A matrix from its command line; gives the exit code."""
    options = _options(matrix, description)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both set the Droplet right before they end
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        cases = only(matrix.cases(options.representative), options.only, matrix.names)
        cases = shard(cases, options.shard) if options.shard else cases
    except (Trouble, ValueError, subprocess.TimeoutExpired) as exc:
        print(f"chaos: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("chaos: interrupted; nothing has been done yet")
        return 130
    if options.list:
        for case in cases:
            print(f"{case}; next: {case.next_run}{', unmended' if case.standing else ''}")
        return 0
    results: list[Result[Any]] = []
    harness = None
    try:
        harness = matrix(options, cases)
        harness.prepare()
        if not options.no_self_check:
            harness.self_check()
            print(f"self-check: {matrix.proved}", flush=True)
        print(harness.head(), flush=True)
        for number, case in enumerate(cases, 1):
            result = harness.run(case)
            print(harness.row(f"{number}/{len(cases)}", result), flush=True)
            results.append(result)
    except Trouble as exc:
        print(f"chaos: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if not harness:
            print("chaos: interrupted; nothing has been done yet")
            return 130
        print("chaos: interrupted; putting the sandbox's stack back to its beginning (half a minute)", flush=True)
        harness.reset()
        return 130
    finally:
        if harness:
            harness.close()
    good = sum(not result.wrong for result in results)
    if summary := harness.summary(results):
        print(summary)
    print(f"{good} of {len(cases)} cases converged ({100 * good / len(cases):.4g} %), {time.monotonic() - began:.0f} s")
    return int(good != len(cases))
