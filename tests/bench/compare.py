# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways of doing the same on the sandbox, in turn under the same prober, and their medians side by side."""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
from collections.abc import Mapping
from typing import Any, Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVICES = ("titan-brain", "titan-execution")

Result = dict[str, Any]


def on_droplet(*argv: str) -> list[str]:
    return [str(ROOT / "molecule/sandbox/sandbox"), "ssh", "--", *argv]


def by_hand(script: str) -> Callable[[], None]:
    """The runbook's commands on the host itself, as root."""

    def operation() -> None:
        done = subprocess.run(
            on_droplet("sudo", "bash", "-s"), input=script, text=True, check=False, capture_output=True
        )
        if done.returncode != 0:
            raise SystemExit(f"the runbook's commands failed:\n{done.stdout}{done.stderr}")

    return operation


def by_playbook(name: str) -> Callable[[], None]:
    def operation() -> None:
        done = subprocess.run(
            ["ansible-playbook", "-i", "inventories/sandbox", f"playbooks/{name}.yml"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{name}.yml failed:\n{done.stdout}{done.stderr}")

    return operation


def measure(operation: Callable[[], None]) -> Result:
    """One run under the prober."""
    code = (ROOT / "tests/bench/prober.py").read_bytes()
    subprocess.run(on_droplet("cat > /tmp/titan-prober.py"), input=code, check=True)
    prober = subprocess.Popen(
        on_droplet("python3", "/tmp/titan-prober.py"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert prober.stdin is not None and prober.stdout is not None
    if prober.stdout.readline().strip() != "READY":
        raise SystemExit("the prober did not start on the Droplet; is the sandbox up (make sandbox)?")
    try:
        operation()
    finally:
        prober.stdin.close()
        answer = prober.stdout.read()
        prober.wait()
    result: Result = json.loads(answer)
    return result


def runs(description: str | None) -> int:
    """How many of each, from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-n", "--runs", type=int, default=3, help="runs of each, in turn (default: 3)")
    number: int = parser.parse_args().runs
    return number


def compare(ways: Mapping[str, Callable[[], None]], number: int) -> dict[str, list[Result]]:
    """Each way so many times, in turn, one line of a table each."""
    results: dict[str, list[Result]] = {name: [] for name in ways}
    print(
        f"{'way':10}{'brain out':>11}{'execution out':>15}{'published':>11}{'accepted':>10}{'rejected':>10}{'lost':>6}"
    )
    for _run in range(number):
        for name, operation in ways.items():
            result = measure(operation)
            results[name].append(result)
            out, flow = result["outage"], result["flow"]
            lost = flow["published"] - flow["accepted"] - flow["rejected"]
            print(
                f"{name:10}{out['titan-brain']:>9.2f} s{out['titan-execution']:>13.2f} s"
                f"{flow['published']:>11}{flow['accepted']:>10}{flow['rejected']:>10}{lost:>6}",
                flush=True,
            )
    return results


def median(results: list[Result], service: str) -> float:
    """How long a service did not answer, in seconds."""
    return float(statistics.median(item["outage"][service] for item in results))


def within(results: Mapping[str, list[Result]], service: str, limit: float) -> bool:
    """Whether the playbook interrupts a service for at most so many times the runbook's commands (medians); says it."""
    medians = {name: median(found, service) for name, found in results.items()}
    ratio = medians["playbook"] / medians["runbook"]
    print(
        f"{service}: playbook {medians['playbook']:.2f} s, runbook {medians['runbook']:.2f} s (medians), "
        f"ratio {ratio:.2f}, limit {limit}: {'ok' if ratio <= limit else 'TOO LONG'}"
    )
    return ratio <= limit


def none_lost(results: Mapping[str, list[Result]]) -> bool:
    """Whether execution accepted every intent published while the playbook ran; says it."""
    wrong = sum(item["flow"]["published"] - item["flow"]["accepted"] for item in results["playbook"])
    print(f"intents that the playbook lost or had rejected: {int(wrong)}")
    return bool(wrong == 0)
