# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds a secret, and which copies of it a change of the env file does not reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.holders import (
    Literal,
    carries,
    env_carries,
    find_holders,
    find_literals,
    find_outsiders,
)
from ansible_collections.titan.ops.plugins.module_utils.compose.model import Model
from ansible_collections.titan.ops.tests.unit.fakes import container

KEY = "HMAC_SECRET"
SECRET = "0123456789abcdef0123456789abcdef"
PASSWORD = "p@ss/wörd+1"


@pytest.mark.parametrize(
    ("text", "value", "carried"),
    [
        (SECRET, SECRET, True),
        (f"x{SECRET}y", SECRET, True),
        (SECRET[:-1], SECRET, False),
        ("", SECRET, False),
        (f"postgres://titan:{PASSWORD}@db/titan", PASSWORD, True),
        ("postgres://titan:p%40ss%2Fw%C3%B6rd%2B1@db/titan", PASSWORD, True),
        ("postgres://titan:p%40ss%2fw%c3%b6rd%2b1@db/titan", PASSWORD, True),
        ("postgres://titan:p%40ss/w%C3%B6rd+1@db/titan", PASSWORD, True),
        ("postgres://titan:other@db/titan", PASSWORD, False),
        ("100%25sure!", "100%25sure!", True),
        ("abc", "abc", True),
        ("xabcx", "abc", False),
        ("", "", False),
        ("anything", "", False),
    ],
)
def test_a_text_carries_a_value_as_it_is_or_percent_encoded(text: str, value: str, carried: bool) -> None:
    assert carries(text, value) is carried


def test_the_variables_that_carry_a_value_are_named() -> None:
    assert env_carries({"B": SECRET, "A": f"x{SECRET}", "C": "no"}, SECRET) == ["A", "B"]


def model(services: dict[str, Any], raw: dict[str, Any] | None = None, **top: Any) -> Model:
    return Model.from_config({"name": "p", "services": services, **top}, {"services": raw or {}})


def test_holders_are_found_by_value_under_any_name_alone_or_inside_something() -> None:
    services = {
        "brain": {"environment": {KEY: SECRET, "TITAN_HMAC_SECRET": SECRET, "PORT": "3100"}},
        "opsd": {"environment": {"OPS_SECRET": SECRET}},
        "url": {"environment": {"URL": f"https://x:{SECRET}@y/"}},
        "command": {"command": ["serve", f"--key={SECRET}"], "healthcheck": {"test": ["CMD", SECRET]}},
        "empty": {"environment": {KEY: ""}},
        "quant": {"environment": {"PORT": "3102"}},
    }
    found = {holder.service: holder for holder in find_holders(model(services), KEY, SECRET)}
    assert {name: holder.places for name, holder in found.items()} == {
        "brain": (f"environment.{KEY}", "environment.TITAN_HMAC_SECRET"),
        "opsd": ("environment.OPS_SECRET",),
        "url": ("environment.URL",),
        "command": ("command[1]", "healthcheck.test[1]"),
        "empty": (f"environment.{KEY}",),
    }
    assert found["brain"].variables == [KEY, "TITAN_HMAC_SECRET"]
    assert found["command"].variables == []


def test_holders_of_a_mounted_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(f"{SECRET}\n")
    (tmp_path / "t").write_text("other")
    mounts = {"secrets": [{"source": "s"}, "t", {"source": "gone"}], "configs": [{"source": "c"}]}
    services = {"a": mounts, "b": {"secrets": [{"source": "e"}]}, "c": {"secrets": ["t"]}}
    secrets = {
        "s": {"file": str(tmp_path / "s")},
        "t": {"file": str(tmp_path / "t")},
        "gone": {"file": str(tmp_path / "gone")},
        "e": {"environment": KEY},
    }
    found = find_holders(model(services, secrets=secrets, configs={"c": {"content": f"k={SECRET}"}}), KEY, SECRET)
    assert {item.service: item.places for item in found} == {"a": ("configs.c", "secrets.s"), "b": ("secrets.e",)}


def bind(source: Path, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": str(source), "target": target, "bind": {"create_host_path": True}}


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """compose/.env.prod below a stack's directory, and .env as a link to it."""
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / ".env.prod").write_text(f"{KEY}={SECRET}\n")
    (tmp_path / ".env").symlink_to("compose/.env.prod")
    return tmp_path / "compose" / ".env.prod"


def test_a_service_that_has_the_env_file_mounted_holds_the_secret_without_its_environment(env_file: Path) -> None:
    """By itself, by a link, in a directory around it, as a secret or as a config."""
    home = env_file.parent.parent
    volume = {"type": "volume", "source": "data", "target": "/data"}
    services = {
        "file": {"volumes": [volume, bind(env_file, "/run/env")]},
        "link": {"volumes": [bind(home / ".env", "/app/.env")]},
        "around": {"volumes": [bind(env_file.parent, "/a"), bind(home, "/b")]},
        "secret": {"secrets": [{"source": "s"}]},
        "config": {"configs": [{"source": "c"}]},
        "both": {"environment": {KEY: SECRET}, "volumes": [bind(env_file, "/run/env")]},
        "beside": {"volumes": [bind(home / "data", "/data"), bind(home / "comp", "/c"), volume]},
        "monitor": {"volumes": [bind(Path("/"), "/host")]},
    }
    top = {"secrets": {"s": {"file": str(env_file)}}, "configs": {"c": {"file": str(env_file)}}}
    found = find_holders(model(services, **top), KEY, SECRET, str(home / ".env"))
    assert {item.service: item.places for item in found} == {
        "file": ("mount /run/env",),
        "link": ("mount /app/.env",),
        "around": ("mount /a", "mount /b"),
        "secret": ("secrets.s",),
        "config": ("configs.c",),
        "both": (f"environment.{KEY}", "mount /run/env"),
    }
    for item in found:
        assert item.variables == ([KEY] if item.service == "both" else [])
        assert item.files == [place for place in item.places if place != f"environment.{KEY}"]
    assert find_literals(model(services, **top), KEY, SECRET, ["/none"], str(env_file)) == []


def test_another_mounted_file_with_the_value_is_a_copy_that_a_change_does_not_reach(
    tmp_path: Path, env_file: Path
) -> None:
    path = compose_file(tmp_path, "nats.conf", f"password: {SECRET}\n")
    services = {"nats": {"volumes": [bind(tmp_path / "nats.conf", "/etc/nats.conf"), bind(Path("/dev/null"), "/x")]}}
    found = model(services)
    assert [item.places for item in find_holders(found, KEY, SECRET, str(env_file))] == [("mount /etc/nats.conf",)]
    [literal] = find_literals(found, KEY, SECRET, ["/none"], str(env_file))
    assert str(literal) == f"service nats, mount /etc/nats.conf ({path})"


def test_a_short_value_is_found_in_a_mounted_file_only_when_that_says_nothing_else(
    tmp_path: Path, env_file: Path
) -> None:
    compose_file(tmp_path, "a", "titan\n")
    compose_file(tmp_path, "b", "user: titan\n")
    services = {name: {"volumes": [bind(tmp_path / name, "/x")]} for name in "ab"}
    assert [item.service for item in find_holders(model(services), KEY, "titan", str(env_file))] == ["a"]


def compose_file(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


BASE = f"""\
services:
  # titan-brain: a comment, not the service
  titan-opsd:
    depends_on:
      titan-brain:
        condition: service_healthy
    environment:
      OPS_SECRET: ${{HMAC_SECRET}}
  titan-brain:
    image: none
    environment:
      PORT: "3100"
      HMAC_SECRET: {SECRET}
"""


def test_a_literal_is_named_by_service_variable_file_and_line(tmp_path: Path) -> None:
    path = compose_file(tmp_path, "base.yml", BASE)
    raw = {
        "titan-opsd": {"environment": {"OPS_SECRET": "${HMAC_SECRET}"}},
        "titan-brain": {"environment": {"PORT": "3100", KEY: SECRET}},
    }
    services = {name: {"environment": {}} for name in raw}
    found = find_literals(model(services, raw), KEY, SECRET, [path], str(tmp_path / "prod.env"))
    assert found == [Literal("titan-brain", KEY, path, 13)]
    assert str(found[0]) == f"service titan-brain, variable {KEY} ({path}, line 13)"


def test_the_literal_of_the_later_file_is_the_one_that_counts(tmp_path: Path) -> None:
    first = compose_file(tmp_path, "base.yml", BASE)
    text = f"services:\n\n  'titan-brain':\n    environment:\n    - \"HMAC_SECRET={SECRET}\"\n"
    second = compose_file(tmp_path, "override.yml", text)
    raw = {"titan-brain": {"environment": [f"{KEY}={SECRET}"]}}
    found = find_literals(model({"titan-brain": {}}, raw), KEY, SECRET, [first, second], "/none")
    assert found == [Literal("titan-brain", KEY, second, 5)]


def test_a_literal_of_the_first_file_is_found_past_a_later_one_that_only_names_the_service(tmp_path: Path) -> None:
    first = compose_file(tmp_path, "base.yml", BASE)
    second = compose_file(tmp_path, "override.yml", "services:\n  titan-brain:\n    image: none@sha256:1\n")
    raw = {"titan-brain": {"environment": {KEY: SECRET}}}
    found = find_literals(model({"titan-brain": {}}, raw), KEY, SECRET, [first, second], "/none")
    assert found == [Literal("titan-brain", KEY, first, 13)]


def test_the_key_with_another_fixed_value_is_a_literal_too(tmp_path: Path) -> None:
    text = "services:\n  brain:\n    environment:\n      HMAC_SECRET: 'another  value'\n"
    path = compose_file(tmp_path, "base.yml", text)
    raw = {"brain": {"environment": {KEY: "another  value"}}}
    found = find_literals(model({"brain": {}}, raw), KEY, SECRET, [path], "/none")
    assert found == [Literal("brain", KEY, path, 4)]


def test_the_key_with_an_escaped_value_is_found_by_its_name(tmp_path: Path) -> None:
    path = compose_file(tmp_path, "base.yml", 'services:\n  brain:\n    environment:\n      HMAC_SECRET: "a\\tb"\n')
    raw = {"brain": {"environment": {KEY: "a\tb"}}}
    found = find_literals(model({"brain": {}}, raw), KEY, SECRET, [path], "/none")
    assert found == [Literal("brain", KEY, path, 4)]


def test_a_literal_that_a_yaml_anchor_brings_is_found_where_it_is_written(tmp_path: Path) -> None:
    text = f"x-env: &env\n  HMAC_SECRET: {SECRET}\nservices:\n  brain:\n    environment: *env\n"
    path = compose_file(tmp_path, "base.yml", text)
    raw = {"brain": {"environment": {KEY: SECRET}}}
    found = find_literals(model({"brain": {}}, raw), KEY, SECRET, [path], "/none")
    assert found == [Literal("brain", KEY, path, 2)]


def test_a_literal_that_is_percent_encoded_says_so(tmp_path: Path) -> None:
    text = "services:\n  brain:\n    environment:\n      URL: postgres://titan:p%40ss%2Fw%C3%B6rd%2B1@db/titan\n"
    text += f"      DB_PASSWORD: {PASSWORD}\n"
    path = compose_file(tmp_path, "base.yml", text)
    other = compose_file(tmp_path, "other.env", "OTHER_URL=postgres://titan:p%40ss%2Fw%C3%B6rd%2B1@db/titan\n")
    environment = {"URL": "postgres://titan:p%40ss%2Fw%C3%B6rd%2B1@db/titan", "DB_PASSWORD": PASSWORD}
    raw = {"brain": {"environment": environment, "env_file": [other]}}
    found = find_literals(model({"brain": {}}, raw), "DB_PASSWORD", PASSWORD, [path], "/none")
    assert found == [
        Literal("brain", "URL", path, 4, encoded=True),
        Literal("brain", "DB_PASSWORD", path, 5, encoded=False),
        Literal("brain", "OTHER_URL", other, 1, encoded=True),
    ]


def test_a_literal_elsewhere_than_in_the_environment_is_found(tmp_path: Path) -> None:
    path = compose_file(tmp_path, "base.yml", f"services:\n  brain:\n    command: [serve, --key={SECRET}]\n")
    raw = {"brain": {"command": ["serve", f"--key={SECRET}"]}}
    found = find_literals(model({"brain": {}}, raw), KEY, SECRET, [path], "/none")
    assert found == [Literal("brain", "command[1]", path, 3)]


@pytest.mark.parametrize(
    "text",
    ["${HMAC_SECRET}", "$HMAC_SECRET", "${HMAC_SECRET:?required}", "${OTHER:-${HMAC_SECRET}}", "x${HMAC_SECRET}"],
)
def test_a_reference_is_no_literal(text: str) -> None:
    raw = {"brain": {"environment": {KEY: text, "OPS_SECRET": text, "HMAC_SECRET_OLD": "x"}}}
    assert find_literals(model({"brain": {}}, raw), KEY, SECRET, ["/none"], "/none") == []


@pytest.mark.parametrize("text", ["", "$$HMAC_SECRET", "5$", "$1"])
def test_what_only_looks_like_a_reference_is_a_literal(text: str) -> None:
    raw = {"brain": {"environment": {KEY: text}}}
    assert [item.variable for item in find_literals(model({"brain": {}}, raw), KEY, SECRET, ["/none"], "/x")] == [KEY]


def test_a_variable_without_a_value_is_no_literal() -> None:
    raw = {"brain": {"environment": {KEY: None}}, "opsd": {"environment": [KEY]}}
    assert find_literals(model({"brain": {}, "opsd": {}}, raw), KEY, SECRET, ["/none"], "/none") == []


def test_the_value_in_another_env_file_is_a_literal_with_its_line(tmp_path: Path) -> None:
    other = compose_file(tmp_path, "other.env", f"# c\nA=1\nOPS_SECRET='{SECRET}'\n\nHMAC_SECRET=different\n")
    ours = compose_file(tmp_path, "prod.env", f"HMAC_SECRET={SECRET}\n")
    (tmp_path / "link.env").symlink_to("prod.env")
    env_files = [{"path": path} for path in (ours, str(tmp_path / "link.env"), other, str(tmp_path / "absent.env"))]
    raw = {"brain": {"env_file": env_files}}
    found = find_literals(model({"brain": {}}, raw), KEY, SECRET, ["/none"], ours)
    assert found == [Literal("brain", "OPS_SECRET", other, 3), Literal("brain", KEY, other, 5)]


def test_the_value_in_a_mounted_secrets_file_is_a_literal(tmp_path: Path) -> None:
    path = compose_file(tmp_path, "s", SECRET)
    services = {"brain": {"secrets": [{"source": "s"}]}}
    found = find_literals(model(services, secrets={"s": {"file": path}}), KEY, SECRET, ["/none"], "/none")
    assert found == [Literal("brain", "secrets.s", path, None)]
    assert str(found[0]) == f"service brain, secrets.s ({path})"
    assert find_literals(model(services, secrets={"s": {"file": path}}), KEY, SECRET, ["/none"], path) == []


def test_outsiders_are_running_containers_that_no_service_accounts_for() -> None:
    holding = {"environment": {"X": SECRET}}
    ours = container("brain", **holding)
    outsiders = [
        container(name="by-hand", **holding),
        container("brain", project="other", name="other-brain-1", **holding),
        container("brain", name="p-brain-run-1", labels={"oneoff": "True"}, **holding),
        container("removed", **holding),
    ]
    harmless = [
        container("removed", name="stopped", status="exited", **holding),
        container(name="knows-nothing", environment={"X": "other"}),
    ]
    found = find_outsiders([ours, *outsiders, *harmless], "titan-prod", ["brain"], SECRET)
    assert found == outsiders
