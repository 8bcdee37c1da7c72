# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A short-lived container of another container's own image, which shares its network: its tools, its versions."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping, Sequence

from ..core.errors import OpsError
from .container import Container
from .engine import Engine

__all__ = ["Sidecar", "SidecarUnavailable", "remove_leftovers"]

# The value is the id of the container that it stands beside.
_LABEL = "titan.ops.sidecar"
_COMPOSE = "com.docker.compose."
# The Engine's words when the program is not in the image.
_NO_PROGRAM = re.compile(r"executable file not found|no such file or directory|not a directory", re.IGNORECASE)


class SidecarUnavailable(OpsError):
    """The image lacks the program."""


class Sidecar:
    """One run of one program.

    Args:
        engine: the Docker Engine; its file system must be this machine's.
        beside: the running container whose image and network it uses.
        argv: the program and its arguments; never a secret.
        environment: variables on top of the image's; never a secret, for everybody who may ask Docker reads them.
        mounts: directories and files of this machine, by their place in the container; "ro" or "rw" each.
    """

    def __init__(
        self,
        engine: Engine,
        beside: Container,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        mounts: Mapping[str, tuple[str, str]],
    ) -> None:
        self._engine = engine
        self._argv = tuple(argv)
        image = engine.image_labels(beside.image_id)
        body = {
            "Image": beside.image_id,
            # whatever the image would start
            "Entrypoint": list(argv[:1]),
            "Cmd": list(argv[1:]),
            # files of mode 0600 that are root's, wherever they are written
            "User": "0:0",
            "WorkingDir": "/",
            "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
            "Labels": {
                # An image that Compose has built gives its own labels to containers: nobody may take this one for a
                # service's.
                **{name: "" for name in image if name.startswith(_COMPOSE)},
                _LABEL: beside.id,
            },
            # or the image's would run beside the program
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {
                "NetworkMode": f"container:{beside.id}",
                "Binds": [f"{place}:{inside}:{how}" for inside, (place, how) in sorted(mounts.items())],
                "ReadonlyRootfs": True,
                "SecurityOpt": ["no-new-privileges"],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
                "RestartPolicy": {"Name": "no"},
            },
        }
        self._id = engine.create(f"titan-ops-{secrets.token_hex(6)}", body)
        self._pid = 0

    def start(self) -> None:
        """Start the program.

        Raises:
            SidecarUnavailable: the image has no such program.
            OpsError: the engine could not.
        """
        try:
            self._engine.start(self._id)
        except OpsError as exc:
            if _NO_PROGRAM.search(exc.msg):
                raise SidecarUnavailable(f"the image of the database has no program {self._argv[0]}") from exc
            raise

    def ended(self) -> int | None:
        """The program's exit code; None while it runs.

        Raises:
            OpsError: the container is gone, or the engine does not answer.
        """
        found = self._engine.inspect(self._id)
        if found is None:
            raise OpsError(f"The container in which {self._argv[0]} ran is gone: somebody has removed it")
        self._pid = found.pid
        return None if found.status in ("created", "running", "paused") else found.exit_code

    def taken(self) -> int:
        """How many bytes the program and its children have read from files so far (proc(5), rchar), for the progress.

        What comes by a socket does not count: libpq receives, it does not read.

        Raises:
            OSError: it does not run (``ended`` was not asked yet), or this kernel does not tell.
        """
        if self._pid <= 0:
            raise ProcessLookupError
        with open(f"/proc/{self._pid}/task/{self._pid}/children", encoding="ascii") as stream:
            children = [int(pid) for pid in stream.read().split()]
        found = 0
        for pid in (self._pid, *children):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/io", "rb") as stream:
                found += int(stream.readline().split()[1])  # a child that has ended is in its parent's
        return found

    def said(self, lines: int = 50) -> list[str]:
        """The last lines that the program has printed; not yet redacted."""
        return self._engine.logs(self._id, tail=lines)

    def remove(self) -> None:
        """Remove the container, running or not, with the volumes that its image declares."""
        self._engine.remove(self._id, volumes=True)


def remove_leftovers(engine: Engine, beside: Container) -> list[str]:
    """Remove the sidecars that killed runs have left beside a container, and beside containers that are gone.

    Returns:
        Their names.
    """
    everybody = engine.all_containers()
    there = {item.id for item in everybody}
    found = [item for item in everybody if _LABEL in item.labels]
    mine = [item for item in found if item.labels[_LABEL] == beside.id or item.labels[_LABEL] not in there]
    for item in mine:
        engine.remove(item.id, volumes=True)
    return [item.name for item in mine]
