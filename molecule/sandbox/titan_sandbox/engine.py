# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker Engine of this machine: found running, or installed and started."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .packages import install
from .shell import SandboxError, run, say, wait_for

DOCKERD_LOG = Path("/var/log/dockerd.log")


def answers() -> bool:
    return run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=20).returncode == 0


def ensure() -> None:
    """Return when a Docker Engine answers: the one in use, or one installed and started here."""
    if not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        install(["openssh-client"])
    if shutil.which("docker") and answers():
        return
    if os.environ.get("DOCKER_HOST"):
        raise SandboxError(
            f"no Docker Engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}.",
            state="nothing was changed.",
            do="start that engine, or unset DOCKER_HOST to use this machine's own.",
            log=run(["docker", "version"], check=False).stderr,
        )
    if not shutil.which("dockerd"):
        install(["docker.io", "iptables"])
    if not answers():
        _start()


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        say("starting Docker (systemctl start docker)")
        run(["systemctl", "start", "docker"], what="starting Docker")
        log, ended = "journalctl -u docker", lambda: False
    else:
        _mount_cgroups()
        _clear_stale_pids()
        say(f"starting dockerd in the background; its log is {DOCKERD_LOG}")
        with DOCKERD_LOG.open("ab") as sink:
            # A session of its own: the engine outlives this script and the terminal.
            dockerd = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True, cwd="/"
            )
        log, ended = str(DOCKERD_LOG), lambda: dockerd.poll() is not None
    wait_for(
        answers,
        seconds=60,
        what="waiting for the Docker Engine to answer",
        state="the engine was started but does not answer.",
        do=f"read {log}; when it is an engine of another kind that should be used, set DOCKER_HOST.",
        gone=ended,
        log=lambda: DOCKERD_LOG.read_text(errors="replace") if DOCKERD_LOG.exists() else "",
    )


def _mount_cgroups() -> None:
    """dockerd needs the cgroup file systems, which systemd would have mounted."""
    if not any(line.split()[2].startswith("cgroup") for line in Path("/proc/mounts").read_text().splitlines()):
        install(["cgroupfs-mount"])
        run(["cgroupfs-mount"], what="mounting the cgroup file systems")


def _clear_stale_pids() -> None:
    """Remove the pid files of engines that are gone, whose numbers may belong to other processes by now."""
    for name, owner in (("docker.pid", "dockerd"), ("docker/containerd/containerd.pid", "containerd")):
        file = Path("/var/run") / name
        if file.exists() and not _runs(file, owner):
            say(f"removing {file}, left behind by an engine that is gone")
            file.unlink()


def _runs(pid_file: Path, program: str) -> bool:
    """Whether the process of a pid file is that program, and alive (nobody reaps the dead in some containers)."""
    try:
        status = Path(f"/proc/{int(pid_file.read_text())}/status").read_text()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return fields.get("Name") == program and not fields.get("State", "").startswith("Z")
