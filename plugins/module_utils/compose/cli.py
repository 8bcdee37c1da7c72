# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Compose v2 command line: the one way in which this collection changes containers of a stack."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import CommandFailed, InvalidInput, OpsError
from ..core.redact import Redactor
from ..core.runner import Completed, Runner

__all__ = ["MINIMUM", "ComposeCli"]

# config --format json, config --hash and up --no-start behave alike from here on (Compose release notes, 2.18).
MINIMUM = (2, 18)
# What the Docker client itself reads of the environment, beside PATH and HOME: where its plugins, its proxies and its
# certificates are (Docker manual, "Environment variables").
_CLIENT = ("DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")


class ComposeCli:
    """``docker compose`` with a project's fixed arguments.

    Args:
        runner: runs the command.
        project_src: the project directory, and where commands run.
        files: Compose files, absolute paths.
        env_files: files for ``--env-file``, absolute paths, later ones win.
        profiles: active profiles.
        docker_host: address of the engine.

    Attributes:
        redact: takes secrets out of Compose's words; the stack gives its own, which knows their values.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        project_src: str,
        files: Sequence[str],
        env_files: Sequence[str] = (),
        profiles: Sequence[str] = (),
        docker_host: str = "unix:///var/run/docker.sock",
    ) -> None:
        self._runner = runner
        self._project_src = project_src
        self.redact = Redactor()
        self._env = {"DOCKER_HOST": docker_host, "COMPOSE_ANSI": "never", "COMPOSE_PROGRESS": "plain"}
        self._env.update({name: os.environ[name] for name in _CLIENT if name in os.environ})
        self._profiles = tuple(profiles)
        self._args = ["--project-directory", project_src]
        for path in files:
            self._args += ["--file", path]
        for path in env_files:
            self._args += ["--env-file", path]
        for profile in profiles:
            self._args += ["--profile", profile]

    def check_version(self) -> str:
        """The version of Compose.

        Raises:
            InvalidInput: there is no Compose v2, or it is older than 2.18.
        """
        try:
            command = ["docker", "compose", "version", "--short"]
            text = self._runner.run(command, env=self._env, inherit=False, timeout=60).out.strip()
        except CommandFailed as exc:
            raise InvalidInput(
                "Docker Compose v2 is not installed on this host: `docker compose version` does not answer",
                hint="Install the Compose plugin (Ubuntu: docker-compose-v2, Debian 13: docker-compose).",
            ) from exc
        match = re.match(r"v?(\d+)\.(\d+)", text)
        if match is None or (int(match[1]), int(match[2])) < MINIMUM:
            raise InvalidInput(
                f"Docker Compose {text or '(unknown)'} is too old: {MINIMUM[0]}.{MINIMUM[1]} or later is needed",
                hint="Upgrade the Compose plugin.",
            )
        return text

    def config(self, *, interpolate: bool = True, project: str | None = None, all_profiles: bool = False) -> Any:
        """The project as Compose resolves it (``config --format json``), secrets included: keep it in memory.

        Raises:
            InvalidInput: Compose refuses the project; the message is Compose's own.
        """
        argv = ["config", "--format", "json"] + ([] if interpolate else ["--no-interpolate"])
        try:
            done = self._compose(argv, project=project, extra=["--profile", "*"] if all_profiles else [])
        except CommandFailed as exc:
            raise InvalidInput(
                f"Compose refuses the project in {self._project_src}: {exc.facts.get('stderr') or exc.msg}",
                hint="Mend the Compose or env file; `docker compose config -q` checks it.",
            ) from exc
        try:
            return json.loads(done.out)
        except ValueError as exc:
            raise OpsError(
                "`docker compose config --format json` did not print JSON", state="Nothing was changed."
            ) from exc

    def resolve(self, definition: Mapping[str, Any], *, env_files: Sequence[str], project: str | None = None) -> Any:
        """Another project, given as data, as Compose resolves it with these env files; secrets included.

        Raises:
            CommandFailed: Compose refuses it; ``facts["stderr"]`` has its own words.
        """
        arguments = ["--project-directory", self._project_src, "--file", "-"]
        for path in env_files:
            arguments += ["--env-file", path]
        for profile in self._profiles:
            arguments += ["--profile", profile]
        data = json.dumps(definition).encode()
        done = self._compose(["config", "--format", "json"], project=project, arguments=arguments, data=data)
        return json.loads(done.out)

    def hashes(self, project: str, *, dependencies: bool = True) -> dict[str, str]:
        """Every active service's configuration hash, as Compose labels a container with that it creates now.

        ``config --hash`` on the project's own files does not tell it: Compose 2.22 and later leave ``env_file`` out
        there, but not when they create a container (docker/compose issue 14001). A project that is resolved already has
        no ``env_file`` left, so that one is given on standard input.

        Args:
            project: the project's name.
            dependencies: as ``up`` labels; without, as ``up --no-deps`` does (Compose 2.19 to 2.29.2 put ``depends_on``
                into the hash, docker/compose issue 12069).

        Raises:
            OpsError: Compose refuses the project.
        """
        config = self.config(project=project)
        if not dependencies:
            for service in (config.get("services") or {}).values():
                service.pop("depends_on", None)
        data = json.dumps(config).encode()
        arguments = ["--project-directory", self._project_src, "--file", "-"]
        for profile in self._profiles:
            arguments += ["--profile", profile]
        done = self._compose(["config", "--hash", "*"], project=project, arguments=arguments, data=data)
        pairs = (line.split() for line in done.out.splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    def known_hashes(self, project: str) -> dict[str, set[str]]:
        """Both hashes of each service: with neither of them has its configuration changed."""
        full, bare = self.hashes(project), self.hashes(project, dependencies=False)
        return {name: {full[name], bare[name]} for name in full}

    def up(
        self,
        project: str,
        services: Sequence[str] = (),
        *,
        isolated: bool = False,
        recreate: bool = False,
        keep: bool = False,
        start: bool = True,
        fetch: bool = True,
        stop_timeout: float | None = None,
        timeout: float = 600,
    ) -> None:
        """Create, and start unless told not to, the containers of services (of the whole stack when none is named).

        Args:
            project: the project's name.
            services: Compose service names.
            isolated: leave what they depend on alone (``--no-deps``). Compose labels such containers as if they had no
                dependencies, and its next plain ``up`` replaces them: see ``operations.must_isolate``.
            recreate: replace containers even when nothing changed.
            keep: replace none, whatever changed.
            start: start them; without it they are only created.
            fetch: pull and build images where ``pull_policy`` or a missing one asks for it; without, only what is there
                is used.
            stop_timeout: seconds of grace for containers that are replaced (Compose's own rule without).
            timeout: seconds for the whole command.

        Raises:
            CommandFailed: Compose failed.
        """
        argv = ["up", "--detach" if start else "--no-start", "--quiet-pull"]
        if not fetch:
            argv += ["--pull", "never", "--no-build"]
        if services and isolated:
            argv.append("--no-deps")
        if recreate:
            argv.append("--force-recreate")
        if keep:
            argv.append("--no-recreate")
        if stop_timeout is not None:
            argv += ["--timeout", str(max(1, round(stop_timeout)))]
        self._compose([*argv, *services], project=project, timeout=timeout)

    def stop(self, project: str, services: Sequence[str] = (), *, grace: float | None = None) -> None:
        """Stop containers; ``grace`` in seconds, Compose's own rule (stop_grace_period, else 10) without."""
        options = ["--timeout", str(max(1, round(grace)))] if grace is not None else []
        self._compose(["stop", *options, *services], project=project, timeout=600)

    def restart(
        self, project: str, services: Sequence[str] = (), *, dependencies: bool = False, grace: float | None = None
    ) -> None:
        """Stop and start the same containers; neither configuration nor environment is read again."""
        options = ["--timeout", str(max(1, round(grace)))] if grace is not None else []
        if services and not dependencies:
            options.append("--no-deps")
        self._compose(["restart", *options, *services], project=project, timeout=600)

    def _compose(
        self,
        argv: Sequence[str],
        *,
        project: str | None,
        extra: Sequence[str] = (),
        arguments: Sequence[str] | None = None,
        data: bytes | None = None,
        timeout: float = 120,
    ) -> Completed:
        name = ["--project-name", project] if project else []
        # A variable of our own environment would win over the env file (Compose's order of precedence): hand none down.
        fixed = self._args if arguments is None else arguments
        command = ["docker", "compose", *name, *fixed, *extra, *argv]
        done = self._runner.run(
            command, cwd=self._project_src, env=self._env, inherit=False, data=data, timeout=timeout, check=False
        )
        if done.rc != 0:
            words = self.redact(_REQUIRED.sub(", ", _last_words(done.err or done.out)))
            raise CommandFailed(
                f"`docker compose {' '.join(argv)}` failed with exit code {done.rc}: {words}",
                facts={"rc": done.rc, "stderr": words},
            )
        return done


# Where Compose quotes what it could not read of an env or Compose file, and with it perhaps a secret (compose-go 2.0).
_QUOTED = re.compile(
    r"(in variable name |unterminated quoted value |[Ii]nvalid template: |escape any \$ with another \$\.\s*).*",
    re.DOTALL,
)
# "services.brain.environment.HMAC_SECRET: required variable ..." gives a name, and no value after it.
_REQUIRED = re.compile(r": (?=required variable )")
_PROGRESS = re.compile(r"(?:Container|Network|Volume|time=.*level=warning)\b|\S+ (?:Pulling|Pulled|Error|Skipped)\b")


def _last_words(text: str) -> str:
    """The lines of Compose's output that tell what went wrong, without progress, warnings and quoted files."""
    text = _QUOTED.sub(r"\1********", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not _PROGRESS.match(line)]
    return " ".join(lines[-5:]) if lines else "no output"
