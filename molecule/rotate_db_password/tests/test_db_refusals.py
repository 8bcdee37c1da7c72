# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: each refused with one clear sentence, before anything changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from database import KEY, lets_in, sql
from droplet import Droplet, words

# options of the module, and what the message must say
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a space in it": ({"password": "with a space in it"}, ["would not survive every env file"]),
    "a dollar in it": ({"password": "with-a-$dollar-in-it"}, ["would not survive every env file"]),
    "a slash in it": ({"password": "with/a/slash/in/it"}, ["would not survive every env file"]),
    "a quote in it": ({"password": "with-a-'quote'-in-it"}, ["would not survive every env file"]),
    "too short": ({"password": "Shrt1"}, ["too short: 5 characters, at least 16"]),
    "a short length": ({"length": 8}, ["length is 8 characters"]),
    "an unsafe alphabet": ({"alphabet": "abc$'"}, ["alphabet has characters that would not survive"]),
    "a small alphabet": ({"alphabet": "ab"}, ["can be guessed"]),
    "role missing": ({"role": "nobody"}, ["The database has no role nobody"]),
    "role without LOGIN": ({"role": "locked"}, ["locked", "not permitted to log in"]),
    "role expired": ({"role": "expired"}, ["password of the role expired has expired"]),
    "role that pg_hba.conf rejects": ({"role": "barred"}, ["pg_hba.conf rejects connection", "barred"]),
    "no such database": ({"database": "nowhere"}, ['database "nowhere" does not exist']),
    "nobody listens there": ({"port": 5999}, ["Connection refused"]),
    "a host that does not answer as the database": ({"host": "127.0.0.1", "port": 1}, ["Connection refused"]),
    "a service that is not there": ({"service": "titan-pg"}, ["no service or container named titan-pg"]),
    "the database among the services": ({"services": ["titan-postgres"]}, ["is the database itself"]),
    "services that do not hold it": ({"services": ["titan-nats"]}, ["None of the services titan-nats holds"]),
    "key absent": ({"key": "NO_SUCH_KEY"}, ["does not set NO_SUCH_KEY"]),
    "key twice": ({"env_file": "/tmp/cases/twice.env"}, [f"sets {KEY} 2 times (lines 1, 3)"]),
    "key hard-coded in the Compose file": (
        {"files": ["docker-compose.prod.yml", "/tmp/cases/hardcoded.yml"]},
        [f"service titan-brain, variable {KEY} (/tmp/cases/hardcoded.yml, line 4)"],
    ),
    "copy hard-coded in a URL": (
        {"files": ["docker-compose.prod.yml", "/tmp/cases/url.yml"]},
        ["service titan-brain, variable DATABASE_URL (/tmp/cases/url.yml, line 4)"],
    ),
    "policy against other holders": ({"stale": "fail"}, ["titan-ai-quant"]),
}


@pytest.fixture(scope="module", autouse=True)
def cases(droplet: Droplet) -> Iterator[None]:
    """The roles and files that the cases name; the files lie outside of the project directory."""
    password = droplet.secret(KEY)
    override = "services:\n  titan-brain:\n    environment:\n"
    files = {
        "twice.env": f"{KEY}=aaaaaaaaaaaaaaaa\nX=1\n{KEY}=bbbbbbbbbbbbbbbb\n",
        "hardcoded.yml": f"{override}      {KEY}: 0123456789abcdef\n",
        "url.yml": f'{override}      DATABASE_URL: "postgres://titan:{password}@titan-postgres/titan_brain"\n',
    }
    droplet.sh("mkdir -m 700 -p /tmp/cases")
    for name, content in files.items():
        droplet.sh(f"cat > /tmp/cases/{name} <<'END'\n{content}END")
    hba = "$(docker exec titan-postgres psql -X -At -U titan -d titan_brain -c 'SHOW hba_file')"
    sql(
        droplet,
        f"CREATE ROLE locked NOLOGIN PASSWORD '{password}'",
        f"CREATE ROLE expired LOGIN PASSWORD '{password}' VALID UNTIL '2020-01-01'",
        f"CREATE ROLE barred LOGIN PASSWORD '{password}'",
    )
    droplet.sh(f"docker exec titan-postgres sed -i '1i host all barred all reject' {hba}")
    sql(droplet, "SELECT pg_reload_conf()")
    yield
    droplet.sh(f"rm -rf /tmp/cases; docker exec titan-postgres sed -i '1d' {hba}")
    sql(droplet, "SELECT pg_reload_conf()", "DROP ROLE locked", "DROP ROLE expired", "DROP ROLE barred")


@pytest.mark.parametrize(
    ("name", "check"), [*((name, False) for name in CASES), *((name, True) for name in [*CASES][::6])]
)
def test_bad_input_is_refused_before_anything_changes(
    name: str, check: bool, droplet: Droplet, unchanged: None
) -> None:
    options, said = CASES[name]
    result = droplet.module("pg_password", *(["--check"] if check else []), **options)
    assert result["failed"], result
    for word in said:
        assert word in result["msg"], result["msg"]
    assert "Nothing was changed" in result["msg"], result["msg"]
    assert droplet.secret(KEY) not in str(result)
    assert lets_in(droplet, droplet.secret(KEY))


def test_the_password_in_use_is_refused(droplet: Droplet, unchanged: None) -> None:
    result = droplet.module("pg_password", password=droplet.secret(KEY))
    assert result["failed"] and "is the one that is in use" in result["msg"]


def test_an_address_that_the_server_trusts_is_refused(droplet: Droplet, unchanged: None) -> None:
    """As the official image trusts its own loopback: here, this host's."""
    hba = "$(docker exec titan-postgres psql -X -At -U titan -d titan_brain -c 'SHOW hba_file')"
    droplet.sh(f"docker exec titan-postgres sed -i '1i host all titan all trust' {hba}")
    sql(droplet, "SELECT pg_reload_conf()")
    try:
        result = droplet.module("pg_password")
    finally:
        droplet.sh(f"docker exec titan-postgres sed -i '1d' {hba}")
        sql(droplet, "SELECT pg_reload_conf()")
    assert result["failed"] and "with any password (trust)" in result["msg"]


def test_a_rule_that_would_not_take_the_password_from_brain_is_refused(droplet: Droplet, unchanged: None) -> None:
    """This host may log in; brain, which is running still, could not any more."""
    [network] = droplet.inspect("titan-brain")["NetworkSettings"]["Networks"].values()
    hba = "$(docker exec titan-postgres psql -X -At -U titan -d titan_brain -c 'SHOW hba_file')"
    line = f"host titan_brain titan {network['IPAddress']}/32 ident"
    droplet.sh(f"docker exec titan-postgres sed -i '1i {line}' {hba}")
    sql(droplet, "SELECT pg_reload_conf()")
    try:
        result = droplet.module("pg_password")
    finally:
        droplet.sh(f"docker exec titan-postgres sed -i '1d' {hba}")
        sql(droplet, "SELECT pg_reload_conf()")
    said = (
        f"For titan from {network['IPAddress']} the server does not ask for a password of its own: ident (pg_hba.conf"
    )
    assert result["failed"] and said in result["msg"] and "Nothing was changed" in result["msg"], result["msg"]


def test_a_database_that_does_not_answer_any_more_is_refused(droplet: Droplet, unchanged: None) -> None:
    droplet.sh("docker pause titan-postgres")
    try:
        result = droplet.module("pg_password")
    finally:
        droplet.sh("docker unpause titan-postgres")
        droplet.wait_healthy()
    assert result["failed"] and "titan-postgres" in result["msg"], result["msg"]
    assert "Nothing was changed" in result["msg"], result["msg"]


def test_without_psycopg2_the_package_is_named(droplet: Droplet, unchanged: None) -> None:
    place = droplet.sh("python3 -c 'import psycopg2, os; print(os.path.dirname(psycopg2.__file__))'").strip()
    droplet.sh(f"mv {place} {place}.away")
    try:
        result = droplet.module("pg_password")
    finally:
        droplet.sh(f"mv {place}.away {place}")
    assert result["failed"] and "python3-psycopg2" in result["msg"], result["msg"]


def test_an_armed_engine_refuses_it(droplet: Droplet, unchanged: None) -> None:
    droplet.sh("docker exec titan-execution touch /app/execution.armed")
    try:
        done = droplet.playbook("rotate_db_password")
    finally:
        droplet.sh("docker exec titan-execution rm /app/execution.armed")
    assert done.returncode != 0 and "The trading engine is armed" in words(done)
