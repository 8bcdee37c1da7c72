# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet as root: a shell script from standard input; how long it took, and how big our process became.

Standard library only. Prints one JSON object: seconds, and the most memory in megabytes that the process held which
took the host's lock meanwhile (VmHWM, proc_pid_status(5)); null where nobody took it. Exits as the script does.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time

LOCK = "/opt/titan/state/deploy.lock"


def highest(over: threading.Event, seen: list[int]) -> None:
    """Look at whoever holds the lock, fifty times a second."""
    while not over.wait(0.02):
        # Nobody holds it, or has just gone.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(LOCK, encoding="utf-8") as stream:
                pid = json.load(stream)["pid"]
            with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
                found = re.search(r"VmHWM:\s+(\d+) kB", stream.read())
            if found:
                seen.append(int(found[1]))


def main() -> int:
    script = sys.stdin.read()
    over, seen = threading.Event(), list[int]()
    watch = threading.Thread(target=highest, args=(over, seen))
    watch.start()
    began = time.monotonic()
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], stdout=sys.stderr, check=False)
    seconds = time.monotonic() - began
    over.set()
    watch.join()
    print(json.dumps({"seconds": seconds, "megabytes": max(seen) / 1e3 if seen else None}))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
