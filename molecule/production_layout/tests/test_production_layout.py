# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Both rotations, status, stop and start on a stack in production's layout: with an inventory, and nothing else."""

from __future__ import annotations

import json
import shlex

from droplet import words
from production import (
    COMPOSE,
    CURRENT,
    HMAC_KEY,
    KEY,
    LABELS,
    PROJECT,
    SERVICES,
    Production,
    assert_agree,
)

FIRST = "/root/first.env"


def test_the_layout_is_the_one_that_is_hard(droplet: Production) -> None:
    """Else the other tests would prove little."""
    plain = droplet.host.run("bash -c %s", f"cd {CURRENT} && docker compose -f docker-compose.prod.yml ps")
    assert plain.rc != 0 and "required variable" in plain.stderr
    # by its own rule, Compose would call it otherwise, and one file alone means other images
    assert droplet.sh(f"{COMPOSE} config | sed -n 1p") == "name: current"
    alone = f"cd {CURRENT} && docker compose --env-file .env.prod -f docker-compose.prod.yml config --images"
    assert set(droplet.sh(alone).split()) & set(droplet.sh(f"{COMPOSE} config --images").split()) == set()
    assert droplet.labels() == LABELS
    # some containers were made from the first release, some through the link
    template = '{{.Label "com.docker.compose.project.working_dir"}}'
    assert set(droplet.sh(f"docker ps --all --format {shlex.quote(template)}").split()) == {
        "/opt/titan/releases/2026-01-30",
        CURRENT,
    }
    assert droplet.sh("docker ps --quiet | xargs -n 1 docker port") == ""
    assert droplet.host.run("curl -s http://127.0.0.1:3100/health").rc == 7
    assert not droplet.host.file("/opt/titan/docker-compose.prod.yml").exists
    assert not droplet.host.file(f"{CURRENT}/.env").exists
    first = droplet.env_file(FIRST)
    assert droplet.secret(KEY, FIRST).encode() not in first.partition(b"DATABASE_URL=")[2]  # percent-encoded


def test_after_converge_everyone_agrees_and_nothing_else_was_changed(droplet: Production) -> None:
    assert_agree(droplet, old_password=droplet.secret(KEY, FIRST), old_hmac=droplet.secret(HMAC_KEY, FIRST))
    first, now = droplet.env_file(FIRST).splitlines(keepends=True), droplet.env_file().splitlines(keepends=True)
    assert len(now) == len(first)
    changed = {old.partition(b"=")[0]: new.decode() for old, new in zip(first, now) if old != new}
    assert changed == {
        HMAC_KEY.encode(): f"{HMAC_KEY}={droplet.secret(HMAC_KEY)}\n",
        KEY.encode(): f"{KEY}='{droplet.secret(KEY)}'\n",
        b"DATABASE_URL": f"DATABASE_URL=postgres://titan:{droplet.secret(KEY)}@titan-postgres:5432/titan_brain\n",
    }


def test_the_status_shows_the_stack_by_its_labels_and_asks_it_without_published_ports(droplet: Production) -> None:
    done = droplet.playbook("status")
    assert done.returncode == 0, done.stdout
    assert f"Project {PROJECT} in {CURRENT} " in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[0] for line in lines if line[1:3] == ["running", "healthy"]} == set(SERVICES)
    assert {line[0] for line in lines if line[1:2] == ["ok"]} >= {"brain", "execution", "nats", "postgres"}
    assert "EXECUTION_CORE" in done.stdout and "declared by no service" not in done.stdout
    by_address = [
        {"service": service, "port": port, "path": path, "via": "address"}
        for service, port, path in (
            ("titan-brain", 3100, "/health"),
            ("titan-execution", 3002, "/health"),
            ("titan-nats", 8222, "/healthz"),
        )
    ]
    result = droplet.module("health_check", project_src=CURRENT, probes=by_address, timeout=0)
    assert not result["failed"] and [probe["ok"] for probe in result["probes"]] == [True] * 3, result


def test_an_interrupted_rotation_is_recovered(droplet: Production) -> None:
    """A real SIGKILL of the module, when the role has the new password and the containers do not."""
    password, secret = droplet.secret(KEY), droplet.secret(HMAC_KEY)
    killer = (
        "for i in $(seq 6000); do grep -qs 'create the new containers' /opt/titan/state/pg_password.journal"
        " && kill -9 $(grep -o '\"pid\": [0-9]*' /opt/titan/state/deploy.lock | tr -dc 0-9) && exit 0;"
        " sleep 0.005; done; exit 1"
    )
    with droplet.background(killer) as watcher:
        done = droplet.playbook("rotate_db_password")
    assert watcher.returncode == 0, "the module was not killed"
    assert done.returncode != 0
    done = droplet.playbook("recover")
    assert done.returncode == 0, done.stdout
    assert "pg_password: finished" in words(done) or "pg_password: undone" in words(done)
    assert_agree(droplet, old_password=password, old_hmac=secret)
    if droplet.secret(KEY) == password:
        assert "pg_password: undone" in words(done)


def test_stopped_and_started_it_is_the_same_stack_on_the_same_data(droplet: Production) -> None:
    decisions = "SELECT count(*) FROM brain_decisions"
    before, rows = droplet.containers(), int(droplet.sql(decisions))
    volumes = droplet.sh("docker volume ls --quiet")
    done = droplet.playbook("stop")
    assert done.returncode == 0, done.stdout
    assert {name: (seen.id, seen.status) for name, seen in droplet.containers().items()} == {
        name: (seen.id, "exited") for name, seen in before.items()
    }
    done = droplet.playbook("start")
    assert done.returncode == 0, done.stdout
    after = droplet.containers()
    assert {seen.status for seen in after.values()} == {"running"}
    # the database's own container is made anew: the first start since the rotations brings it their password
    assert {name for name in after if after[name].id != before[name].id} == {"titan-postgres"}
    assert droplet.environment("titan-postgres")["POSTGRES_PASSWORD"] == droplet.secret(KEY)
    assert droplet.sh("docker volume ls --quiet") == volumes
    assert int(droplet.sql(decisions)) >= rows > 0
    assert_agree(droplet, old_password=droplet.secret(KEY), old_hmac=droplet.secret(HMAC_KEY))


def test_without_containers_it_is_not_started_on_empty_volumes(droplet: Production) -> None:
    """Nothing tells the project's name then; by Compose's own rule it would be another one."""
    rows, volumes = int(droplet.sql("SELECT count(*) FROM brain_decisions")), droplet.sh("docker volume ls --quiet")
    droplet.sh(f"{COMPOSE} --project-name {PROJECT} down")
    named = {
        "project_src": CURRENT,
        "project_name": PROJECT,
        "files": ["docker-compose.prod.yml", "compose.override.digest.yml"],
    }
    refused = droplet.playbook("start")
    assert refused.returncode != 0 and f"although there are volumes of the project {PROJECT} " in words(refused)
    assert droplet.containers() == {} and droplet.sh("docker volume ls --quiet") == volumes
    done = droplet.playbook("start", "-e", json.dumps({"titan_stack": named}))
    assert done.returncode == 0, done.stdout
    assert droplet.sh("docker volume ls --quiet") == volumes
    assert int(droplet.sql("SELECT count(*) FROM brain_decisions")) >= rows > 0
    assert_agree(droplet, old_password=droplet.secret(KEY), old_hmac=droplet.secret(HMAC_KEY))
