# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No byte of the HMAC secret anywhere but in the env file, the journal while it lives, and the holders.

That the scan finds what leaks is shown with the database password's (test_db_leaks.py).
"""

from __future__ import annotations

from droplet import Droplet
from leaks import Watch, forms, in_text, talkative

HOLDERS = ("titan-brain", "titan-execution", "titan-ai-quant", "titan-opsd")
# A scan that has looked at all of it has seen these words there.
WITNESSES = {
    "Invoked with": "journald",
    "COMMAND=": "syslog",
    "docker-compose": "cmdline",
    "SUDO_USER=deploy": "environ",
    '"Action":"create"': "docker events",
    "pg_advisory_xact_lock": "log of titan-postgres",
    "titan-brain is ready": "log of titan-brain",
    "stopping: finishing": "log of titan-brain",
    "com.docker.compose.service": "docker inspect",
}


def test_a_rotation_leaks_nothing_whoever_listens(droplet: Droplet) -> None:
    old = droplet.secret()
    with talkative(droplet), Watch(droplet, HOLDERS, WITNESSES) as watch:
        done = droplet.playbook("rotate_hmac", "-vvvv", "--diff")
        new = droplet.secret()
        wanted = {**forms("old", old), **forms("new", new)}
        seen = watch.seen(wanted)
    assert done.returncode == 0, done.stdout
    assert new != old
    assert not seen.found
    assert not in_text(done.stdout + done.stderr, wanted)
    # it has looked at everything, all the time
    assert seen.witnessed == sorted(WITNESSES) and not seen.unread
    print(f"{seen.turns} looks at all processes; searched: {seen.sizes}")
