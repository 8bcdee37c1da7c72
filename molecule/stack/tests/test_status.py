# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""status.yml shows what is, on a stack that is well and on one where everything is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from droplet import Droplet, changes

STREAMS = ["TITAN_CMD", "TITAN_EVT", "TITAN_DATA", "TITAN_SIGNAL", "TITAN_DLQ", "TITAN_EXECUTION"]


def lines(text: str) -> dict[str, str]:
    """What the status says of each container, probe and stream, by name."""
    return dict(re.findall(r"^ {10}(\S+) +(.*?) *$", text, flags=re.MULTILINE))


def test_of_a_stack_that_is_well_it_shows_every_container_probe_and_stream(droplet: Droplet, unchanged: None) -> None:
    before = droplet.flow()
    done = droplet.playbook("status")
    assert changes(done) == 0
    shown = lines(done.stdout)
    for name in droplet.containers():
        assert re.fullmatch(r"running +healthy +up +\d+ s, 0 restarts", shown[name]), done.stdout
    for probe in ("brain", "execution", "nats", "postgres"):
        assert re.fullmatch(r"ok \(\d+ ms\)", shown[probe]), done.stdout
    for stream in STREAMS:
        assert re.match(r"\d+ messages, last sequence \d+", shown[stream]), done.stdout
    published = int(re.findall(r"last sequence (\d+)", shown["TITAN_CMD"])[0])
    assert before["published"] <= published <= droplet.flow()["published"]
    assert re.search(r"EXECUTION_CORE: \d+ pending, \d+ unacknowledged$", shown["TITAN_CMD"])
    assert re.search(r"^ +/opt/titan +[\d.]+ GB free of [\d.]+ GB$", done.stdout, flags=re.MULTILINE)
    assert "DRIFTED" not in done.stdout


@pytest.fixture
def messy(droplet: Droplet) -> Iterator[None]:
    """A changed env file, a container of no service, one paused, one stopped, one removed; NATS is stopped as well."""
    # as a release leaves it that no longer has the service
    console = r"services:\n  console: {image: titan/opsd:1.0.0, command: [titan.opsd], environment: {OPS_SECRET: x}}"
    with droplet.edited(f"s|^services:|{console}|", path="/opt/titan/docker-compose.prod.yml"):
        droplet.sh("cd /opt/titan && docker compose -f docker-compose.prod.yml up -d --no-deps console")
    with droplet.edited("s/^LOG_LEVEL=.*/LOG_LEVEL=debug/"):
        droplet.sh("docker stop titan-opsd titan-nats && docker rm --force titan-gpu && docker pause titan-prometheus")
        yield
    droplet.sh("docker unpause titan-prometheus")
    droplet.sh("cd /opt/titan && docker compose -f docker-compose.prod.yml up -d --remove-orphans")
    droplet.wait_healthy()


def test_of_a_stack_where_all_is_wrong_it_names_each_trouble_and_shows_the_rest(droplet: Droplet, messy: None) -> None:
    done = droplet.playbook("status")
    assert changes(done) == 0
    shown = lines(done.stdout)
    for name in ("titan-brain", "titan-execution", "titan-ai-quant"):
        assert shown[name].startswith("running") and shown[name].endswith(", DRIFTED: LOG_LEVEL"), done.stdout
    assert re.fullmatch(r"exited +- +up +-, 0 restarts, exit code 0", shown["titan-opsd"])
    code = droplet.containers()["titan-nats"].exit_code
    assert re.fullmatch(rf"exited +- +up +-, 0 restarts, exit code {code}", shown["titan-nats"])
    assert shown["titan-gpu"] == "absent"
    assert shown["titan-prometheus"].startswith("paused")
    assert re.fullmatch(r"running +healthy +up +\d+ s, 0 restarts", shown["titan-postgres"])
    assert shown["titan-prod-console-1"] == "running, declared by no service"
    assert shown["nats"] == f"FAILED: titan-nats exited with code {code}"
    assert re.fullmatch(r"ok \(\d+ ms\)", shown["postgres"])
    assert f"not read: titan-nats exited with code {code}" in done.stdout
    assert "GB free of" in done.stdout
    # of one service, only that one
    one = droplet.playbook("status", "-e", "service=titan-postgres")
    assert "titan-brain" not in lines(one.stdout)


def test_a_stack_that_cannot_be_read_is_said_to_be_so(droplet: Droplet, unchanged: None) -> None:
    done = droplet.playbook("status", "-e", '{"titan_stack": {"docker_host": "unix:///run/nowhere.sock"}}')
    assert done.returncode == 2
    assert "The Docker Engine does not answer at unix:///run/nowhere.sock" in done.stdout
