# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HMAC rotation by playbook against the runbook's own commands, side by side on the sandbox.

Measured by a prober on the Droplet that asks both health endpoints every few milliseconds, and by JetStream's own
counts of published, accepted and rejected intents. Exits 1 when the playbook loses an intent or has one rejected, or
interrupts longer than 1.3 times the runbook's command (medians).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 1.3
# Runbook 3.2, word for word, with the editor replaced by sed.
BY_HAND = r"""
set -e
cd /opt/titan
new=$(openssl rand -hex 32)
sed -i "s/^HMAC_SECRET=.*/HMAC_SECRET=$new/" compose/.env.prod
docker compose -f docker-compose.prod.yml up -d --force-recreate titan-brain titan-execution
"""


def on_droplet(*argv: str) -> list[str]:
    return [str(ROOT / "molecule/sandbox/sandbox"), "ssh", "--", *argv]


def by_hand() -> None:
    # the runbook's commands on the host itself, as root
    subprocess.run(on_droplet("sudo", "bash", "-s"), input=BY_HAND, text=True, check=True, capture_output=True)


def by_playbook() -> None:
    done = subprocess.run(
        ["ansible-playbook", "-i", "inventories/sandbox", "playbooks/rotate_hmac.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"rotate_hmac.yml failed:\n{done.stdout}{done.stderr}")


def measure(operation: Callable[[], None]) -> dict[str, dict[str, float]]:
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
    return json.loads(answer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--runs", type=int, default=3, help="runs of each, in turn (default: 3)")
    runs = parser.parse_args().runs
    ways = {"runbook": by_hand, "playbook": by_playbook}
    results: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in ways}
    print(
        f"{'way':10}{'brain out':>11}{'execution out':>15}{'published':>11}{'accepted':>10}{'rejected':>10}{'lost':>6}"
    )
    for _run in range(runs):
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
    failed = False
    for service in ("titan-brain", "titan-execution"):
        medians = {name: statistics.median(item["outage"][service] for item in results[name]) for name in ways}
        ratio = medians["playbook"] / medians["runbook"]
        verdict = "ok" if ratio <= LIMIT else "TOO LONG"
        failed |= ratio > LIMIT
        print(
            f"{service}: playbook {medians['playbook']:.2f} s, runbook {medians['runbook']:.2f} s (medians), "
            f"ratio {ratio:.2f}, limit {LIMIT}: {verdict}"
        )
    wrong = sum(item["flow"]["published"] - item["flow"]["accepted"] for item in results["playbook"])
    print(f"intents that the playbook lost or had rejected: {int(wrong)}")
    return int(failed or wrong != 0)


if __name__ == "__main__":
    sys.exit(main())
