# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Compose command line: what is asked of it, and what is passed on of its words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.cli import ComposeCli, _last_words
from ansible_collections.titan.ops.plugins.module_utils.core.errors import CommandFailed, InvalidInput, OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.runner import Completed, Runner
from ansible_collections.titan.ops.tests.unit import real_compose

WARNING = 'time="2026-11-22T12:41:39Z" level=warning msg="The \\"WARN\\" variable is not set. Defaulting to ..."\n'

# What Compose 2.26.1 wrote on standard error (COMPOSE_PROGRESS=plain, COMPOSE_ANSI=never), and what of it is told.
WORDS_2_26 = {
    "unknown service": (WARNING + "no such service: nosuch\n", "no such service: nosuch"),
    "container cannot start": (
        " Container titan-brain  Recreate\n Container titan-brain  Recreated\n Container titan-brain  Starting\n"
        "Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: unable"
        ' to start container process: exec: "nosuchcommand": executable file not found in $PATH: unknown\n',
        "Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: unable"
        ' to start container process: exec: "nosuchcommand": executable file not found in $PATH: unknown',
    ),
    "dependency is unhealthy": (
        " Container titan-nats  Running\n Container titan-nats  Waiting\n Container titan-nats  Error\n"
        "dependency failed to start: container titan-nats is unhealthy\n",
        "dependency failed to start: container titan-nats is unhealthy",
    ),
    "image cannot be had": (
        WARNING + " web Pulling \n"
        ' web Error Get "https://registry.invalid/v2/": dial tcp: lookup registry: no such host\n'
        'Error response from daemon: Get "https://registry.invalid/v2/": dial tcp: lookup registry: no such host\n',
        'Error response from daemon: Get "https://registry.invalid/v2/": dial tcp: lookup registry: no such host',
    ),
    "name is taken": (
        ' Container titan-brain  Creating\nError response from daemon: Conflict. The container name "/titan-brain" is'
        ' already in use by container "06c560457932". You have to remove (or rename) that container to be able to reuse'
        " that name.\n",
        'Error response from daemon: Conflict. The container name "/titan-brain" is already in use by container'
        ' "06c560457932". You have to remove (or rename) that container to be able to reuse that name.',
    ),
    "no engine": (
        "Cannot connect to the Docker daemon at unix:///run/none.sock. Is the docker daemon running?\n",
        "Cannot connect to the Docker daemon at unix:///run/none.sock. Is the docker daemon running?",
    ),
    "key twice in the file": (
        'yaml: unmarshal errors:\n  line 4: mapping key "image" already defined at line 3\n',
        'yaml: unmarshal errors: line 4: mapping key "image" already defined at line 3',
    ),
    "network and volume": (
        ' Network p_default  Creating\n Network p_default  Created\n Volume "p_v"  Creating\n Volume "p_v"  Created\n'
        "no such service: x\n",
        "no such service: x",
    ),
    "invalid interpolation": (
        "invalid interpolation format for services.web.environment.HMAC_SECRET.\n"
        "You may need to escape any $ with another $.\nSECRET${VALUE\n",
        "invalid interpolation format for services.web.environment.HMAC_SECRET."
        " You may need to escape any $ with another $. ********",
    ),
    "nothing but progress": (" Container titan-brain  Recreate\n", "no output"),
    "silence": ("", "no output"),
}


@pytest.mark.parametrize(("output", "words"), WORDS_2_26.values(), ids=WORDS_2_26.keys())
def test_of_composes_output_the_error_is_told(output: str, words: str) -> None:
    assert _last_words(output) == words


class RealCompose(Runner):
    """Runs ``docker compose`` as this machine has it."""

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        assert argv[:2] == ["docker", "compose"]
        return super().run([*real_compose.command(), *argv[2:]], **options)


BAD = {
    "space in an env file's name": ({"prod.env": "A=1\nB C=SECRETVALUE\n"}, "line 2: key cannot contain a space"),
    "quote never closed": ({"prod.env": "A=1\nB='SECRETVALUE\nC=SECRET2\n"}, "unterminated quoted value ****"),
    "invalid reference": ({"prod.env": "B=SECRET${C\nD=SECRET2\n"}, "nvalid template: ****"),
    "odd character": ({"prod.env": "A=1\nB!=SECRETVALUE\n"}, 'unexpected character "!" in variable name ****'),
    "odd character in a service's": (
        {"x.env": "B!=SECRETVALUE\n", "c.yml": "services:\n  a: {image: i, env_file: x.env}\n"},
        'unexpected character "!" in variable name ****',
    ),
    "quote in a service's": (
        {"x.env": 'B="SECRETVALUE\n', "c.yml": "services:\n  a: {image: i, env_file: x.env}\n"},
        "unterminated quoted value ****",
    ),
    "invalid interpolation": (
        {"c.yml": "services:\n  a:\n    image: i\n    environment:\n      HMAC_SECRET: SECRET${x\n"},
        "invalid interpolation format for services.a.environment.HMAC_SECRET",
    ),
    "invalid YAML": (
        {"c.yml": "services:\n  a:\n    environment:\n      HMAC_SECRET: SECRETVALUE: x\n"},
        "mapping values are not allowed",
    ),
    "wrong type": ({"c.yml": "services:\n  a: {image: i, environment: SECRETVALUE}\n"}, "environment"),
    "wrong type inside": ({"c.yml": "services:\n  a: {image: i, environment: {A: [SECRETVALUE]}}\n"}, "environment"),
    "unknown option": ({"c.yml": "services:\n  a: {image: i, enviroment: {A: SECRETVALUE}}\n"}, "enviroment"),
    "required variable": ({"c.yml": "services:\n  a: {image: '${IMAGE:?set IMAGE}'}\n"}, "set IMAGE"),
    "undefined dependency": ({"c.yml": "services:\n  a: {image: i, depends_on: [b]}\n"}, "undefined service"),
}


@pytest.mark.parametrize(("files", "said"), BAD.values(), ids=BAD.keys())
def test_the_real_composes_refusal_is_passed_on_without_a_secret(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, text in {"prod.env": "A=1\n", "c.yml": "services:\n  a: {image: i}\n", **files}.items():
        (tmp_path / name).write_text(text)
    cli = ComposeCli(
        RealCompose(),
        project_src=str(tmp_path),
        files=[str(tmp_path / "c.yml")],
        env_files=[str(tmp_path / "prod.env")],
    )
    with pytest.raises(InvalidInput) as caught:
        cli.config()
    told = str(caught.value)
    assert said in told
    assert f"Compose refuses the project in {tmp_path}" in told
    assert "SECRET" not in told.replace("HMAC_SECRET", "") + str(caught.value.facts)


class Recorder(Runner):
    """Answers what it is told to and keeps what was asked."""

    def __init__(self, *, rc: int = 0, stdout: str = "", stderr: str = "", error: OpsError | None = None) -> None:
        self.asked: list[list[str]] = []
        self.options: list[dict[str, Any]] = []
        self._answer = (rc, stdout.encode(), stderr.encode())
        self._error = error

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        self.asked.append(list(argv))
        self.options.append(options)
        if self._error:
            raise self._error
        return Completed(tuple(argv), *self._answer)


def cli(runner: Runner, **options: Any) -> ComposeCli:
    return ComposeCli(runner, project_src="/opt/titan", files=["/opt/titan/a.yml", "/opt/titan/b.yml"], **options)


def test_every_call_carries_the_projects_files_env_files_and_profiles() -> None:
    runner = Recorder()
    cli(runner, env_files=["/e1", "/e2"], profiles=["gpu"], docker_host="unix:///x").stop("titan-prod", ["brain"])
    [asked] = runner.asked
    assert " ".join(asked) == (
        "docker compose --project-name titan-prod --project-directory /opt/titan --file /opt/titan/a.yml"
        " --file /opt/titan/b.yml --env-file /e1 --env-file /e2 --profile gpu stop brain"
    )
    [options] = runner.options
    assert options["cwd"] == "/opt/titan"
    assert options["env"]["DOCKER_HOST"] == "unix:///x"


def test_no_variable_of_our_own_environment_can_shadow_the_env_file() -> None:
    runner = Recorder(stdout="{}")
    compose = cli(runner)
    compose.config()
    compose.up("p")
    assert [options["inherit"] for options in runner.options] == [False, False]


def test_every_call_knows_where_the_clients_own_configuration_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is asked of the very Compose that is used: plugins and proxies come from DOCKER_CONFIG."""
    monkeypatch.setenv("DOCKER_CONFIG", "/etc/titan/docker")
    monkeypatch.setenv("DOCKER_CERT_PATH", "/etc/titan/certificates")
    monkeypatch.setenv("COMPOSE_FILE", "/somewhere/else.yml")
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    runner = Recorder(stdout="2.26.1")
    compose = cli(runner)
    compose.check_version()
    compose.up("p")
    version, up = runner.options
    assert version["env"] == up["env"]
    assert (version["inherit"], up["inherit"]) == (False, False)
    assert up["env"]["DOCKER_CONFIG"] == "/etc/titan/docker"
    assert up["env"]["DOCKER_CERT_PATH"] == "/etc/titan/certificates"
    assert not {"COMPOSE_FILE", "DOCKER_TLS_VERIFY"} & set(up["env"])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: c.up("p"), "up --detach --quiet-pull"),
        (lambda c: c.up("p", ["a", "b"]), "up --detach --quiet-pull a b"),
        (lambda c: c.up("p", ["a"], isolated=True), "up --detach --quiet-pull --no-deps a"),
        (lambda c: c.up("p", isolated=True), "up --detach --quiet-pull"),
        (lambda c: c.up("p", ["a"], recreate=True, start=False), "up --no-start --quiet-pull --force-recreate a"),
        (
            lambda c: c.up("p", ["a"], recreate=True, start=False, fetch=False),
            "up --no-start --quiet-pull --pull never --no-build --force-recreate a",
        ),
        (lambda c: c.up("p", stop_timeout=0.2), "up --detach --quiet-pull --timeout 1"),
        (lambda c: c.stop("p"), "stop"),
        (lambda c: c.stop("p", ["a"], grace=29.6), "stop --timeout 30 a"),
        (lambda c: c.restart("p"), "restart"),
        (lambda c: c.restart("p", ["a"], grace=5), "restart --timeout 5 --no-deps a"),
        (lambda c: c.restart("p", ["a"], dependencies=True), "restart a"),
    ],
)
def test_changes_are_scoped_to_the_services_unless_asked_otherwise(call: Any, said: str) -> None:
    runner = Recorder()
    call(cli(runner))
    [argv] = runner.asked
    assert " ".join(argv[argv.index("/opt/titan/b.yml") + 1 :]) == said


def test_a_failure_carries_composes_words_and_exit_code() -> None:
    runner = Recorder(rc=18, stderr=" Container a  Starting\nError response from daemon: no\n")
    with pytest.raises(CommandFailed) as caught:
        cli(runner).up("p", ["a"], isolated=True)
    assert caught.value.msg == (
        "`docker compose up --detach --quiet-pull --no-deps a` failed with exit code 18: Error response from daemon: no"
    )
    assert caught.value.facts == {"rc": 18, "stderr": "Error response from daemon: no"}


def test_what_compose_says_is_told_without_secrets() -> None:
    words = 'Error: bad HMAC_KEY=abc at redis://:hunter2@h with "postgres" in n0t-f0r-y0u\n'
    compose = cli(Recorder(rc=1, stderr=words))
    compose.redact.add("postgres")
    compose.redact.add("n0t-f0r-y0u")
    compose.redact.allow(["titan-postgres"])
    with pytest.raises(CommandFailed) as caught:
        compose.up("p", ["titan-postgres"])
    told = 'Error: bad HMAC_KEY=******** at redis://:********@h with "********" in ********'
    assert caught.value.facts["stderr"] == told
    assert caught.value.msg.endswith(f"up --detach --quiet-pull titan-postgres` failed with exit code 1: {told}")


def test_a_variable_that_compose_misses_is_named() -> None:
    words = (
        "error while interpolating services.a.environment.DB_PASSWORD: required variable TITAN_DB_PASSWORD is missing a"
        " value: set it\n"
    )
    with pytest.raises(
        InvalidInput, match="DB_PASSWORD, required variable TITAN_DB_PASSWORD is missing a value: set it"
    ):
        cli(Recorder(rc=1, stderr=words)).config()


class Hashing(Runner):
    """Compose with two services; the hash of one without its dependencies is another."""

    def __init__(self) -> None:
        self.data: list[Any] = []

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        if "--hash" not in argv:
            config = {"services": {"a": {"depends_on": {"b": {}}, "environment": {"K": "SECRET"}}, "b": {}}}
            return Completed(tuple(argv), 0, json.dumps(config).encode(), b"")
        assert "SECRET" not in str(argv)
        assert [*argv[-5:]] == ["--file", "-", "config", "--hash", "*"]
        self.data.append(json.loads(options["data"]))
        number = 1 if "depends_on" in self.data[-1]["services"]["a"] else 2
        return Completed(tuple(argv), 0, f"a 012{number}\nb 4567\n\n".encode(), b"")


def test_hashes_are_those_of_the_resolved_project_with_and_without_dependencies() -> None:
    runner = Hashing()
    compose = cli(runner)
    assert compose.hashes("p") == {"a": "0121", "b": "4567"}
    assert compose.hashes("p", dependencies=False) == {"a": "0122", "b": "4567"}
    assert compose.known_hashes("p") == {"a": {"0121", "0122"}, "b": {"4567"}}
    assert runner.data[0]["services"]["a"]["environment"] == {"K": "SECRET"}


def test_what_is_not_json_is_said_to_be_so() -> None:
    with pytest.raises(OpsError, match="did not print JSON"):
        cli(Recorder(stdout="<html>")).config()


@pytest.mark.parametrize("version", ["2.18.0", "v2.26.1-4", "2.40.3", "5.0.0"])
def test_versions_from_2_18_on_are_fine(version: str) -> None:
    assert cli(Recorder(stdout=version + "\n")).check_version() == version


@pytest.mark.parametrize("version", ["2.17.3", "1.29.2", "", "unknown"])
def test_older_versions_are_refused(version: str) -> None:
    with pytest.raises(InvalidInput, match=r"is too old: 2\.18 or later is needed"):
        cli(Recorder(stdout=version)).check_version()


def test_a_host_without_compose_is_told_what_to_install() -> None:
    runner = Recorder(error=CommandFailed("`docker compose` failed with exit code 1: unknown command"))
    with pytest.raises(InvalidInput, match="Docker Compose v2 is not installed") as caught:
        cli(runner).check_version()
    assert "docker-compose-v2" in str(caught.value.hint)
