# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Docker Engine whose sidecars are processes of this machine: PostgreSQL's own programs against a real server."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

from ansible_collections.titan.ops.plugins.module_utils.backup.options import BackupOptions, backup_spec
from ansible_collections.titan.ops.plugins.module_utils.backup.tools import Effects
from ansible_collections.titan.ops.plugins.module_utils.compose.container import Container
from ansible_collections.titan.ops.plugins.module_utils.compose.project import StackOptions
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.tests.unit.fakes import FakeEngine, container
from ansible_collections.titan.ops.tests.unit.postgres import Postgres

PASSWORD = "a:pass\\word of titan"


class SidecarEngine(FakeEngine):
    """FakeEngine with containers that run.

    Attributes:
        bodies: what every container was made from.
        on_start: called with the program's arguments before it starts.
        lacks: programs that the image does not have.
        instead: what is run in place of a program.
    """

    def __init__(self, server: Postgres, src: Path) -> None:
        self.server_container = container(
            "titan-postgres",
            labels={"com.docker.compose.project.working_dir": str(src)},
            addresses=("127.0.0.1",),
            pid=os.getpid(),
        )
        super().__init__([self.server_container])
        self._server = server
        self.bodies: list[Mapping[str, Any]] = []
        self.on_start: Callable[[list[str]], None] = lambda argv: None
        self.lacks: tuple[str, ...] = ()
        self.instead: dict[str, str] = {}
        self._bodies: dict[str, Mapping[str, Any]] = {}
        self.processes: dict[str, tuple[subprocess.Popen[bytes], Any]] = {}

    def image_labels(self, image: str) -> dict[str, str]:
        return {"com.docker.compose.project": "titan-prod", "maintainer": "x"}

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        made = replace(container(name=name), status="created", labels=dict(body["Labels"]))
        self.put(made)
        self.bodies.append(body)
        self._bodies[made.id] = body
        return made.id

    def start(self, container: str) -> None:
        body = self._bodies[container]
        argv = [*body["Entrypoint"], *body["Cmd"]]
        if argv[0] in self.lacks:
            raise OpsError(f'Docker: exec: "{argv[0]}": executable file not found in $PATH')
        self.on_start(argv)
        mounts = [bind.rsplit(":", 2)[:2] for bind in body["HostConfig"]["Binds"]]

        def here(text: str) -> str:
            for place, inside in mounts:
                text = text.replace(inside, place)
            return text

        environment = {name: here(value) for name, value in (item.split("=", 1) for item in body["Env"])}
        log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        process = subprocess.Popen(
            [self.instead.get(argv[0], f"{self._server.binaries}/{argv[0]}"), *map(here, argv[1:])],
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self.processes[container] = (process, log)

    def inspect(self, container: str) -> Container | None:
        found = super().inspect(container)
        if found is None or container not in self.processes:
            return found
        code = self.processes[container][0].poll()
        pid = self.processes[container][0].pid
        return replace(found, status="running" if code is None else "exited", exit_code=code or 0, pid=pid)

    def logs(self, container: str, *, tail: int) -> list[str]:
        log = self.processes[container][1]
        return os.pread(log.fileno(), 1 << 20, 0).decode("utf-8", "replace").splitlines()[-tail:]

    def remove(self, container: str, *, volumes: bool = False) -> None:
        assert volumes, "the volumes that the image declares would stay"
        self.containers = [item for item in self.containers if item.id != container]
        if container in self.processes:
            process, log = self.processes.pop(container)
            process.kill()
            process.wait()
            log.close()


class Place:
    """A project directory with an env file, a server, and the engine that knows both."""

    def __init__(self, server: Postgres, src: Path) -> None:
        self.server = server
        self.src = src
        self.backups = src / "backups/db"
        (src / "compose").mkdir(parents=True)
        self.set_password(PASSWORD)
        self.engine = SidecarEngine(server, src)
        engine: Any = self.engine
        self.effects = Effects(engine, "unix:///nowhere", Clock(), run_dir=str(src / "run"))
        self.stack = StackOptions(project_src=str(src))

    def set_password(self, password: str) -> None:
        (self.src / "compose/.env.prod").write_text(f"TITAN_DB_PASSWORD='{password}'\n")

    def options(self, **changes: Any) -> BackupOptions:
        params = {name: item.get("default") for name, item in backup_spec().items()}
        return BackupOptions.from_params({**params, "port": self.server.port, **changes}, str(self.src))

    def names(self) -> list[str]:
        return sorted(os.listdir(self.backups)) if self.backups.exists() else []

    def left(self) -> list[str]:
        """Containers and password files that should not be there."""
        others = [item.name for item in self.engine.containers if item.name != "titan-postgres"]
        return [*others, *os.listdir(self.effects.run_dir)] if os.path.isdir(self.effects.run_dir) else others
