# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""start, stop, restart and recreate do what their check said, to the services meant and to no others.

What has happened is read from ``docker inspect`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from droplet import Droplet, changes
from verbs import happened, said

# In an order in which each has something to do.
VERBS = ("stop", "start", "restart", "recreate")
# Service -> container. Of the second the two differ, as in production; it is called by its container's name.
NAMED = {"titan-brain": "titan-brain", "console": "titan-console"}


def assert_protocol(droplet: Droplet, verb: str, services: dict[str, str], *args: str) -> None:
    """Check, then do, then do again: the check is true, nobody else is touched, and what is done stays done.

    Args:
        verb: the playbook.
        services: those that are meant and their containers.
        args: of the playbook.
    """
    before = droplet.containers()
    check = droplet.playbook(verb, "--check", "--diff", *args)
    assert changes(check) == 1, check.stdout
    assert droplet.containers() == before, f"{verb} --check has changed something"

    done = droplet.playbook(verb, *args)
    after = droplet.containers()
    assert changes(done) == 1, done.stdout
    expected = dict.fromkeys({*before, *after}, "none") | dict.fromkeys(services.values(), verb)
    assert happened(before, after) == expected
    assert said(check) == said(done) == dict.fromkeys(services, verb)
    for service, container in services.items():
        assert re.search(rf"^-{service}: {before[container].status}$", check.stdout, flags=re.MULTILINE), check.stdout
        assert re.search(rf"^\+{service}: {after[container].status}\b", check.stdout, flags=re.MULTILINE), check.stdout
    if verb in ("start", "stop"):  # the others are asked for, and done, each time
        again = droplet.playbook(verb, *args)
        assert changes(again) == 0
        assert said(again) == dict.fromkeys(services, "none")
        assert droplet.containers() == after
    if verb != "stop":
        assert {droplet.inspect(name)["State"]["Health"]["Status"] for name in services.values()} == {"healthy"}


@pytest.fixture
def console(droplet: Droplet) -> Iterator[list[str]]:
    """A service console in a second Compose file, whose container has another name."""
    service = {
        "image": "titan/opsd:1.0.0",
        "container_name": "titan-console",
        "command": ["titan.opsd"],
        "environment": {"OPS_SECRET": "${HMAC_SECRET}"},
        "depends_on": ["titan-opsd"],
        "healthcheck": {"test": ["CMD", "healthcheck", "3200", "/health"], "interval": "1s", "start_period": "30s"},
    }
    with droplet.override("console.yml", {"console": service}) as args:
        yield args
    # Brain was made from both files, too.
    by_hand = "docker compose -f docker-compose.prod.yml up -d --remove-orphans --force-recreate titan-brain"
    droplet.sh(f"cd /opt/titan && {by_hand}")
    droplet.wait_healthy()


def test_each_verb_on_the_whole_stack(droplet: Droplet) -> None:
    services = {name: name for name in droplet.containers()}
    for verb in VERBS:
        began = droplet.sh("date +%s")
        assert_protocol(droplet, verb, services)
        if verb in ("stop", "recreate"):
            # None loses what it depends on before it has ended: brain finishes what it has decided.
            events = "docker events --filter event=die --format '{{.Actor.Attributes.name}}'"
            ended = droplet.sh(f"{events} --since {began} --until $(date +%s)").split()
            assert ended.index("titan-brain") < min(ended.index("titan-nats"), ended.index("titan-postgres"))


def test_each_verb_on_services_by_their_own_and_by_their_containers_name(droplet: Droplet, console: list[str]) -> None:
    created = droplet.playbook("start", *console, "-e", "service=titan-console")
    assert changes(created) == 1
    assert said(created) == {"console": "create"}
    for verb in VERBS:
        assert_protocol(droplet, verb, NAMED, *console, "-e", "service=titan-brain,titan-console")
