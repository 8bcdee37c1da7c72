# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rotation must bring about, seen from outside of the module that does it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import pytest
from droplet import ENV_FILE, Droplet, words

HOLDERS = {
    "titan-brain": "HMAC_SECRET",
    "titan-execution": "HMAC_SECRET",
    "titan-ai-quant": "HMAC_SECRET",
    "titan-opsd": "OPS_SECRET",
}


def signed_status(droplet: Droplet, secret: str) -> str:
    """The status code of brain's signed read-only request."""
    now = str(int(time.time()))
    signature = hmac.new(secret.encode(), f"{now}.".encode(), hashlib.sha256).hexdigest()
    return droplet.sh(
        "curl -s -o /dev/null -w '%{http_code}' "
        f"-H 'x-timestamp: {now}' -H 'x-signature: {signature}' http://127.0.0.1:3100/services"
    )


def assert_one_secret_everywhere(droplet: Droplet, secret: str) -> None:
    assert {name: droplet.environment(name)[variable] for name, variable in HOLDERS.items()} == dict.fromkeys(
        HOLDERS, secret
    )
    assert signed_status(droplet, secret) == "200"


def test_after_converge_every_holder_has_the_secret_of_the_env_file(droplet: Droplet) -> None:
    assert_one_secret_everywhere(droplet, droplet.secret())


def test_a_second_run_rotates_again_and_loses_no_intent_and_changes_nothing_else(droplet: Droplet) -> None:
    old = droplet.secret()
    content = droplet.sh(f"base64 -w0 {ENV_FILE}")
    stat = droplet.sh(f"stat -c '%U %G %a' {ENV_FILE}; readlink /opt/titan/.env")
    others = [droplet.inspect(name)["Id"] for name in ("titan-nats", "titan-postgres", "titan-prometheus")]
    before = droplet.settled_flow()

    done = droplet.playbook("rotate_hmac")
    assert done.returncode == 0, done.stdout

    new = droplet.secret()
    assert len(new) == 64 and new != old
    assert_one_secret_everywhere(droplet, new)
    assert signed_status(droplet, old) == "401"
    # every other byte, owner, mode and link are kept; nobody else was touched
    expected = base64.b64encode(base64.b64decode(content).replace(old.encode(), new.encode())).decode()
    assert droplet.sh(f"base64 -w0 {ENV_FILE}") == expected
    assert droplet.sh(f"stat -c '%U %G %a' {ENV_FILE}; readlink /opt/titan/.env") == stat
    assert [droplet.inspect(name)["Id"] for name in ("titan-nats", "titan-postgres", "titan-prometheus")] == others
    assert droplet.sh("ls -A /opt/titan/state") == "deploy.lock"
    assert_compose_has_nothing_to_do(droplet)
    # nothing that was published was rejected or lost, and it goes on
    after = droplet.settled_flow(accepted=before["accepted"] + 40)
    assert after["rejected"] == before["rejected"]
    assert after["published"] - before["published"] == after["accepted"] - before["accepted"]


def assert_compose_has_nothing_to_do(droplet: Droplet) -> None:
    """By hand, the runbook's own start finds its own containers and leaves every one as it is."""
    before = droplet.fingerprint()
    droplet.sh("cd /opt/titan && docker compose -f docker-compose.prod.yml up -d")
    assert droplet.fingerprint() == before


def test_an_active_halt_and_the_shadow_positions_survive(droplet: Droplet) -> None:
    droplet.sh("docker exec titan-execution sh -c 'echo maintenance > /app/system.halt'")
    mode = droplet.sh("docker exec titan-execution stat -c '%u %g %a' /app/system.halt")
    identity = droplet.inspect("titan-execution")["Id"]
    try:
        done = droplet.playbook("rotate_hmac")
        assert done.returncode == 0, done.stdout
        assert "/app/system.halt" in done.stdout
        assert droplet.inspect("titan-execution")["Id"] != identity
        assert droplet.sh("docker exec titan-execution cat /app/system.halt") == "maintenance"
        assert droplet.sh("docker exec titan-execution stat -c '%u %g %a' /app/system.halt") == mode
        assert droplet.host.run("docker exec titan-execution test -s /app/titan_execution.redb").rc == 0
    finally:
        droplet.sh("docker exec titan-execution rm -f /app/system.halt")


def test_an_env_file_behind_a_release_link_stays_a_link_and_keeps_its_line_ends(droplet: Droplet) -> None:
    """The layout of field notes 1: a link to the real file; here with CRLF and without a last newline."""
    droplet.sh(
        "cd /opt/titan/compose && cp -p .env.prod /root/env.backup && mv .env.prod real.env"
        " && ln -s real.env .env.prod && sed -i 's/$/\\r/' real.env && truncate -s -1 real.env"
        " && chown deploy:deploy real.env && chmod 640 real.env"
    )
    try:
        before = base64.b64decode(droplet.sh("base64 -w0 /opt/titan/compose/real.env"))
        old = droplet.secret().strip()
        result = droplet.module("hmac_rotate")
        assert not result["failed"], result["msg"]
        new = droplet.secret().strip()
        after = base64.b64decode(droplet.sh("base64 -w0 /opt/titan/compose/real.env"))
        assert after == before.replace(old.encode(), new.encode()) and old != new
        assert droplet.sh("readlink /opt/titan/compose/.env.prod") == "real.env"
        assert droplet.sh("stat -c '%U %G %a' /opt/titan/compose/real.env") == "deploy deploy 640"
        assert_one_secret_everywhere(droplet, new)
    finally:
        droplet.sh("cd /opt/titan/compose && rm -f .env.prod real.env && mv /root/env.backup .env.prod")
        result = droplet.module("compose_service", state="started")
        assert not result["failed"], result["msg"]


def test_a_container_that_cannot_start_undoes_everything(droplet: Droplet) -> None:
    old = droplet.secret()
    droplet.sh("docker exec titan-execution sh -c 'echo maintenance > /app/system.halt'")
    override = json.dumps({"services": {"titan-execution": {"command": ["false"], "restart": "no"}}})
    droplet.sh(f"cat > /opt/titan/broken.yml <<'END'\n{override}\nEND")
    try:
        arguments = '{"titan_stack": {"files": ["docker-compose.prod.yml", "broken.yml"]}}'
        done = droplet.playbook("rotate_hmac", "-e", arguments)
    finally:
        droplet.sh("rm -f /opt/titan/broken.yml")
    assert done.returncode != 0
    assert "titan-execution exited with code 1" in done.stdout
    assert "It was undone: the old secret is back" in " ".join(done.stdout.split())
    assert droplet.secret() == old
    droplet.wait_healthy()
    assert_one_secret_everywhere(droplet, old)
    assert droplet.sh("ls -A /opt/titan/state") == "deploy.lock"
    assert droplet.sh("docker exec titan-execution cat /app/system.halt") == "maintenance"
    droplet.sh("docker exec titan-execution rm /app/system.halt")
    droplet.settled_flow(accepted=droplet.flow()["accepted"] + 20)
    assert_compose_has_nothing_to_do(droplet)


def test_an_armed_engine_refuses_the_rotation_until_forced(droplet: Droplet) -> None:
    droplet.sh("docker exec titan-execution touch /app/execution.armed")
    old = droplet.secret()
    done = droplet.playbook("rotate_hmac")
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert "The trading engine is armed" in text and "rm /app/execution.armed" in text and "force" in text
    assert droplet.secret() == old
    forced = droplet.playbook("rotate_hmac", "-e", "force=true")
    assert forced.returncode == 0, forced.stdout
    assert droplet.secret() != old
    assert droplet.host.run("docker exec titan-execution test -e /app/execution.armed").rc == 1


@pytest.mark.parametrize("step", ["create the new containers", "start"])
def test_a_killed_rotation_is_recovered_by_the_next_run_and_a_halt_survives_it(droplet: Droplet, step: str) -> None:
    """A real SIGKILL of the module's process, as soon as the journal names the step."""
    old = droplet.secret()
    droplet.sh("docker exec titan-execution sh -c 'echo maintenance > /app/system.halt'")
    # who runs is written in the lock file
    killer = (
        f'for i in $(seq 3000); do grep -qs \'"step": "{step}"\' /opt/titan/state/hmac_rotate.journal'
        " && kill -9 $(grep -o '\"pid\": [0-9]*' /opt/titan/state/deploy.lock | tr -dc 0-9) && exit 0;"
        " sleep 0.005; done; exit 1"
    )
    with droplet.background(killer) as watcher:
        done = droplet.playbook("rotate_hmac")
    assert watcher.returncode == 0, "the module was not killed"
    assert done.returncode != 0
    # until it is recovered, nobody is led to start half of a stack
    started = droplet.playbook("start")
    assert started.returncode != 0 and "Run recover.yml" in words(started)
    assert "INTERRUPTED: hmac_rotate; run recover.yml" in words(droplet.playbook("status"))
    assert "without --check" in words(droplet.playbook("rotate_hmac", "--check"))
    if step == "start":  # somebody does it by hand all the same
        droplet.sh("docker start titan-execution")
        assert droplet.sh("docker exec titan-execution cat /app/system.halt") == "maintenance"

    done = droplet.playbook("rotate_hmac")
    assert done.returncode == 0, done.stdout
    assert "An interrupted rotation was found and" in words(done)
    assert droplet.secret() != old
    assert_one_secret_everywhere(droplet, droplet.secret())
    assert droplet.sh("ls -A /opt/titan/state") == "deploy.lock"
    assert droplet.sh("docker exec titan-execution cat /app/system.halt") == "maintenance"
    droplet.sh("docker exec titan-execution rm /app/system.halt")
