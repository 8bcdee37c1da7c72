# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: each refused with one clear sentence, before anything changes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from droplet import Droplet

# options of the module, and what the message must say
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such project directory": ({"project_src": "/opt/nowhere"}, ["There is no project directory /opt/nowhere"]),
    "Compose file missing": ({"files": ["nowhere.yml"]}, ["There is no Compose file /opt/titan/nowhere.yml"]),
    "Compose file invalid": ({"files": ["/tmp/cases/invalid.yml"]}, ["Compose refuses the project"]),
    "env file missing": ({"env_file": "compose/nowhere"}, ["/opt/titan/compose/nowhere does not exist"]),
    "env file a directory": ({"env_file": "compose"}, ["/opt/titan/compose is not a regular file"]),
    "env file a dangling symlink": ({"env_file": "/tmp/cases/dangling"}, ["dangling symlink", "/tmp/cases/gone"]),
    "key absent": ({"key": "NO_SUCH_KEY"}, ["does not set NO_SUCH_KEY"]),
    "key twice": ({"env_file": "/tmp/cases/twice.env"}, ["sets HMAC_SECRET 2 times (lines 1, 3)"]),
    "a value that Compose alters": (
        {"env_file": "/tmp/cases/altered.env"},
        ["Compose alters the value of HMAC_SECRET"],
    ),
    "a file that Compose cannot read": ({"env_file": "/tmp/cases/syntax.env"}, ["line 2"]),
    "key hard-coded in the Compose file": (
        {"files": ["docker-compose.prod.yml", "/tmp/cases/hardcoded.yml"]},
        ["service titan-brain, variable HMAC_SECRET (/tmp/cases/hardcoded.yml, line 4)"],
    ),
    "copy hard-coded in a URL": (
        {"files": ["docker-compose.prod.yml", "/tmp/cases/url.yml"]},
        ["service titan-brain, variable CALLBACK_URL (/tmp/cases/url.yml, line 5)"],
    ),
    "Docker not running": (
        {"docker_host": "unix:///run/nowhere.sock"},
        ["Docker Engine does not answer at unix:///run/nowhere.sock"],
    ),
    "unknown service": ({"services": ["titan-brian"]}, ["no service or container named titan-brian", "titan-brain"]),
    "a service that holds nothing": ({"services": ["titan-nats"]}, ["titan-nats does not hold HMAC_SECRET"]),
    "another project's name": ({"project_name": "other"}, ["project_name is other", "titan-prod"]),
    "secret too short": ({"length": 8}, ["length is 8 bytes"]),
    "drain of an unknown stream": ({"drain": {"stream": "NOPE"}}, ["NATS has no stream NOPE"]),
    "policy against other holders": ({"stale": "fail"}, ["titan-ai-quant, titan-opsd"]),
    "relative project directory": ({"project_src": "opt/titan"}, ["project_src must be an absolute path"]),
}


@pytest.fixture(scope="module", autouse=True)
def cases(droplet: Droplet) -> Iterator[None]:
    """The files that the cases name, outside of the project directory."""
    override = "services:\n  titan-brain:\n    environment:\n"
    files = {
        "invalid.yml": "services: [\n",
        "twice.env": "HMAC_SECRET=aaaaaaaaaaaaaaaa\nX=1\nHMAC_SECRET=bbbbbbbbbbbbbbbb\n",
        "altered.env": "HMAC_SECRET=aaaaaaaa$HOME_bbbb\n",
        "syntax.env": 'A=1\nB="unterminated\n',
        "hardcoded.yml": f"{override}      HMAC_SECRET: 0123456789abcdef\n",
        "url.yml": f'{override}      OTHER: x\n      CALLBACK_URL: "http://ops:{droplet.secret()}@h/"\n',
    }
    droplet.sh("mkdir -m 700 -p /tmp/cases && ln -sfn /tmp/cases/gone /tmp/cases/dangling")
    for name, content in files.items():
        droplet.sh(f"cat > /tmp/cases/{name} <<'END'\n{content}END")
    yield
    droplet.sh("rm -rf /tmp/cases")


# The plan is made alike in check mode; some cases show that it is told alike.
@pytest.mark.parametrize(
    ("name", "check"), [*((name, False) for name in CASES), *((name, True) for name in [*CASES][::6])]
)
def test_bad_input_is_refused_before_anything_changes(
    name: str, check: bool, droplet: Droplet, unchanged: None
) -> None:
    options, words = CASES[name]
    result = droplet.module("hmac_rotate", *(["--check"] if check else []), **options)
    assert result["failed"], result
    for word in words:
        assert word in result["msg"], result["msg"]
    assert "Nothing was changed" in result["msg"], result["msg"]
    assert droplet.secret() not in str(result)


def test_without_root_it_is_refused(droplet: Droplet, unchanged: None) -> None:
    result = droplet.module("hmac_rotate", "-e", "ansible_become=false")
    assert result["failed"] and "must run as root" in result["msg"] and "become" in result["msg"]


def test_without_compose_it_is_refused(droplet: Droplet, unchanged: None) -> None:
    plugin = droplet.sh(
        "find /usr/libexec/docker /usr/lib/docker /usr/local/lib -name docker-compose 2>/dev/null || true"
    )
    assert plugin
    droplet.sh(f"mv {plugin} {plugin}.away")
    try:
        result = droplet.module("hmac_rotate")
    finally:
        droplet.sh(f"mv {plugin}.away {plugin}")
    assert result["failed"] and "Docker Compose v2 is not installed" in result["msg"]


def test_while_the_lock_is_held_it_names_the_holder(droplet: Droplet, unchanged: None) -> None:
    """A deployment's plain flock, and a holder that wrote down who it is."""
    lock = "/opt/titan/state/deploy.lock"
    named = '{"holder": "nightly job", "reason": "tidy up", "since": "now", "pid": 1}'
    for record, words in (("", "left no name"), (named, "nightly job")):
        script = f"exec 9>>{lock}; flock 9; printf '%s' '{record}' > {lock}; echo held; read -r"
        with droplet.background(script) as holder:
            assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
            result = droplet.module("hmac_rotate", lock_timeout=0.5)
        droplet.sh(f"truncate -s 0 {lock}")
        assert result["failed"] and words in result["msg"] and lock in result["msg"], result["msg"]


def test_with_docker_stopped_it_is_refused(droplet: Droplet) -> None:
    droplet.sh("systemctl stop docker.socket docker.service")
    try:
        result = droplet.module("hmac_rotate")
        assert result["failed"] and "Docker Engine does not answer" in result["msg"], result["msg"]
        assert "Nothing was changed" in result["msg"]
    finally:
        droplet.sh("systemctl start docker.socket docker.service")
        droplet.wait_healthy()


def test_a_sick_service_is_not_rotated(droplet: Droplet, unchanged: None) -> None:
    droplet.sh("docker pause titan-execution")
    try:
        done = droplet.playbook("rotate_hmac")
        assert done.returncode != 0 and "titan-execution" in done.stdout
    finally:
        droplet.sh("docker unpause titan-execution")
        droplet.wait_healthy()


def test_the_operator_sees_one_sentence_and_no_traceback(droplet: Droplet, unchanged: None) -> None:
    done: subprocess.CompletedProcess[str] = droplet.playbook("rotate_hmac", "-e", "secrets_hmac_key=NOPE")
    assert done.returncode == 2
    assert "does not set NOPE" in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr
