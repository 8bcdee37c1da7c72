# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""compose_info and health_check, over SSH against the real stack."""

from __future__ import annotations

import json
from typing import Any

import pytest
from droplet import ENV_FILE, Droplet

pytestmark = pytest.mark.usefixtures("unchanged")


def test_compose_info_tells_what_docker_tells_and_no_secret(droplet: Droplet) -> None:
    told = droplet.module("compose_info", disk=True)
    assert (told["failed"], told["changed"]) == (False, False), told
    assert told["project"]["name"] == "titan-prod"
    assert told["project"]["files"] == ["/opt/titan/docker-compose.prod.yml"]
    assert told["project"]["env_files"] == ["/opt/titan/.env"]
    real = droplet.containers()
    assert {service["service"] for service in told["services"]} == set(real)
    for service in told["services"]:
        [container] = service["containers"]
        inspected = droplet.inspect(container["name"])
        assert (container["id"], container["status"], container["health"]) == (
            inspected["Id"],
            inspected["State"]["Status"],
            inspected["State"]["Health"]["Status"],
        )
        assert container["started_at"][:19] == inspected["State"]["StartedAt"][:19]
        assert container["image_id"] == inspected["Image"]
        published = {
            (int(port.split("/")[0]), binding["HostIp"], int(binding["HostPort"]))
            for port, bindings in inspected["NetworkSettings"]["Ports"].items()
            for binding in bindings or []
        }
        assert published == {
            (port["container_port"], port["host_ip"], port["host_port"])
            for port in container["ports"]
            if port["host_port"]
        }
    assert [told[name] for name in ("missing", "drifted", "inactive", "orphans")] == [[], [], [], []]
    # Docker's own sum, which it rounds to three digits
    sizes = dict(line.split("=") for line in droplet.sh("docker system df --format '{{.Type}}={{.Size}}'").splitlines())
    images = float(sizes["Images"].rstrip("GMkB")) * {"G": 1e9, "M": 1e6, "k": 1e3}[sizes["Images"][-2]]
    assert told["disk"]["docker"]["images_bytes"] == pytest.approx(images, rel=0.01)
    root = next(disk for disk in told["disk"]["file_systems"] if disk["path"] == "/")
    assert root["total_bytes"] == int(droplet.sh("stat -f -c '%b %S' / | awk '{print $1 * $2}'"))
    text = json.dumps(told)
    secrets = droplet.sh(f"grep -oP '(SECRET|PASSWORD|KEY)=\\K.+' {ENV_FILE}").split()
    assert len(secrets) > 8
    assert not [secret for secret in secrets if secret in text]


def test_probes_pass_from_wherever_they_are_asked(droplet: Droplet) -> None:
    told = droplet.module("health_check", timeout=0)
    assert [(probe["name"], probe["ok"], probe["status"]) for probe in told["probes"]] == [
        ("titan-brain:3100/health", True, 200),
        ("titan-execution:3002/health", True, 200),
        ("titan-nats:8222/healthz", True, 200),
    ]
    assert told["probes"][1]["facts"]["dependencies"] == {"nats": "Connected"}
    # 3300 is published nowhere, and nothing but the service itself is in its image
    quant: dict[str, Any] = {"service": "titan-ai-quant", "port": 3300, "path": "/health"}
    probes = [
        {**quant, "name": "inside", "via": "inside", "json": {"status": "ok", "provider": ["none", "kimi-local"]}},
        {**quant, "name": "address"},
        {"name": "published", "service": "titan-brain", "via": "host", "port": 3100, "path": "/health"},
        {"name": "host", "kind": "tcp", "port": 22},
        {"name": "tcp", "kind": "tcp", "service": "titan-postgres", "port": 5432, "via": "inside"},
        {"name": "command", "kind": "command", "service": "titan-postgres", "argv": ["pg_isready", "-U", "titan"]},
        {"name": "container", "kind": "container", "service": "titan-gpu"},
    ]
    told = droplet.module("health_check", timeout=0, probes=probes)
    assert not told["failed"], told["msg"]
    assert [(probe["name"], probe["ok"], probe["tries"]) for probe in told["probes"]] == [
        (probe["name"], True, 1) for probe in probes
    ]
    assert [probe["status"] for probe in told["probes"]] == [200, 200, 200, None, None, 0, "healthy"]


def test_each_probe_that_fails_says_why_in_a_sentence(droplet: Droplet) -> None:
    quant: dict[str, Any] = {"service": "titan-ai-quant", "port": 3300, "path": "/health"}
    probes: dict[str, dict[str, Any]] = {
        "http://localhost:3300/health does not answer: Connection refused": {**quant, "via": "host"},
        "http://localhost:3300/nothing inside titan-ai-quant answers with status 404 instead of 200": {
            **quant,
            "via": "inside",
            "path": "/nothing",
        },
        "http://localhost:3300/health inside titan-ai-quant answers with status=ok instead of well or fine": {
            **quant,
            "via": "inside",
            "json": {"status": ["well", "fine"]},
        },
        "answers with status 401 instead of 200": {
            "service": "titan-brain",
            "port": 3100,
            "path": "/services",
            "headers": {"x-signature": "0123456789abcdef"},
        },
        "localhost:3301 inside titan-ai-quant takes no connection: Connection refused": {
            **quant,
            "kind": "tcp",
            "via": "inside",
            "port": 3301,
        },
        "in titan-postgres ended with exit code 2": {
            "kind": "command",
            "service": "titan-postgres",
            "argv": ["pg_isready", "-p", "1"],
        },
        "did not end within 0.5 seconds": {
            "kind": "command",
            "service": "titan-nats",
            "argv": ["sleep", "60"],
            "timeout": 0.5,
        },
    }
    told = droplet.module("health_check", timeout=0, probes=list(probes.values()))
    assert told["failed"]
    assert f"{len(probes)} of {len(probes)} health probes failed" in told["msg"]
    for sentence, answer in zip(probes, told["probes"]):
        assert sentence in answer["reason"], answer
        assert answer["ok"] is False and answer["tries"] == 1
        assert answer["reason"] in told["msg"]
    assert told["logs"]["titan-brain"], "the last log lines are missing"
    assert "0123456789abcdef" not in json.dumps(told)
    assert droplet.host.run("pgrep -fx 'sleep 60'").rc == 1, "the command was not killed"
    unknown = droplet.module("health_check", probes=[{**quant, "service": "titan-ai-quark"}])
    assert unknown["failed"] and "no service or container named titan-ai-quark" in unknown["msg"]


def test_it_asks_once_or_waits_as_it_is_told(droplet: Droplet) -> None:
    """A port that begins to answer after some seconds."""
    probe = {"name": "late", "port": 3999, "path": "/"}
    once = droplet.module("health_check", timeout=0, probes=[probe])
    assert once["failed"] and once["waited_seconds"] < 2
    brief = droplet.module("health_check", timeout=1, probes=[probe])
    assert brief["failed"] and 1 <= brief["waited_seconds"] < 3
    assert brief["probes"][0]["tries"] > 1
    serve = "cd /tmp && mkdir -p late && cd late && sleep 3 && exec timeout 60 python3 -m http.server -b 127.0.0.1 3999"
    with droplet.background(f"({serve} >/dev/null 2>&1) & echo begun; read -r; kill %1") as server:
        assert server.stdout is not None and server.stdout.readline() == "begun\n"
        told = droplet.module("health_check", timeout=30, probes=[probe])
    assert not told["failed"], told["msg"]
    assert told["probes"][0]["tries"] > 1
