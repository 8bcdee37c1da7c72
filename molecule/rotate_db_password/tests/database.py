# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database as these tests ask it: by plain psql, in a container of its own on the stack's network."""

from __future__ import annotations

import shlex

from droplet import Droplet

KEY = "TITAN_DB_PASSWORD"
HOLDERS = ("titan-brain", "titan-execution", "titan-ai-quant")


def lets_in(droplet: Droplet, password: str, role: str = "titan") -> bool:
    """Whether the database takes a password from a stranger on its network; any other failure fails the test."""
    [network] = droplet.inspect("titan-postgres")["NetworkSettings"]["Networks"]
    login = f"psql -X -h titan-postgres -U {role} -d titan_brain -Atc 'SELECT 1'"
    variable = shlex.quote(f"PGPASSWORD={password}")
    script = f"docker run --rm --env-file <(echo {variable}) --network {network} titan/postgres:17 {login}"
    done = droplet.host.run("bash -c %s", script)
    assert done.rc == 0 or "password authentication failed" in done.stderr, done.stderr
    return done.rc == 0


def sql(droplet: Droplet, *statements: str) -> str:
    """Run statements as the superuser on the container's socket; what the last printed."""
    script = ";\n".join(statements) + ";\n"
    return droplet.sh(
        f"docker exec -i titan-postgres psql -X -q -At -v ON_ERROR_STOP=1 -U titan -d titan_brain <<'END'\n{script}END"
    ).strip()


def assert_one_password(droplet: Droplet, password: str, other: str) -> None:
    """Role, env file and every holder agree; nobody is let in with the other one."""
    assert droplet.secret(KEY) == password
    assert {name: droplet.environment(name)[KEY] for name in HOLDERS} == dict.fromkeys(HOLDERS, password)
    assert lets_in(droplet, password)
    assert not lets_in(droplet, other)
    droplet.wait_healthy()
    assert droplet.sh("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:3100/health") == "200"
    assert droplet.sh("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:3002/health") == "200"
    assert droplet.sh("find /opt/titan/state -mindepth 1 -printf '%f\\n'").split() == ["deploy.lock"]


def assert_brain_writes(droplet: Droplet) -> None:
    """Brain's decisions arrive in the database, within ten seconds."""
    count = "SELECT count(*) FROM brain_decisions"
    before = int(sql(droplet, count))
    droplet.sh(
        f"for i in $(seq 100); do [ $(docker exec titan-postgres psql -X -At -U titan -d titan_brain -c '{count}') -gt"
        f" {before} ] && exit 0; sleep 0.1; done; exit 1"
    )
