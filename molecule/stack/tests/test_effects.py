# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the verbs bring about beyond which containers change: the environment, scope, waiting, stopping, failing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from droplet import Droplet, changes, words
from verbs import happened, said

BRAIN = ("-e", "service=titan-brain")
LAB = ("-e", "service=lab")


def lab(script: str, **settings: object) -> dict[str, object]:
    """A service that runs a shell script."""
    return {"image": "titan/opsd:1.0.0", "entrypoint": ["sh", "-c", script.replace("$", "$$")], **settings}


@pytest.fixture
def healthy(droplet: Droplet) -> Iterator[None]:
    """After the test the stack is as the files say, by hand, and healthy; what the test added is gone."""
    yield
    droplet.sh("cd /opt/titan && docker compose -f docker-compose.prod.yml up -d --remove-orphans")
    droplet.wait_healthy()


def test_a_recreate_reads_a_changed_env_file_and_a_restart_says_that_it_does_not(
    droplet: Droplet, healthy: None
) -> None:
    before = droplet.containers()
    with droplet.edited("s/^LOG_LEVEL=.*/LOG_LEVEL=debug/; s/^SEED_ROWS=.*/&0/"):
        restart = droplet.playbook("restart", *BRAIN)
        assert changes(restart) == 1
        assert "titan-brain: its configuration or environment changed" in words(restart)
        assert "only a recreate applies the new" in words(restart)
        assert droplet.environment("titan-brain")["LOG_LEVEL"] == "info"

        # PostgreSQL differs now, too, and brain depends on it: it stays as it is unless asked for.
        recreate = droplet.playbook("recreate", *BRAIN)
        assert changes(recreate) == 1
        assert droplet.environment("titan-brain")["LOG_LEVEL"] == "debug"
        after = droplet.containers()
        assert {name for name, verb in happened(before, after).items() if verb != "none"} == {"titan-brain"}

        check = droplet.playbook("recreate", *BRAIN, "-e", "stack_dependencies=true", "--check")
        assert said(check) == {"titan-brain": "recreate", "titan-nats": "none", "titan-postgres": "recreate"}
        # A start replaces what differs, and leaves alone what has been replaced already.
        check = droplet.playbook("start", "--check")
        start = droplet.playbook("start")
        assert changes(check) == changes(start) == 1
        differ = {"titan-postgres", "titan-execution", "titan-ai-quant"}
        expected = {name: "recreate" if name in differ else "none" for name in after}
        assert said(check) == said(start) == happened(after, droplet.containers()) == expected


def test_a_start_replaces_nothing_that_was_recreated_by_hand_without_its_dependencies(droplet: Droplet) -> None:
    """The runbook's own command; Compose labels such a container differently, and would replace it again."""
    command = "docker compose -f docker-compose.prod.yml up -d --force-recreate --no-deps"
    droplet.sh(f"cd /opt/titan && {command} titan-execution")
    droplet.wait_healthy()
    before = droplet.containers()
    start = droplet.playbook("start")
    assert changes(start) == 0, start.stdout
    assert droplet.containers() == before
    # Neither a stopped one: its trading state is in it.
    droplet.sh("docker stop titan-execution")
    args = ("-e", "service=titan-execution")
    check = droplet.playbook("start", "--check", *args)
    start = droplet.playbook("start", *args)
    assert said(check) == said(start) == {"titan-execution": "start"}
    assert droplet.containers()["titan-execution"].id == before["titan-execution"].id


def test_an_unknown_service_is_refused_before_anything_changes(droplet: Droplet, unchanged: None) -> None:
    for verb, args in (("stop", []), ("restart", ["--check"])):
        done = droplet.playbook(verb, *args, "-e", "service=titan-brain,titan-brian")
        assert done.returncode == 2
        assert "no service or container named titan-brian" in words(done)
        assert "It has: titan-ai-quant, titan-brain, " in words(done)
        assert "Nothing was changed" in words(done)


def test_it_waits_until_the_service_is_healthy_and_no_longer_than_it_may(droplet: Droplet, healthy: None) -> None:
    slow = {"titan-brain": {"environment": {"STARTUP_SECONDS": "4"}}}
    with droplet.override("slow.yml", slow) as args:
        began = time.monotonic()
        assert changes(droplet.playbook("recreate", *args, *BRAIN)) == 1
        assert time.monotonic() - began > 4
        assert droplet.inspect("titan-brain")["State"]["Health"]["Status"] == "healthy"
        assert droplet.sh("curl -sS http://127.0.0.1:3100/health") == '{"status": "healthy"}'

        assert changes(droplet.playbook("restart", *args, *BRAIN, "-e", "stack_wait=false")) == 1
        assert droplet.inspect("titan-brain")["State"]["Health"]["Status"] == "starting"

        began = time.monotonic()
        late = droplet.playbook("restart", *args, *BRAIN, "-e", "stack_timeout=1")
        assert late.returncode == 2
        assert "The service titan-brain is running, its health check says starting after 1 seconds" in words(late)
        assert "titan-brain is running" in words(late).split("after 1 seconds")[1]


def test_a_stop_takes_the_grace_that_the_service_declares_else_thirty_seconds(droplet: Droplet, healthy: None) -> None:
    services = {
        # does not end by itself
        "stubborn": lab("trap '' TERM; while :; do sleep 0.1; done", stop_grace_period="2s", container_name="stubborn"),
        # ends by itself, but later than Docker's own grace of ten seconds
        "lab": lab("trap 'sleep 11; exit 0' TERM; while :; do sleep 0.1; done", container_name="lab"),
    }
    with droplet.override("lab.yml", services) as args:
        assert changes(droplet.playbook("start", *args, "-e", "service=stubborn,lab")) == 1
        began = time.monotonic()
        assert changes(droplet.playbook("stop", *args, "-e", "service=stubborn")) == 1
        assert 2 <= time.monotonic() - began < 10
        assert droplet.containers()["stubborn"].exit_code == 137, "it was not killed"
        assert changes(droplet.playbook("stop", *args, *LAB)) == 1
        assert droplet.containers()["lab"].exit_code == 0, "it was killed"


def test_a_service_that_cannot_start_fails_with_its_last_words_but_no_secret(droplet: Droplet, healthy: None) -> None:
    before = droplet.containers()
    secret = droplet.secret("KIMI_API_KEY")
    script = "echo connecting with $KEY at http://ops:hunter22@gpu/ password=hunter23; echo no such model; exit 3"
    services = {"lab": lab(script, environment={"KEY": "${KIMI_API_KEY}"}, restart="unless-stopped")}
    with droplet.override("lab.yml", services) as args:
        done = droplet.playbook("start", *args, *LAB, "-vvvv", "--diff")
    said_all = words(done)
    assert done.returncode == 2
    assert "The service lab restarts in a loop, last exit code 3" in said_all
    assert "connecting with ******** at http://ops:********@gpu/ password=********" in said_all
    assert "no such model" in said_all
    assert not [leak for leak in (secret, "hunter22", "hunter23") if leak in done.stdout + done.stderr]
    assert "The state now: lab " in said_all
    assert {name: seen for name, seen in droplet.containers().items() if "lab" not in name} == before


@pytest.mark.parametrize(
    "args", [("-e", "service=lab", "-e", "stack_dependencies=true"), ("-e", "service=lab,base")], ids=["asked", "named"]
)
def test_a_dependency_that_cannot_start_is_named_with_its_last_words(
    droplet: Droplet, healthy: None, args: tuple[str, ...]
) -> None:
    before = droplet.containers()
    services = {
        "lab": lab("sleep 1000", depends_on={"base": {"condition": "service_healthy"}}),
        "base": lab(
            "echo data directory is damaged, token: $KEY; exit 4",
            environment={"KEY": "${KIMI_API_KEY}"},
            healthcheck={"test": ["CMD", "true"], "interval": "1s"},
        ),
    }
    with droplet.override("lab.yml", services) as both:
        done = droplet.playbook("start", *both, *args)
    assert done.returncode == 2
    assert "The service base exited with code 4" in words(done)
    assert "data directory is damaged, token: ********" in words(done)
    state = words(done).split("The state now: ")[1]
    assert state.startswith(("base exited with code 4; lab is created.", "lab is created; base exited with code 4."))
    assert droplet.secret("KIMI_API_KEY") not in done.stdout + done.stderr
    assert {name: seen for name, seen in droplet.containers().items() if name in before} == before
