# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stack as its Compose files declare it: names, values, durations."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.model import Model, texts, to_seconds
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.titan.ops.tests.unit import real_compose


def model(services: dict[str, Any], raw: dict[str, Any] | None = None, **top: Any) -> Model:
    config = {"name": "titan-prod", "services": services, **top}
    return Model.from_config(config, {"services": raw or services})


NAMES = model(
    {
        "postgres": {"container_name": "titan-postgres"},
        "titan-brain": {"container_name": "titan-brain"},
        "worker": {},
        "worker-2": {},
    }
)


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("postgres", "postgres"),
        ("titan-postgres", "postgres"),
        ("titan-brain", "titan-brain"),
        ("worker", "worker"),
        ("titan-prod-worker-1", "worker"),
        ("titan-prod_worker_12", "worker"),
        ("worker-2", "worker-2"),
        ("titan-prod-worker-2-1", "worker-2"),
        ("brain", "titan-brain"),
    ],
)
def test_a_service_is_found_by_its_own_or_its_containers_name(name: str, service: str) -> None:
    assert NAMES.resolve(name) == service


@pytest.mark.parametrize(
    ("services", "name", "service"),
    [
        ({"nats": {}}, "titan-nats", "nats"),
        ({"titan-nats": {}}, "nats", "titan-nats"),
        ({"bus": {"container_name": "nats"}}, "titan-nats", "bus"),
        ({"bus": {"container_name": "titan-nats"}}, "nats", "bus"),
        ({"nats": {"container_name": "nats"}}, "titan-nats", "nats"),
    ],
)
def test_a_name_may_lack_titans_prefix_or_have_it_in_vain(services: dict[str, Any], name: str, service: str) -> None:
    """Later versions of the stack drop it; the runbook does not."""
    assert model(services).resolve(name) == service


def test_a_prefix_that_leads_to_two_services_leads_to_none() -> None:
    two = model({"nats": {"container_name": "a"}, "bus": {"container_name": "nats"}})
    with pytest.raises(InvalidInput, match="no service or container named titan-nats"):
        two.resolve("titan-nats")
    # a name of its own goes before
    assert model({"nats": {}, "titan-nats": {}}).resolve("nats") == "nats"


@pytest.mark.parametrize("name", ["", "titan-", "titan-prod-nats-1", "other-worker-1", "titan-prod-worker", "WORKER"])
def test_a_name_that_is_none_is_refused_and_the_services_are_named(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        NAMES.resolve(name)
    assert caught.value.msg == f"The stack has no service or container named {name}"
    assert caught.value.hint == "It has: postgres, titan-brain, worker, worker-2."
    assert "Nothing was changed." in str(caught.value)


def test_a_name_with_two_meanings_is_refused_and_both_are_named() -> None:
    swapped = model({"a": {"container_name": "b"}, "b": {"container_name": "c"}})
    with pytest.raises(InvalidInput, match=r"b is ambiguous: it is a service and also the container name of .* a"):
        swapped.resolve("b")
    assert swapped.resolve("a") == "a"
    assert swapped.resolve("c") == "b"


def test_several_names_keep_their_order_and_count_once() -> None:
    assert NAMES.resolve_all(["titan-brain", "titan-postgres", "postgres"]) == ["titan-brain", "postgres"]
    assert NAMES.resolve_all([]) == []


def test_doubled_dollar_signs_are_single_ones_in_values() -> None:
    found = model({"a": {"environment": {"A": "x$$y", "B": "$$$$"}, "command": ["$$1"]}}).services["a"]
    assert dict(found.environment) == {"A": "x$y", "B": "$$"}
    assert found.definition["command"] == ["$1"]


def test_variables_without_a_value_are_no_variables() -> None:
    found = model({"a": {"environment": {"A": None, "B": "", "C": 3, "D": True}}}).services["a"]
    assert dict(found.environment) == {"B": "", "C": "3", "D": "true"}


def test_an_environment_reads_the_same_as_a_list_and_as_a_mapping() -> None:
    as_list = model({"a": {"environment": ["A=1", "B=x=y", "C=", "D"]}}).services["a"]
    as_mapping = model({"a": {"environment": {"A": "1", "B": "x=y", "C": "", "D": None}}}).services["a"]
    assert dict(as_list.environment) == dict(as_mapping.environment) == {"A": "1", "B": "x=y", "C": ""}
    assert as_list.raw_environment == as_mapping.raw_environment


@pytest.mark.parametrize(
    ("declared", "paths"),
    [
        (None, []),
        ("/a", ["/a"]),
        (["/a", "/b"], ["/a", "/b"]),
        ([{"path": "/a", "required": True}, "/b"], ["/a", "/b"]),
        ({"path": "/a"}, ["/a"]),
    ],
)
def test_env_files_read_the_same_in_every_style(declared: Any, paths: list[str]) -> None:
    assert model({"a": {}}, {"a": {"env_file": declared}}).services["a"].env_files == paths


@pytest.mark.parametrize(
    ("check", "has"),
    [
        (None, False),
        ({}, False),
        ({"test": ["CMD", "true"]}, True),
        ({"test": ["CMD", "true"], "disable": True}, False),
        ({"interval": "1s"}, False),
    ],
)
def test_a_health_check_counts_when_it_checks_something(check: Any, has: bool) -> None:
    assert model({"a": {"healthcheck": check}}).services["a"].has_healthcheck is has


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("2h", 7200), ("500ms", 0.5), ("1.5s", 1.5), ("250us", 0.00025), ("1h1m1s", 3661)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert to_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("value", "seconds"), [(None, None), ("", None), ("soon", None), (2_000_000_000, 2.0)])
def test_what_is_no_duration_is_none_and_a_number_is_nanoseconds(value: object, seconds: float | None) -> None:
    assert to_seconds(value) == seconds


def test_every_text_is_found_with_its_place() -> None:
    definition = {"environment": {"A": "1"}, "command": ["x", {"y": "z"}], "ports": [{"target": 80}], "image": "i"}
    assert dict(texts(definition)) == {"environment.A": "1", "command[0]": "x", "command[1].y": "z", "image": "i"}


def test_nothing_that_is_printed_of_a_model_holds_a_value() -> None:
    shown = model({"a": {"environment": {"A": "SECRET"}, "command": ["SECRET"]}}, secrets={"s": {"file": "SECRET"}})
    assert "SECRET" not in repr(shown) + str(shown) + repr(shown.services["a"])


def test_what_the_real_compose_prints_is_understood(tmp_path: Path) -> None:
    """With and without interpolation; what differs between Compose versions is read by the model alone."""
    (tmp_path / "prod.env").write_text("HMAC_SECRET=0123456789abcdef\nCOPY=$HMAC_SECRET\n")
    (tmp_path / "docker-compose.yml").write_text(
        "name: titan-prod\n"
        "services:\n"
        "  brain:\n"
        "    image: none\n"
        "    container_name: titan-brain\n"
        "    env_file: prod.env\n"
        "    stop_grace_period: 1m30s\n"
        "    environment:\n"
        "      OPS_SECRET: ${HMAC_SECRET}\n"
        "      PRICE: 5$$\n"
        "      INHERITED:\n"
        "    healthcheck: {test: ['CMD', 'true']}\n"
        "  list:\n"
        "    image: none\n"
        "    env_file: [prod.env]\n"
        "    environment: ['OPS_SECRET=${HMAC_SECRET}', INHERITED]\n"
        "    command: ['--key', '${HMAC_SECRET}']\n"
    )

    def config(*options: str) -> Any:
        base = [*real_compose.command(), "--project-directory", str(tmp_path)]
        files = ["--file", str(tmp_path / "docker-compose.yml"), "--env-file", str(tmp_path / "prod.env")]
        argv = [*base, *files, "config", "--format", "json", *options]
        return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)

    read = Model.from_config(config(), config("--no-interpolate"))
    brain, listed = read.services["brain"], read.services["list"]
    secret = "0123456789abcdef"
    assert read.name == "titan-prod"
    assert dict(brain.environment) == {"HMAC_SECRET": secret, "COPY": secret, "OPS_SECRET": secret, "PRICE": "5$"}
    assert brain.raw_environment == {"OPS_SECRET": "${HMAC_SECRET}", "PRICE": "5$$", "INHERITED": None}
    assert listed.raw_environment == {"OPS_SECRET": "${HMAC_SECRET}", "INHERITED": None}
    assert brain.env_files == listed.env_files == [str(tmp_path / "prod.env")]
    assert (brain.stop_grace, brain.has_healthcheck, brain.container_name) == (90, True, "titan-brain")
    assert (listed.stop_grace, listed.has_healthcheck, listed.container_name) == (None, False, None)
    assert listed.definition["command"] == ["--key", secret]
