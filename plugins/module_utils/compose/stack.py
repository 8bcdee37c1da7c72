# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Compose stack on this host: what it declares, what runs of it, and waiting for it to be well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Callable

from ..core.clock import Clock, wait_for
from ..core.errors import InvalidInput, OpsError, Unhealthy
from ..core.history import Recovered
from ..core.redact import Redactor, all_values, secret_values
from ..core.runner import Runner
from .cli import ComposeCli
from .container import Container
from .engine import Engine, connect
from .model import Model
from .project import Project, StackOptions, locate, project_name

__all__ = ["DEFAULT_GRACE", "Stack", "open_stack"]

# Titan's brain takes up to 30 seconds to end what it has begun; Docker's own ten would kill it.
DEFAULT_GRACE = 30.0
# A container without a health check counts as well when it has run for this long without a restart.
_SETTLE = 1.0
_CRASH_LOOP = 3


class Stack:
    """One Compose project, located.

    Attributes:
        options: what the operator said.
        project: where it is.
        engine: the Docker Engine.
        compose_version: the version of Compose, once the files were read.
        redact: masks every secret that the stack's environments hold.
        recovered: the interrupted operations that were finished or undone, for the history.
        warnings: what the operator should know of what was recovered.
        began: when the operation under way began, seconds since the epoch.
    """

    def __init__(
        self,
        options: StackOptions,
        project: Project,
        *,
        cli: ComposeCli,
        engine: Engine,
        clock: Clock,
        version: str = "",
        trouble: OpsError | None = None,
    ) -> None:
        self.options = options
        self.project = project
        self.engine = engine
        self.clock = clock
        self.compose_version = version
        self.redact = cli.redact = Redactor()
        self.recovered: list[Recovered] = []
        self.warnings: list[str] = []
        self.began = clock.now()
        self._cli = cli
        self._trouble = trouble
        self._model: Model | None = None
        self._known_as: str | None = None

    @property
    def cli(self) -> ComposeCli:
        """Compose with the project's arguments.

        Raises:
            OpsError: the project's files are not known.
        """
        if self._trouble is not None:
            raise self._trouble
        return self._cli

    @property
    def name(self) -> str:
        """The Compose project's name: what the containers' labels say, else the journal, else Compose."""
        return self.project.name or self._known_as or self.model.name

    def known_as(self, name: str) -> None:
        """Say what the project was called, for when there is no container left that tells."""
        self._known_as = name

    @property
    def model(self) -> Model:
        """What the Compose and env files say. They are read when this is first asked for, for an interrupted operation
        must be undone whatever they say by then.

        Raises:
            OpsError: as ``load_model``.
        """
        return self._model or self.load_model()

    def load_model(self) -> Model:
        """Read the Compose and env files again.

        Raises:
            InvalidInput: a file is missing, there is no Compose v2, or it refuses the files.
        """
        self._model = None
        cli = self.cli
        self.compose_version = self.compose_version or cli.check_version()
        config = cli.config(project=self.project.name)
        raw = cli.config(interpolate=False, project=self.project.name)
        self._model = model = Model.from_config(config, raw)
        for service in model.services.values():
            for value in secret_values(service.environment):
                self.redact.add(value)
        # A password may be an ordinary word: what everybody may see is shown all the same.
        self.redact.allow([*_names(model), self.project.src, *self.project.files, *self.project.env_files])
        return model

    def forget_model(self) -> None:
        """Let the files be read again when they are next asked for."""
        self._model = None

    def resolve(self, name: str) -> str:
        """The service meant by a service or container name; of one that has a container, its labels tell.

        Raises:
            InvalidInput: there is none, or the files cannot be read.
        """
        if self._model is None:
            found = {
                str(item.service) for item in self.containers() if item.service and name in (item.service, item.name)
            }
            if len(found) == 1:
                return found.pop()
        return self.model.resolve(name)

    def containers(self) -> list[Container]:
        """The project's containers, those of ``docker compose run`` left out."""
        return [item for item in self.engine.project_containers(self.name) if not item.one_off]

    def containers_of(self, services: Iterable[str]) -> dict[str, list[Container]]:
        """The containers of some services, by service; an empty list where there are none."""
        found: dict[str, list[Container]] = {name: [] for name in services}
        for container in self.containers():
            if container.service in found:
                found[str(container.service)].append(container)
        return found

    def grace(self, service: str, default: float | None = None) -> float:
        """Seconds that a service gets to stop: what the Compose file says, else ``default``, else 30."""
        declared = self.model.services[service].stop_grace if service in self.model.services else None
        return declared if declared is not None else (default if default is not None else DEFAULT_GRACE)

    def address(self, service: str) -> str:
        """The network address of a service's running container.

        Raises:
            OpsError: it does not run or has none (host networking has: 127.0.0.1).
        """
        for container in self.containers_of([service])[service]:
            if container.address:
                return container.address
        raise OpsError(f"The service {service} has no running container with a network address")

    def tail(self, container: Container, lines: int = 20) -> list[str]:
        """The last log lines of a container, redacted; a log that cannot be read gives the reason instead.

        Of its environment every value is masked that may be a secret, whatever it is called.
        """
        names = self._words()
        try:
            image = self.engine.image_environment(container.image_id) or {}
            raw = self.engine.logs(container.id, tail=lines)
        except OpsError as exc:
            image, raw = {}, [f"(no log: {exc.msg})"]
        redact = Redactor(all_values(container.environment, image=image, names=names), public=names)
        return [self.redact(redact(line)) for line in raw]

    def _words(self) -> set[str]:
        """Words of the stack that are no secret, also while its files cannot be read."""
        try:
            return _names(self.model)
        except OpsError:
            words = {text for item in self.containers() for text in (item.project, item.service, item.name, item.image)}
            return {text for text in words if text}

    def wait_well(self, services: Sequence[str], *, timeout: float, healthy: bool = True) -> dict[str, Container]:
        """Wait until every service's containers run and, where they have a health check, pass it.

        Args:
            services: Compose service names.
            timeout: seconds for all of them together.
            healthy: wait for health checks; without it running for a moment is enough.

        Returns:
            The (first) container of each service, as it was when it was first seen well.

        Raises:
            Unhealthy: a container exited, restarts in a loop, is unhealthy, or the time ran out; carries its last
                log lines, redacted.
        """
        restarts = {item.id: item.restart_count for item in self.containers()}
        last: dict[str, str] = {}
        first: dict[str, Container] = {}

        def all_well() -> dict[str, Container] | None:
            last.clear()
            for name, found in self.containers_of(services).items():
                if not found:
                    last[name] = "has no container"
                for container in found:
                    self._fail_early(name, container, restarts.get(container.id, 0))
                    trouble = self.trouble(container, healthy)
                    if trouble:
                        last[name] = trouble
                    else:
                        first.setdefault(name, container)
            return None if last else first

        wells = wait_for(all_well, timeout=timeout, clock=self.clock)
        if wells is None:
            name, trouble = sorted(last.items())[0]
            others = f" (likewise: {', '.join(sorted(last)[1:])})" if len(last) > 1 else ""
            found = self.containers_of([name])[name]
            raise self.unhealthy(name, f"{trouble} after {timeout:g} seconds{others}", found[0] if found else None)
        return wells

    def _fail_early(self, name: str, container: Container, restarts_before: int) -> None:
        if container.completed:
            return
        if container.status in ("exited", "dead"):
            reason = f"exited with code {container.exit_code}"
        elif container.restart_count - restarts_before >= _CRASH_LOOP:
            reason = f"restarts in a loop, last exit code {container.exit_code}"
        elif container.health == "unhealthy":
            reason = "is unhealthy"
        elif container.status == "paused":
            reason = f"is paused (docker unpause {container.name})"
        else:
            return
        raise self.unhealthy(name, reason, container)

    def trouble(self, container: Container, healthy: bool = True) -> str | None:
        """Why a container is not well (yet), e.g. "exited with code 1" or "is restarting"; None when it is well.

        Args:
            container: as just read.
            healthy: look at its health check; without it running for a moment is enough.
        """
        if container.completed:
            return None
        if container.status in ("exited", "dead"):
            return f"exited with code {container.exit_code}"
        if container.status != "running":
            return f"is {container.status}" + (f" ({container.error})" if container.error else "")
        if healthy and container.health is not None:
            return None if container.health == "healthy" else f"is running, its health check says {container.health}"
        settled = container.started_at is not None and self.clock.now() - container.started_at >= _SETTLE
        return None if settled else "has only just started"

    def unhealthy(self, service: str, reason: str, container: Container | None) -> Unhealthy:
        """The error for a service that is not well, with the last log lines of its container, redacted."""
        log = self.tail(container) if container else []
        return Unhealthy(
            f"The service {service} {reason}" + (f"; its last log lines: {' | '.join(log[-5:])}" if log else ""),
            facts={"service": service, "log": log},
        )


def _names(model: Model) -> set[str]:
    """Words of the stack that are no secret: of its project, services, containers and images."""
    services = model.services.values()
    words = {model.name, *model.services}
    return {*words, *(text for item in services for text in (item.container_name, item.image) if text)}


def open_stack(
    options: StackOptions, *, runner: Runner, clock: Clock, connector: Callable[[str], Engine] = connect
) -> Stack:
    """Locate the stack; its files are read when something asks what they say.

    Raises:
        OpsError: Docker does not run, there is no such directory, or it cannot be told which project is meant.
    """
    if not options.project_src.startswith("/"):
        raise InvalidInput(f"project_src must be an absolute path, not {options.project_src}")
    engine = connector(options.docker_host)
    containers = engine.project_containers()
    trouble = None
    try:
        project = locate(options, containers)
    except InvalidInput as exc:  # told to whoever asks for the files, and not to one who only undoes
        project, trouble = Project(options.project_src, project_name(options, containers), (), ()), exc
    cli = ComposeCli(
        runner,
        project_src=project.src,
        files=project.files,
        env_files=project.env_files,
        profiles=options.profiles,
        docker_host=options.docker_host,
    )
    return Stack(options, project, cli=cli, engine=engine, clock=clock, trouble=trouble)
