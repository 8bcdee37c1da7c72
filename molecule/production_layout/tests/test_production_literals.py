# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of the secrets that are written out in the Compose files, and a password that must be percent-encoded."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from droplet import ENV_FILE, words
from production import (
    COMPOSE,
    COMPOSE_FILE,
    CURRENT,
    HMAC_IN,
    HMAC_KEY,
    KEY,
    OVERRIDE,
    PASSWORD_IN,
    PROJECT,
    RELEASE,
    SERVICES,
    Production,
    assert_agree,
)

# As people choose one; nothing of it may stand in a URL as it is.
CHOSEN = "p@ss/word:of%the#people?1"


@pytest.fixture(scope="module", autouse=True)
def chosen(droplet: Production) -> None:
    """The password is set by hand to one that must be percent-encoded, and the deployment is rolled out again."""
    droplet.sql(f"ALTER ROLE titan PASSWORD '{CHOSEN}'")
    old = droplet.secret(KEY).encode()
    head, separator, tail = droplet.env_file().partition(b"DATABASE_URL=")
    content = head.replace(old, CHOSEN.encode()) + separator + tail.replace(old, quote(CHOSEN, safe="").encode())
    droplet.sh(f"base64 -d > {ENV_FILE} <<'END'\n{base64.b64encode(content).decode()}\nEND")
    droplet.sh(f"{COMPOSE} --project-name {PROJECT} up --detach --wait")
    assert_agree(droplet, old_password=old.decode(), old_hmac=droplet.secret(HMAC_KEY))


def test_a_rotation_that_fails_brings_the_chosen_password_back_wherever_it_was(droplet: Production) -> None:
    content, secret = droplet.env_file(), droplet.secret(HMAC_KEY)
    verifier = droplet.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'titan'")
    broken = {"services": {"titan-execution": {"command": ["false"], "restart": "no"}}}
    files = ["docker-compose.prod.yml", "compose.override.digest.yml", "/root/broken.yml"]
    droplet.sh(f"cat > /root/broken.yml <<'END'\n{json.dumps(broken)}\nEND")
    variables = {"titan_stack": {"project_src": CURRENT, "files": files}}
    done = droplet.playbook("rotate_db_password", "-e", json.dumps(variables))
    assert done.returncode != 0
    assert "titan-execution exited with code 1" in words(done)
    assert "It was undone: the old secret is back" in words(done)
    assert 'failed at "start"' in words(done)  # long after the role had the new one
    assert droplet.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'titan'") == verifier
    assert droplet.env_file() == content and droplet.secret(KEY) == CHOSEN
    assert_agree(droplet, old_password="never-the-password-of-anybody", old_hmac=secret)


def line_of(droplet: Production, path: str, text: str) -> int:
    """The number of the one line that contains a text."""
    [number] = [index for index, line in enumerate(droplet.sh(f"cat {path}").splitlines(), start=1) if text in line]
    return number


@pytest.fixture(scope="module")
def written_out(droplet: Production) -> Iterator[dict[str, list[str]]]:
    """Secrets written out in both Compose files, as people do: what a refusal must say of each, by module."""
    secret, encoded = droplet.secret(HMAC_KEY), quote(CHOSEN, safe="")
    droplet.sh(f"cp -p {COMPOSE_FILE} /root/base.yml; cp -p {OVERRIDE} /root/override.yml")
    base = droplet.sh(f"cat {COMPOSE_FILE}")
    for place, literal in {
        " DB_PASSWORD: ${TITAN_DB_PASSWORD:?}": f" DB_PASSWORD: '{CHOSEN}'",
        "OPS_SECRET: ${HMAC_SECRET:?}": f"OPS_SECRET: {secret}",
        "DATABASE_URL: ${DATABASE_URL:?}": f"DATABASE_URL: postgres://titan:{encoded}@titan-postgres:5432/titan_brain",
    }.items():
        assert base.count(place) == 1
        base = base.replace(place, literal)
    extra = f"    environment:\n      - TITAN_DB_PASSWORD={CHOSEN}\n      - HMAC_SECRET={'0' * 64}\n"
    override = droplet.sh(f"cat {OVERRIDE}").replace("  titan-ai-quant:\n", f"{extra}  titan-ai-quant:\n")
    for path, text in ((COMPOSE_FILE, base), (OVERRIDE, override)):
        droplet.sh(f"cat > {path} <<'END'\n{text}\nEND")

    def said(service: str, variable: str, path: str, text: str) -> str:
        shown = path.replace(RELEASE, CURRENT)
        return f"service {service}, variable {variable} ({shown}, line {line_of(droplet, path, text)})"

    yield {
        "pg_password": [
            said("titan-ai-quant", "DB_PASSWORD", COMPOSE_FILE, "DB_PASSWORD: '"),
            said("titan-brain", "DATABASE_URL", COMPOSE_FILE, "DATABASE_URL: postgres"),
            said("titan-execution", KEY, OVERRIDE, f"- {KEY}="),
        ],
        "hmac_rotate": [
            said("titan-opsd", "OPS_SECRET", COMPOSE_FILE, "OPS_SECRET: "),
            # another value than the env file's, which it hides all the same
            said("titan-execution", HMAC_KEY, OVERRIDE, f"- {HMAC_KEY}="),
        ],
    }
    droplet.sh(f"mv /root/base.yml {COMPOSE_FILE}; mv /root/override.yml {OVERRIDE}")


@pytest.mark.parametrize(("name", "check"), [("pg_password", True), ("pg_password", False), ("hmac_rotate", False)])
def test_every_literal_is_named_and_nothing_is_changed(
    name: str, check: bool, droplet: Production, written_out: dict[str, list[str]], unchanged: None
) -> None:
    result = droplet.rotation(name, *(["--check"] if check else []))
    assert result["failed"], result
    assert sorted(result["literals"]) == sorted(written_out[name])
    for literal in written_out[name]:
        assert literal in result["msg"], result["msg"]
    assert "Nothing was changed" in result["msg"]
    assert f"Write ${{{KEY if name == 'pg_password' else HMAC_KEY}}} in place of the value in each" in result["msg"]
    # what interpolation would put into a URL is not what must stand there
    whole = f"(service titan-brain, variable DATABASE_URL): move the whole text into {CURRENT}/.env.prod"
    assert (whole in result["msg"]) is (name == "pg_password")
    for value in (CHOSEN, quote(CHOSEN, safe=""), droplet.secret(HMAC_KEY)):
        assert value not in str(result)


@pytest.fixture(scope="module")
def mended(droplet: Production, written_out: dict[str, list[str]]) -> None:
    """Mended by hand, just as the refusals told; the URL is in the env file already."""
    base = (
        "s|DB_PASSWORD: .*p@ss.*|DB_PASSWORD: ${TITAN_DB_PASSWORD}|; s|OPS_SECRET: .*|OPS_SECRET: ${HMAC_SECRET}|;"
        " s|DATABASE_URL: postgres.*|DATABASE_URL: ${DATABASE_URL}|"
    )
    override = f"s|- {KEY}=.*|- {KEY}=${{{KEY}}}|; s|- {HMAC_KEY}=.*|- {HMAC_KEY}=${{{HMAC_KEY}}}|"
    droplet.sh(f"sed -i '{base}' {COMPOSE_FILE}; sed -i '{override}' {OVERRIDE}")


@pytest.mark.parametrize("name", ["pg_password", "hmac_rotate"])
def test_mended_it_is_rotated_just_as_check_mode_predicts(name: str, droplet: Production, mended: None) -> None:
    password, secret, content = droplet.secret(KEY), droplet.secret(HMAC_KEY), droplet.env_file()
    before, flow = droplet.containers(), droplet.settled_flow()
    predicted = droplet.rotation(name, "--check")
    assert droplet.containers() == before and droplet.env_file() == content
    result = droplet.rotation(name)
    assert not predicted["failed"] and not result["failed"], (predicted, result)
    assert predicted["changed"] is result["changed"] is True
    assert predicted["holders"] == result["holders"]
    assert predicted["steps"] == result["steps"]
    # what was to be replaced has a new container, and nobody else was even restarted
    actions = {item["service"]: item["action"] for item in predicted["holders"]}
    replaced = {service for service, action in actions.items() if action in ("switched", "recreated")}
    assert replaced == set(PASSWORD_IN if name == "pg_password" else HMAC_IN)
    assert actions.get("postgres") == ("kept" if name == "pg_password" else None)
    after = droplet.containers()
    assert {SERVICES[item] for item in after if after[item].id != before[item].id} == replaced
    assert {SERVICES[item] for item in after if after[item].started != before[item].started} == replaced
    assert set(result["interruption"]) == {"titan-brain", "titan-execution"}
    # only the secret's own bytes are others
    key, old = (KEY, password) if name == "pg_password" else (HMAC_KEY, secret)
    new = droplet.secret(key)
    assert new != old
    changed = content.replace(old.encode(), new.encode()).replace(quote(old, safe="").encode(), new.encode())
    assert droplet.env_file() == changed
    assert_agree(droplet, old_password=password, old_hmac=secret)
    # no signed intent was rejected or lost, and it goes on
    later = droplet.settled_flow(accepted=flow["accepted"] + 10)
    assert later["rejected"] == flow["rejected"]
    assert later["published"] - flow["published"] == later["accepted"] - flow["accepted"]
