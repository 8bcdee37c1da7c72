# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No byte of a password anywhere but in the env file, the journal while it lives, and the holders."""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path

import pytest
from database import HOLDERS, KEY, assert_one_password, sql
from droplet import Droplet
from leaks import Watch, forms, in_text, scram_forms, talkative

VERIFIER = "SELECT rolpassword FROM pg_authid WHERE rolname = 'titan'"
# The database's own container has it as POSTGRES_PASSWORD.
ALL_HOLDERS = (*HOLDERS, "titan-postgres")
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


@pytest.mark.parametrize("way", ["made", "given", "lost"])
def test_a_rotation_leaks_nothing_whoever_listens(droplet: Droplet, tmp_path: Path, way: str) -> None:
    options = tmp_path / "options.yml"
    options.write_text("{}")
    old, before = droplet.secret(KEY), sql(droplet, VERIFIER)
    third = ""
    if way == "given":
        options.write_text(f"secrets_db_password: {secrets.token_hex(20)}\n")
    if way == "lost":
        third = secrets.token_hex(20)
        sql(droplet, f"ALTER ROLE titan PASSWORD '{third}'")
        options.write_text("recover: true\n")

    with talkative(droplet), Watch(droplet, ALL_HOLDERS, WITNESSES) as watch:
        done = droplet.playbook("rotate_db_password", "-vvvv", "--diff", "-e", f"@{options}")
        new, verifier = droplet.secret(KEY), sql(droplet, VERIFIER)
        wanted = {**forms("old", old), **forms("new", new), **scram_forms("new", new, verifier)}
        # The verifier is no password, and stands in the database itself; a superuser keeps it out of the server's log.
        public = {"verifier": verifier.split("$")[2]}
        if way != "lost":
            wanted.update(scram_forms("old", old, before))
        seen = watch.seen(wanted, public)

    assert done.returncode == 0, done.stdout
    assert new != old
    assert not seen.found
    assert not in_text(done.stdout + done.stderr, {**wanted, **public})
    # it has looked at everything, all the time
    assert seen.witnessed == sorted(WITNESSES) and not seen.unread
    print(f"{seen.turns} looks at all processes; searched: {seen.sizes}")
    assert_one_password(droplet, new, third or old)


def test_what_leaks_is_found_wherever_it_is(droplet: Droplet) -> None:
    """The scan itself, with a made-up password that gets out in every way there is, each alone."""
    leak = secrets.token_urlsafe(30)
    url = f"postgres://titan:{leak}@host/x"
    encoded = base64.b64encode(f"..{url}".encode()).decode()
    percent = "".join(f"%{byte:02x}" for byte in leak.encode())
    history = "/opt/titan/logs/ops.jsonl"
    files = {
        history: url,
        "/var/lib/prometheus/node-exporter/titan_leak.prom": encoded,
        "/opt/titan/state/left.journal": percent,
        "/var/lib/docker/volumes/titan-prod_postgres-data/_data/left": leak,
        "/tmp/left": leak.encode().hex(),
        "/root/.ansible/tmp/left": url[:40],
        "/home/deploy/.ansible/tmp/left": url,
    }
    # Over standard input, for the arguments of what runs it are seen as well.
    script = f"""
        (exec -a {leak[:14]} sleep 0.7) &
        X={encoded} sleep 0.7 &
        docker exec --env-file <(echo PIECE={leak[15:]}) titan-nats sleep 0.7
        logger <<<"{url}"
        docker exec -i titan-postgres psql -X -q -U titan -d titan_brain <<<"SELECT '{percent}'"
        docker exec -i titan-nats sh -c 'cat >/proc/1/fd/1' <<<"{url}"
        docker create --label-file <(echo leak={leak}) --name titan-leak titan/nats:2
        echo {url} >/tmp/short; sleep 0.7; rm /tmp/short
        wait
    """ + "".join(f"echo '{content}' >>{path}\n" for path, content in files.items())
    droplet.sh(f"install -d -m 700 /root/.ansible/tmp; cp -p {history} /root/kept")
    try:
        with talkative(droplet), Watch(droplet, ALL_HOLDERS, {}) as watch:
            with droplet.background("exec bash -eu -s") as shell:
                shell.communicate(script)
            assert shell.returncode == 0
            seen = watch.seen(forms("leak", leak))
    finally:
        droplet.sh(f"mv /root/kept {history}; docker rm --force --volumes titan-leak >/dev/null")
        droplet.sh(f"rm -f {' '.join(path for path in files if path != history)}")

    found = {re.sub(r"process \d+|[0-9a-f]{12}(?=:)", "-", item) for item in seen.found}
    assert {item for item in found if item.startswith("cmdline: ")} == {
        "cmdline: - (sleep) of host: leak, characters 0-"
    }
    environ = {item.rpartition(": ")[0] for item in found if item.startswith("environ: ")}
    assert environ == {"environ: - (sleep) of host", "environ: - (sleep) of titan-nats"}
    sources = {item.partition(":")[0] for item in found}
    assert sources == {
        *("cmdline", "environ", "temporary file", "file", "syslog", "journald"),
        *("docker events", "docker inspect", "log of titan-postgres", "log of titan-nats"),
    }
    assert any(item.startswith("temporary file: /tmp/short ") for item in found), sorted(found)
    kept = {f"file: {path}" for path in files}
    assert kept == {item for item in found if item in kept}
    assert leak[:9] not in str(seen.found)  # it tells where, and not what
    # and in what the playbook prints
    for before in range(3):
        text = base64.b64encode(f"{'.' * before}{leak}...".encode()).decode()
        assert in_text(text, forms("leak", leak)) == [
            f"leak, {kind} after {before}" for kind in ("base64", "base64url")
        ]


def test_a_holders_own_environment_is_no_leak_and_another_containers_is(droplet: Droplet) -> None:
    env_file = f"--env-file <(grep ^{KEY}= /opt/titan/compose/.env.prod)"
    with Watch(droplet, ALL_HOLDERS, {}) as watch:
        droplet.sh(f"docker run --detach --name stranger --entrypoint sleep {env_file} titan/nats:2 60")
        try:
            seen = watch.seen(forms("password", droplet.secret(KEY)))
        finally:
            droplet.sh("docker rm --force --volumes stranger")
    assert {item.partition(":")[0] for item in seen.found} == {"environ", "docker inspect", "file"}, seen.found
    assert not any(name in item for item in seen.found for name in ALL_HOLDERS), seen.found
