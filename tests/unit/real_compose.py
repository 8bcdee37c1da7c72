# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real Compose, for tests that compare our reading of a file with its."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SANDBOX = Path(__file__).resolve().parents[2] / "molecule" / "sandbox" / "sandbox"
# What `docker compose` itself needs of our environment; everything else would show up in the values.
_KEPT = ("PATH", "HOME", "DOCKER_CONFIG")


@functools.lru_cache
def command() -> tuple[str, ...]:
    """How to call Compose: $TITAN_COMPOSE, else ``docker compose``, else what the sandbox unpacks. Fails without."""
    named = os.environ.get("TITAN_COMPOSE")
    if named:
        if not _succeeds(named, "version"):
            pytest.fail(f"TITAN_COMPOSE={named} is no Compose v2 that works here.")
        return (named,)
    if _succeeds("docker", "compose", "version"):
        return ("docker", "compose")
    found = subprocess.run([str(SANDBOX), "compose-cli"], capture_output=True, text=True, check=False)
    if found.returncode == 0 and found.stdout.strip():
        return (found.stdout.strip(),)
    pytest.fail(
        f"no Compose v2 to compare with: `docker compose` does not work here and `{SANDBOX.name} compose-cli` says:"
        f" {found.stderr.strip() or 'nothing'}. Set TITAN_COMPOSE to the binary."
    )


def config(
    project: Path, services: Mapping[str, object], environment: Mapping[str, str], env_file: Path | None = None
) -> dict[str, dict[str, str | None]] | None:
    """Every service's environment as ``docker compose config`` resolves it; None when Compose refuses.

    Args:
        project: an existing directory; gets the Compose file.
        services: their definitions.
        environment: what the process has in its environment.
        env_file: for ``--env-file``.
    """
    file = project / "compose.json"
    file.write_text(json.dumps({"name": "dotenv", "services": services}), encoding="utf-8")
    option = ["--env-file", str(env_file)] if env_file else []
    result = subprocess.run(
        [*command(), "--file", str(file), *option, "config", "--format", "json"],
        env={**{name: os.environ[name] for name in _KEPT if name in os.environ}, **environment},
        capture_output=True,
        check=False,
    )
    if result.returncode != 0:
        return None
    # `config` prints a file that can be read again: every literal $ is doubled in it.
    read = json.loads(result.stdout.decode("utf-8").replace("$$", "$"))
    return {name: service.get("environment") or {} for name, service in read["services"].items()}


def _succeeds(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
