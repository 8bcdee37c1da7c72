# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module env_file on the real stack."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from droplet import ENV_FILE, Droplet

ODD = 'it\'s "so" $HOME #1 é\\'


@pytest.fixture
def kept(droplet: Droplet) -> Iterator[bytes]:
    """The env file's content; afterwards it is as it was."""
    droplet.sh(f"cp -p {ENV_FILE} /root/env.kept")
    yield base64.b64decode(droplet.sh(f"base64 -w0 {ENV_FILE}"))
    droplet.sh(f"mv /root/env.kept {ENV_FILE}")


def test_it_sets_values_and_predicts_who_gets_them(droplet: Droplet, kept: bytes) -> None:
    stat = droplet.sh(f"stat -c '%U %G %a' {ENV_FILE}; readlink /opt/titan/.env")
    values = {"AI_PROVIDER": "kimi-local", "KIMI_LOCAL_ENDPOINT": "http://titan-gpu:8000/v1", "ODD_VALUE": ODD}
    planned = droplet.module("env_file", "--check", "--diff", values=values)
    assert droplet.sh(f"base64 -w0 {ENV_FILE}") == base64.b64encode(kept).decode()
    result = droplet.module("env_file", "--diff", "-vvv", values=values)
    assert result["changed"] and not result["failed"], result
    for field in ("variables", "added", "services", "proved_by", "path"):
        assert planned[field] == result[field], field
    assert result["variables"] == list(values) and result["added"] == ["ODD_VALUE"]
    assert result["proved_by"] == ["parser", "compose", "stack"]
    assert result["services"] == ["titan-ai-quant", "titan-brain", "titan-execution"]
    assert not any(text in str(result) for text in ("kimi-local", "http://titan-gpu", "$HOME"))
    # every other byte, owner, mode and link
    lines = base64.b64decode(droplet.sh(f"base64 -w0 {ENV_FILE}")).split(b"\n")
    before = kept.split(b"\n")
    assert [new for new, old in zip(lines, before) if new != old] == [
        b"AI_PROVIDER=kimi-local",
        b"KIMI_LOCAL_ENDPOINT=http://titan-gpu:8000/v1",
        lines[len(before) - 1],
    ]
    assert droplet.sh(f"stat -c '%U %G %a' {ENV_FILE}; readlink /opt/titan/.env") == stat

    assert droplet.module("env_file", values=values)["changed"] is False
    # the drift that Compose itself sees is what was predicted
    assert droplet.module("compose_info")["drifted"] == result["services"]
    # and the value arrives, in a container that is made with it
    shown = droplet.sh(
        "cd /opt/titan && docker compose -f docker-compose.prod.yml run --rm --no-deps --entrypoint /bin/sh"
        " titan-ai-quant -c 'printf %s \"$ODD_VALUE\"' 2>/dev/null"
    )
    assert shown == ODD


def test_it_refuses_what_would_break_the_stack(droplet: Droplet, unchanged: None) -> None:
    for values, said in (
        ({"SEED_ROWS": 1.5}, "values gives SEED_ROWS a number with a fraction"),
        ({"no-name": "x"}, "cannot be added to the env file"),
        ({"HMAC_SECRET": "geheim\0"}, "NUL"),
    ):
        result = droplet.module("env_file", values=values)
        assert result["failed"] and said in result["msg"], result["msg"]
        assert "geheim" not in str(result)
    twice = droplet.module("env_file", values={"NEW_NAME": "x"}, append=False)
    assert twice["failed"] and "NEW_NAME is not in the env file" in twice["msg"]


def test_a_value_that_compose_refuses_in_the_stack_is_refused(droplet: Droplet, unchanged: None) -> None:
    ports = {"titan-opsd": {"environment": {"NEEDED": "${HMAC_SECRET:?it is needed}"}}}
    with droplet.override("needs.yml", ports):
        options = {"files": ["docker-compose.prod.yml", "needs.yml"], "values": {"HMAC_SECRET": ""}}
        result = droplet.module("env_file", **options)
    assert result["failed"] and "Compose would refuse the stack" in result["msg"], result["msg"]
    assert "/proc/" not in result["msg"]


def test_a_file_of_nobody_needs_no_docker(droplet: Droplet) -> None:
    droplet.sh("printf 'A=1\\nB=2' > /root/other.env && chmod 640 /root/other.env")
    try:
        result = droplet.module(
            "env_file", path="/root/other.env", values={"A": "3"}, docker_host="unix:///run/nowhere.sock"
        )
        assert result["changed"] and result["proved_by"] == ["parser", "compose"], result
        assert droplet.sh("cat /root/other.env; stat -c %a /root/other.env") == "A=3\nB=2640"
    finally:
        droplet.sh("rm /root/other.env")
