# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each command of the runbook does on the Droplet what the runbook gives it for."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time

from conftest import Runbook, by_hand
from droplet import ENV_FILE, ROOT, Droplet, Seen

DUMP = "/opt/titan/backups/db/titan_brain_2026-02-06.sql"
SERVICES = {
    "titan-ai-quant",
    "titan-brain",
    "titan-execution",
    "titan-gpu",
    "titan-nats",
    "titan-opsd",
    "titan-postgres",
    "titan-prometheus",
}


def others(seen: dict[str, Seen], *names: str) -> dict[str, Seen]:
    return {name: container for name, container in seen.items() if name not in names}


def test_1_1_service_management(droplet: Droplet, runbook: Runbook) -> None:
    up, stop, restart, recreate = runbook["1.1"]
    before = droplet.containers()
    assert set(before) == SERVICES

    by_hand(droplet, stop)
    assert {seen.status for seen in droplet.containers().values()} == {"exited"}
    droplet.sh("docker rm titan-opsd")
    by_hand(droplet, up)
    droplet.wait_healthy()
    started = droplet.containers()
    assert {name for name in SERVICES if started[name].id != before[name].id} == {"titan-opsd"}

    by_hand(droplet, restart)
    restarted = droplet.containers()
    assert others(restarted, "titan-brain") == others(started, "titan-brain")
    assert restarted["titan-brain"].id == started["titan-brain"].id
    assert restarted["titan-brain"].started > started["titan-brain"].started
    droplet.wait_healthy()

    # the runbook: "if config changed"
    with droplet.edited("s/^LOG_LEVEL=.*/LOG_LEVEL=debug/"):
        by_hand(droplet, recreate)
        recreated = droplet.containers()
        assert others(recreated, "titan-brain") == others(started, "titan-brain")
        assert recreated["titan-brain"].id != started["titan-brain"].id
        assert droplet.environment("titan-brain")["LOG_LEVEL"] == "debug"
    by_hand(droplet, up)
    assert droplet.environment("titan-brain")["LOG_LEVEL"] == "info"


def test_1_2_status_checks(droplet: Droplet, runbook: Runbook) -> None:
    ps, _nats, pg_isready = runbook["1.2"]
    shown = dict(re.findall(r"^(titan-\S+) .* Up .*\((\w+)\)", by_hand(droplet, ps), flags=re.MULTILINE))
    assert shown == dict.fromkeys(SERVICES, "healthy")
    assert by_hand(droplet, pg_isready).endswith("accepting connections")


def test_2_1_live_logs(droplet: Droplet, runbook: Runbook) -> None:
    """Each shows what was logged and goes on with what is being logged, until it is interrupted."""
    commands = runbook["2.1"]
    tails = "; ".join(
        f"(timeout 20 {command} > /tmp/tail{number} 2>&1 & echo $!)" for number, command in enumerate(commands)
    )
    begun = "test -s /tmp/tail0 -a -s /tmp/tail1 -a -s /tmp/tail2"
    mark = 'for s in brain execution; do docker exec titan-$s sh -c "echo marked-$s > /proc/1/fd/1"; done'
    seen = "grep -q marked-brain /tmp/tail0 && grep -q marked-brain /tmp/tail1 && grep -q marked-execution /tmp/tail2"
    wait = "for i in $(seq 150); do {0} && break; sleep 0.1; done; {0}"
    droplet.sh(
        f"cd /opt/titan; pids=$({tails}); {wait.format(begun)}; {mark}; {wait.format(seen)} && kill -0 $pids"
        " && kill $pids"
    )
    for number, services in enumerate([SERVICES, {"titan-brain"}, {"titan-execution"}]):
        log = re.sub(r"\x1b\[\d*\w", "", droplet.sh(f"cat /tmp/tail{number}")).splitlines()
        assert {line.split()[0] for line in log if " | " in line} == services
    droplet.sh("rm /tmp/tail?")


def test_2_3_health_endpoints(droplet: Droplet, runbook: Runbook) -> None:
    brain, execution, nats = runbook["2.3"]
    fetch = "curl -sS -w ' %{http_code}' "
    assert droplet.sh(fetch + brain) == '{"status": "healthy"} 200'
    body, code = droplet.sh(fetch + execution).rsplit(" ", 1)
    assert (json.loads(body)["dependencies"], code) == ({"nats": "Connected"}, "200")
    assert droplet.sh(fetch + nats) == '{"status":"ok"} 200'
    # "Deep checks DB/NATS"
    droplet.sh("docker stop titan-postgres")
    try:
        # For half a second brain answers with its last login.
        droplet.sh(f"timeout 20 sh -c 'while curl -sS {brain} | grep -qw healthy; do sleep 0.1; done'")
        assert droplet.sh(fetch + brain) == '{"status": "unhealthy"} 503'
        assert droplet.sh(fetch + execution).endswith(" 200")
    finally:
        droplet.sh("docker start titan-postgres")


def test_3_1_rotate_database_password(droplet: Droplet, runbook: Runbook) -> None:
    stop, up_postgres, psql, alter, up = runbook["3.1"]
    old = droplet.secret("TITAN_DB_PASSWORD")
    assert login(droplet, old) and not login(droplet, "new_password")
    by_hand(droplet, stop)
    assert [droplet.containers()[name].status for name in ("titan-brain", "titan-execution")] == ["exited", "exited"]
    try:
        with droplet.edited("s/^TITAN_DB_PASSWORD=.*/TITAN_DB_PASSWORD=new_password/"):
            by_hand(droplet, up_postgres)
            droplet.sh("until docker exec titan-postgres pg_isready -q -h 127.0.0.1; do sleep 0.1; done")
            typed = f"cd /opt/titan && {psql}"
            assert "ALTER ROLE" in droplet.typing(typed, f"{alter}\n\\q\n")
            by_hand(droplet, up)
            droplet.wait_healthy()
            assert login(droplet, "new_password") and not login(droplet, old)
            assert droplet.environment("titan-brain")["TITAN_DB_PASSWORD"] == "new_password"
            assert droplet.sh("curl -sS http://localhost:3100/health") == '{"status": "healthy"}'
    finally:
        droplet.sh(f"docker exec titan-postgres psql -U titan -d titan_brain -qc \"ALTER USER titan PASSWORD '{old}'\"")
        by_hand(droplet, up)
    droplet.wait_healthy()
    assert login(droplet, old)


def login(droplet: Droplet, password: str) -> bool:
    """Whether the database lets titan in over the network, where alone it asks for the password."""
    command = (
        "docker exec -e PGPASSWORD=%s titan-postgres psql -h titan-postgres -U titan -d titan_brain -qc 'SELECT 1'"
    )
    done = droplet.host.run(command, password)
    assert done.rc == 0 or "password authentication failed" in done.stderr, done.stderr
    return bool(done.rc == 0)


def test_3_2_rotate_hmac_secret(droplet: Droplet, runbook: Runbook) -> None:
    generate, recreate = runbook["3.2"]
    new, old = by_hand(droplet, generate).strip(), droplet.secret()
    assert re.fullmatch("[0-9a-f]{64}", new)
    before = droplet.containers()
    droplet.sh(f"cp -p {ENV_FILE} /root/env.before && sed -i 's/^HMAC_SECRET=.*/HMAC_SECRET={new}/' {ENV_FILE}")
    try:
        by_hand(droplet, recreate)
        droplet.wait_healthy()
        after = droplet.containers()
        assert {name for name in SERVICES if after[name] != before[name]} == {"titan-brain", "titan-execution"}
        for name in ("titan-brain", "titan-execution"):
            assert droplet.environment(name)["HMAC_SECRET"] == new
        assert (signed(droplet, new), signed(droplet, old)) == ("200", "401")
        # the holder that the runbook forgets
        assert droplet.environment("titan-opsd")["OPS_SECRET"] == old
    finally:
        droplet.sh(f"mv /root/env.before {ENV_FILE}")
        by_hand(droplet, recreate)


def signed(droplet: Droplet, secret: str) -> str:
    """The status code of brain's signed read-only request."""
    now = str(int(time.time()))
    signature = hmac.new(secret.encode(), f"{now}.".encode(), hashlib.sha256).hexdigest()
    return droplet.sh(
        "curl -s -o /dev/null -w '%{http_code}' "
        f"-H 'x-timestamp: {now}' -H 'x-signature: {signature}' http://127.0.0.1:3100/services"
    )


def test_4_3_database_restore(droplet: Droplet, runbook: Runbook) -> None:
    """A dump into the live schema: psql goes on after every error, and brings back what is not there any more."""
    stop, restore, start = runbook["4.3"]
    sql = "docker exec titan-postgres psql -U titan -d titan_brain -Atc "
    count = "SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM"
    content = f'{sql}"{count} risk_snapshots t" && {sql}"{count} event_log t"'
    before = droplet.sh(content)
    droplet.sh(f"docker exec titan-postgres pg_dump -U titan -d titan_brain > {DUMP}")
    try:
        droplet.sh(f'{sql}"TRUNCATE risk_snapshots, event_log"')
        assert droplet.sh(content) != before
        by_hand(droplet, stop)
        assert droplet.containers()["titan-brain"].status == "exited"
        done = droplet.host.run("bash -c %s", f"cd /opt/titan && {restore}")
        assert done.rc == 0
        assert 'ERROR:  relation "risk_snapshots" already exists' in done.stderr
        assert droplet.sh(content) == before
        by_hand(droplet, start)
    finally:
        droplet.sh(f"rm {DUMP}")
    # The dump has set the sequences back; brain writes again when they have passed what it had written since.
    droplet.sh(
        "for i in $(seq 300); do curl -sS http://localhost:3100/health | grep -q '\"healthy\"' && exit 0;"
        " sleep 0.1; done; exit 1"
    )


def test_5_1_disk_space_cleanup(droplet: Droplet, runbook: Runbook) -> None:
    prune, df = runbook["5.1"]
    before = droplet.containers()
    droplet.sh("docker volume prune --force")  # what the runbook's command would take of somebody else's
    volumes = set(droplet.sh("docker volume ls -q").split())
    assert {"titan-prod_postgres-data", "titan-prod_nats-data", "titan-prod_prometheus-data"} <= volumes
    droplet.sh("docker run --name stray --volume /anonymous --entrypoint true titan/opsd:1.0.0")
    droplet.sh("docker network create stray")
    assert len(set(droplet.sh("docker volume ls -q").split()) - volumes) == 1
    assert "stray" in by_hand(droplet, prune)
    assert droplet.containers() == before
    assert set(droplet.sh("docker volume ls -q").split()) == volumes
    assert "stray" not in droplet.sh("docker network ls --format '{{.Name}}'").split()
    assert re.search(r"^\S+ +\S+ +\S+ +\S+ +\d+% /$", by_hand(droplet, df), flags=re.MULTILINE)


def test_what_cannot_work_here_is_not_here_and_the_readme_says_so(droplet: Droplet, runbook: Runbook) -> None:
    """The nats command line, Grafana behind the tunnel of 2.2, and backup_db.sh."""
    _ps, nats, _pg_isready = runbook["1.2"]
    [tunnel], [backup] = runbook["2.2"], runbook["4.2"]
    done = droplet.host.run(nats)
    assert done.rc == 126 and '"nats": executable file not found' in done.stdout + done.stderr
    port = re.findall(r"localhost:(\d+)", tunnel)[0]
    assert droplet.host.run(f"curl -sS http://localhost:{port}").rc == 7
    droplet.sh("rm -f /opt/titan/scripts/ops/backup_db.sh")  # another scenario's, if it is there
    done = droplet.host.run("bash -c %s", f"cd /opt/titan && {backup}")
    assert done.rc == 127
    [told] = re.findall(r"Not on it: (.*?)\n\n", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    for name in ("`nats`", "Grafana", "backup_db.sh"):
        assert name in told


def test_no_section_was_left_out(runbook: Runbook) -> None:
    assert runbook.untaken() == set()
