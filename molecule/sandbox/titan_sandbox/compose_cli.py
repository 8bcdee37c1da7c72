# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Compose v2 for tests that run on this machine rather than in the Droplet."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .packages import PrivateApt, need_mirror
from .paths import CACHE, SUITE
from .shell import SandboxError, run, say

# Where the Debian package keeps its binary; it is a plugin of docker's CLI and works by itself as well.
_IN_PACKAGE = "usr/libexec/docker/cli-plugins/docker-compose"


def ensure() -> Path | None:
    """Return the path of a usable Compose v2 binary, or None when ``docker compose`` itself works.

    Otherwise the package of Debian's SUITE is downloaded by apt (verified, into a private directory) and unpacked
    under the checkout's cache. Raises SandboxError when it cannot be had.
    """
    if run(["docker", "compose", "version"], check=False).returncode == 0:
        return None
    # Laid out so that DOCKER_CONFIG=<cache>/compose makes `docker compose` work, too.
    binary = CACHE / "compose" / "cli-plugins" / "docker-compose"
    if _works(binary):
        return binary
    mirror = need_mirror()
    say(f"no Compose v2 on this machine: unpacking Debian {SUITE}'s into {binary.parent}")
    apt = PrivateApt(mirror)
    apt.update()
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
        package = apt.download("docker-compose", Path(scratch))
        run(["dpkg-deb", "--extract", str(package), scratch], what=f"unpacking {package.name}")
        unpacked = Path(scratch) / _IN_PACKAGE
        if not _works(unpacked):
            raise SandboxError(
                f"the binary in {package.name} does not run on this machine.",
                state="nothing was installed.",
                do="install Compose v2 for this machine's docker.",
                log=run([str(unpacked), "version"], check=False).stderr,
            )
        os.replace(unpacked, binary)
    apt.remove()
    return binary


def _works(binary: Path) -> bool:
    return binary.is_file() and run([str(binary), "version"], check=False).returncode == 0
