# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet: asks health endpoints every few milliseconds and tells how long each was not answering 200.

Standard library only. Prints READY, runs until its standard input closes and every endpoint answers again (at most two
minutes), then prints one JSON object: per endpoint the longest outage in seconds and the number of requests, and per
JetStream stream how many messages it took.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

ENDPOINTS = {"titan-brain": 3100, "titan-execution": 3002}
STREAMS = {"published": "TITAN_CMD", "accepted": "TITAN_EXECUTION", "rejected": "TITAN_EVT"}
PAUSE = 0.004


def ask(port: int, path: str, timeout: float = 1.0) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Prober(threading.Thread):
    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.stop = port, stop
        self.requests = 0
        self.longest = 0.0
        self.last_good = time.monotonic()
        self.good = False

    def run(self) -> None:
        while not (self.stop.is_set() and self.good):
            began = time.monotonic()
            self.good = ask(self.port, "/health")[0] == 200
            self.requests += 1
            if self.good:
                self.longest = max(self.longest, began - self.last_good)
                self.last_good = time.monotonic()
            time.sleep(PAUSE)


def streams() -> dict[str, tuple[int, int]]:
    """Last sequence number and messages held, by stream."""
    body = json.loads(ask(8222, "/jsz?accounts=true&streams=true", timeout=5)[1])
    return {
        stream["name"]: (stream["state"]["last_seq"], stream["state"]["messages"])
        for account in body.get("account_details", [])
        for stream in account.get("stream_detail", [])
    }


def settled() -> dict[str, int]:
    """Sequence numbers at one moment at which every intent published so far is accounted for."""
    deadline = time.monotonic() + 60
    while True:
        now = streams()
        if now[STREAMS["published"]][1] == 0 or time.monotonic() > deadline:
            return {name: now[stream][0] for name, stream in STREAMS.items()}
        time.sleep(0.001)


def main() -> None:
    before = settled()
    stop = threading.Event()
    probers = {name: Prober(port, stop) for name, port in ENDPOINTS.items()}
    for prober in probers.values():
        prober.start()
    print("READY", flush=True)
    sys.stdin.read()
    # the operation has ended; whatever is still starting belongs to it
    stop.set()
    for prober in probers.values():
        prober.join(timeout=120)
    after = settled()
    outage = {name: round(prober.longest, 3) for name, prober in probers.items()}
    requests = {name: prober.requests for name, prober in probers.items()}
    flow = {name: after[name] - before[name] for name in STREAMS}
    print(json.dumps({"outage": outage, "requests": requests, "flow": flow}))


if __name__ == "__main__":
    main()
