# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The description of a stack, over fakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose import report as module
from ansible_collections.titan.ops.plugins.module_utils.compose.container import Port, from_inspect
from ansible_collections.titan.ops.plugins.module_utils.compose.report import environment_drift, image_drift
from ansible_collections.titan.ops.plugins.module_utils.compose.stack import Stack
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.titan.ops.plugins.module_utils.core.lock import host_lock
from ansible_collections.titan.ops.tests.unit.fakes import NOW, FakeCli, FakeRunner, container, stack

SECRET = "0123456789abcdef"
BRAIN = {
    "image": "titan/brain:1",
    "container_name": "titan-brain",
    "environment": {"HMAC_SECRET": SECRET, "MODE": "live"},
}
IMAGE = {
    "titan/brain:1": {"id": "sha256:b", "environment": {"PATH": "/bin", "LANG": "C"}, "digests": ["brain@sha256:d"]}
}


def brain_container(**changes: Any) -> Any:
    """A container of BRAIN as Compose would make it now."""
    labels = {"config-hash": FakeCli({"titan-brain": BRAIN}).hash("titan-brain"), **changes.pop("labels", {})}
    environment = {"PATH": "/bin", "LANG": "C", "HMAC_SECRET": SECRET, "MODE": "live", **changes.pop("environment", {})}
    plain = {"health": "healthy", "image": "titan/brain:1", "image_id": "sha256:b"}
    return container("titan-brain", labels=labels, environment=environment, **{**plain, **changes})


def brain(*containers: Any, **services: Any) -> Stack:
    made = stack({"titan-brain": BRAIN, **services}, containers)
    made.engine.images = {name: dict(image) for name, image in IMAGE.items()}  # type: ignore[attr-defined]
    return made


def report(of: Stack, **options: Any) -> dict[str, Any]:
    return module.report(of, FakeRunner(), **options)


def only(of: Stack) -> dict[str, Any]:
    """The one container of a report."""
    [found] = [item for service in report(of)["services"] for item in service["containers"]]
    return found  # type: ignore[no-any-return]


def test_who_holds_the_hosts_lock_is_told_beside_what_was_interrupted(tmp_path: Path) -> None:
    made = stack({"titan-brain": BRAIN}, src=str(tmp_path))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "hmac_rotate.journal").write_text("{}", encoding="utf-8")
    with host_lock(made.options.lock_file, reason="rotate", holder="alice", timeout=0, clock=Clock()):
        found = report(made)
    assert found["interrupted"] == ["hmac_rotate"] and found["under_way"].startswith("alice (process ")
    assert report(made)["under_way"] is None


def test_a_container_is_described_whole() -> None:
    ports = (Port(3100, "tcp", "127.0.0.1", 3100), Port(9000, "tcp"))
    found = report(brain(brain_container(restart_count=2, ports=ports)))
    assert found["services"] == [
        {
            "service": "titan-brain",
            "container_name": "titan-brain",
            "image": "titan/brain:1",
            "containers": [
                {
                    "name": "titan-brain",
                    "id": brain_container().id,
                    "service": "titan-brain",
                    "status": "running",
                    "health": "healthy",
                    "trouble": None,
                    "restarts": 2,
                    "exit_code": None,
                    "started_at": "2026-02-06T13:03:12Z",
                    "finished_at": None,
                    "uptime_seconds": 3600.0,
                    "image": "titan/brain:1",
                    "image_id": "sha256:b",
                    "image_digests": ["brain@sha256:d"],
                    "ports": [
                        {"container_port": 3100, "protocol": "tcp", "host_ip": "127.0.0.1", "host_port": 3100},
                        {"container_port": 9000, "protocol": "tcp", "host_ip": None, "host_port": None},
                    ],
                    "config_drift": False,
                    "environment_drift": [],
                    "image_drift": False,
                }
            ],
        }
    ]
    assert (found["missing"], found["drifted"], found["orphans"], found["inactive"]) == ([], [], [], [])


def test_a_container_that_ended_has_an_exit_code_and_no_uptime() -> None:
    found = only(brain(brain_container(status="exited", exit_code=137, health=None, finished_at=NOW - 60)))
    assert (found["exit_code"], found["uptime_seconds"]) == (137, None)
    assert (found["started_at"], found["finished_at"]) == ("2026-02-06T13:03:12Z", "2026-02-06T14:02:12Z")
    assert found["trouble"] == "exited with code 137"


def test_a_container_that_was_never_started_has_no_times() -> None:
    found = only(brain(brain_container(status="created", health=None, started_at=None)))
    assert (found["started_at"], found["finished_at"], found["uptime_seconds"]) == (None, None, None)


# Drift


def test_another_configuration_hash_is_drift_of_the_configuration() -> None:
    of = brain(brain_container(labels={"config-hash": "older"}))
    assert only(of)["config_drift"] is True
    assert report(of)["drifted"] == ["titan-brain"]


def test_without_a_recorded_hash_nothing_is_said_of_the_configuration() -> None:
    assert only(brain(brain_container(labels={"config-hash": ""})))["config_drift"] is None


def test_a_container_made_without_its_dependencies_has_not_drifted() -> None:
    """Some versions of Compose hash depends_on, but not under --no-deps."""
    made = brain(brain_container())
    made.cli.services["titan-brain"] = {**BRAIN, "depends_on": {"nats": {}}}  # type: ignore[attr-defined]
    assert only(made)["config_drift"] is False


def test_a_changed_variable_is_named_and_neither_value_is_anywhere() -> None:
    of = brain(brain_container(environment={"HMAC_SECRET": "fedcba9876543210"}))
    assert only(of)["environment_drift"] == ["HMAC_SECRET"]
    whole = json.dumps(report(of, disk=True))
    assert SECRET not in whole
    assert "fedcba9876543210" not in whole
    assert report(of)["drifted"] == ["titan-brain"]


@pytest.mark.parametrize(
    ("actual", "declared", "image", "names"),
    [
        ({"A": "1"}, {"A": "1"}, {}, []),
        ({"A": "1"}, {"A": "2"}, {}, ["A"]),
        ({}, {"A": ""}, {}, ["A"]),
        ({"A": ""}, {}, {}, ["A"]),
        ({"PATH": "/bin"}, {}, {"PATH": "/bin"}, []),
        ({"PATH": "/odd"}, {}, {"PATH": "/bin"}, ["PATH"]),
        ({"PATH": "/odd"}, {"PATH": "/odd"}, {"PATH": "/bin"}, []),
        # The image is gone: what it set cannot be told from what somebody added.
        ({"PATH": "/bin", "A": "1"}, {"A": "2"}, None, ["A"]),
        # The Docker client's own configuration
        ({"HTTP_PROXY": "http://p", "no_proxy": "x"}, {}, {}, []),
        ({"HTTP_PROXY": "http://p"}, {"HTTP_PROXY": "http://q"}, {}, ["HTTP_PROXY"]),
        ({"B": "1", "A": "1"}, {"C": "1"}, {}, ["A", "B", "C"]),
    ],
)
def test_the_names_of_differing_variables(actual: Any, declared: Any, image: Any, names: list[str]) -> None:
    assert environment_drift(actual, declared, image) == names


@pytest.mark.parametrize(
    ("changes", "current", "drift"),
    [
        ({}, "sha256:b", False),
        ({}, "sha256:new", True),
        ({"labels": {"image": "sha256:new"}}, "sha256:new", False),
        ({"image": "titan/brain:0"}, "sha256:b", False),
        ({}, None, False),
        ({"image": "titan/brain:0"}, None, True),
    ],
)
def test_the_image_has_drifted_when_a_new_container_would_run_another(changes: Any, current: Any, drift: bool) -> None:
    assert image_drift(brain_container(**changes), "titan/brain:1", current) is drift


def test_an_image_that_was_built_or_pulled_since_is_drift() -> None:
    of = brain(brain_container())
    of.engine.images["titan/brain:1"] = {"id": "sha256:new"}  # type: ignore[attr-defined]
    assert only(of)["image_drift"] is True
    assert report(of)["drifted"] == ["titan-brain"]


def test_a_service_that_is_only_built_has_composes_own_image_name() -> None:
    assert report(stack({"tool": {"build": {"context": "."}}}))["services"][0]["image"] == "titan-prod-tool"


# Expected and actual


def test_services_without_container_and_containers_without_service_are_told() -> None:
    of = brain(brain_container(), container("titan-old"), nats={"image": "titan/nats:2"})
    found = report(of)
    assert found["missing"] == ["nats"]
    assert [item["name"] for item in found["orphans"]] == ["titan-old"]
    assert [item["service"] for item in found["services"]] == ["nats", "titan-brain"]


def test_a_container_of_an_inactive_profile_is_no_orphan() -> None:
    of = stack({}, [container("debug"), container("old")], idle={"debug": {"image": "x"}})
    found = report(of)
    assert [item["name"] for item in found["inactive"]] == ["debug"]
    assert [item["name"] for item in found["orphans"]] == ["old"]
    assert found["services"] == []


def test_containers_of_other_projects_and_of_compose_run_are_none_of_ours() -> None:
    run = container("titan-brain", name="run-1", labels={"oneoff": "True"})
    found = report(brain(run, container("titan-brain", project="other", name="theirs"), container(name="loner")))
    assert (found["missing"], found["orphans"]) == (["titan-brain"], [])


def test_all_containers_of_a_service_are_described() -> None:
    of = stack({"w": {}}, [container("w", name="w-2"), container("w", name="w-1", status="restarting")])
    [service] = report(of)["services"]
    assert [(item["name"], item["trouble"]) for item in service["containers"]] == [
        ("w-1", "is restarting"),
        ("w-2", None),
    ]


def test_the_filter_takes_service_and_container_names() -> None:
    of = brain(brain_container(), nats={"container_name": "titan-nats"}, other={})
    assert [item["service"] for item in report(of, services=["titan-nats"])["services"]] == ["nats"]
    found = report(of, services=["nats", "titan-nats", "titan-brain"])
    assert [item["service"] for item in found["services"]] == ["nats", "titan-brain"]
    assert found["missing"] == ["nats"]


def test_an_unknown_service_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no service or container named titan-brian"):
        report(brain(), services=["titan-brian"])


# The project and the disk


def test_the_project_is_told() -> None:
    assert report(stack({}))["project"] == {
        "name": "titan-prod",
        "src": "/opt/titan",
        "files": ["/opt/titan/docker-compose.prod.yml"],
        "env_files": ["/opt/titan/.env"],
        "compose_version": "2.26.1",
        "engine_version": "26.1.5",
    }


def test_file_systems_are_measured_where_they_are(tmp_path: Path) -> None:
    of = stack({}, src=str(tmp_path / "titan"))
    (tmp_path / "titan").mkdir()
    of.engine.root_directory = lambda: str(tmp_path / "of another machine")  # type: ignore[method-assign]
    sizes = {"/": (100, 60, 30), str(tmp_path / "titan"): (10, 1, 9)}
    assert report(of, usage=sizes.__getitem__)["disk"]["file_systems"] == [
        {"path": "/", "total_bytes": 100, "free_bytes": 30},
        {"path": str(tmp_path / "titan"), "total_bytes": 10, "free_bytes": 9},
    ]


def test_by_default_the_real_file_systems_are_measured() -> None:
    [root] = [item for item in report(stack({}))["disk"]["file_systems"] if item["path"] == "/"]
    assert root["total_bytes"] == shutil.disk_usage("/").total
    assert 0 <= root["free_bytes"] < root["total_bytes"]


def test_docker_is_asked_to_measure_itself_only_on_demand() -> None:
    of = stack({})
    assert report(of)["disk"]["docker"] is None
    assert of.engine.calls == []  # type: ignore[attr-defined]
    assert report(of, disk=True)["disk"]["docker"] == {
        "images_bytes": 4,
        "containers_bytes": 3,
        "volumes_bytes": 2,
        "build_cache_bytes": 1,
    }


def test_nothing_is_asked_to_change() -> None:
    of = brain(brain_container(), container("titan-old"))
    report(of)
    assert of.engine.calls == []  # type: ignore[attr-defined]
    assert of.cli.calls == []  # type: ignore[attr-defined]


# What Docker says of ports (NetworkSettings.Ports)


@pytest.mark.parametrize(
    ("published", "ports"),
    [
        ({}, ()),
        (None, ()),
        ({"5432/tcp": None}, (Port(5432, "tcp"),)),
        ({"53/udp": []}, (Port(53, "udp"),)),
        (
            {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]},
            (Port(80, "tcp", "0.0.0.0", 8080), Port(80, "tcp", "::", 8080)),
        ),
        ({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, (Port(80, "tcp", None, 8080),)),
    ],
)
def test_ports_are_read_from_what_docker_says(published: Any, ports: tuple[Port, ...]) -> None:
    raw = {
        "Id": "1",
        "Name": "/x",
        "State": {"Status": "running"},
        "Config": {},
        "NetworkSettings": {"Ports": published},
    }
    assert from_inspect(raw).ports == ports
