# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the Droplet: does a password that is stored on disk open the database at every instant?

Prints READY, then reads the env file and the journal again and again and tries every password found there over the
container's own address, until its standard input closes; then prints one JSON object. A database that does not accept
connections is no violation; both are counted.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time

import psycopg2

ENV_FILE = "/opt/titan/compose/.env.prod"
JOURNAL = "/opt/titan/state/pg_password.journal"
KEY = "TITAN_DB_PASSWORD"
DATABASE = "titan-postgres"
PAUSE = 0.02
# So often the same passwords must all be refused in turn: in between, a run may have changed role and disk.
ROUNDS = 3


def stored() -> list[str]:
    """Every password on disk: the env file's, the journal's old and new one."""
    found = []
    try:
        with open(ENV_FILE, encoding="utf-8") as stream:
            found += [line.split("=", 1)[1].rstrip("\r\n") for line in stream if line.startswith(f"{KEY}=")]
    except OSError:
        pass
    try:
        with open(JOURNAL, encoding="utf-8") as stream:
            record = json.load(stream)
        found += [record["old"], record["new"]]
    except (OSError, ValueError):
        pass
    return list(dict.fromkeys(found))


class Address:
    """The container's address, asked for again when nobody answers there."""

    def __init__(self) -> None:
        self.value = ""
        self.asked = 0.0

    def get(self) -> str:
        if not self.value and time.monotonic() - self.asked > 0.2:
            self.asked = time.monotonic()
            template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
            argv = ["docker", "inspect", "-f", template, DATABASE]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            self.value = (done.stdout.split() or [""])[0]
        return self.value


def login(address: str, password: str) -> str:
    """in, refused, or away."""
    try:
        psycopg2.connect(
            host=address, port=5432, user="titan", dbname="titan_brain", password=password, connect_timeout=2,
            passfile="/dev/null", application_name="titan-chaos",
        ).close()  # fmt: skip
    except psycopg2.OperationalError as exc:
        return "refused" if "password authentication failed" in str(exc) else "away"
    return "in"


def round_of(address: str, passwords: list[str]) -> str:
    """in as soon as one is let in, away as soon as nobody answers, else refused."""
    for password in passwords:
        said = login(address, password)
        if said != "refused":
            return said
    return "refused"


def main() -> None:
    address = Address()
    counts = {"in": 0, "away": 0}
    violations: list[str] = []
    refused = 0
    before: list[str] = []
    print("READY", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        passwords = stored()
        said = round_of(address.get(), passwords) if address.get() else "away"
        if said == "refused":
            # counts only where the same were refused before: else the disk was read before a change and asked after it
            refused = refused + 1 if passwords == before else 1
            if refused == ROUNDS:
                violations.append(f"{time.strftime('%H:%M:%S')}: none of {len(passwords)} stored passwords is let in")
        else:
            refused = 0
            counts[said] += 1
            if said == "away":
                address.value = ""
        before = passwords
    print(json.dumps({"let_in": counts["in"], "away": counts["away"], "violations": violations}))


if __name__ == "__main__":
    main()
