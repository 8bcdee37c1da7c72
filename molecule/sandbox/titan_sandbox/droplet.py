# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Droplet itself: a systemd container with sshd and a Docker Engine of its own."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, NoReturn

from .paths import CONTAINER, DROPLET_IMAGE, KEY, KNOWN_HOSTS, STATE, VOLUME, ssh_port
from .shell import Input, SandboxError, run, say, wait_for

# Where `--privileged` is not to be had (an engine without CAP_SYS_RESOURCE), this is all that the Droplet needs of it.
_UNPRIVILEGED = ["--cap-add=ALL", "--cap-drop=SYS_RESOURCE"] + [
    f"--security-opt={kind}=unconfined" for kind in ("seccomp", "apparmor", "systempaths")
]
# What the Droplet is never without.
_SERVICES = [f"{name}.service" for name in ("docker", "ssh", "cron", "rsyslog", "prometheus-node-exporter")]
_BROKEN = "run `sandbox up` again; when that does not help: `sandbox down`, then `sandbox up`."


def inspect() -> dict[str, Any] | None:
    """What the engine knows of the container, or None when there is none."""
    found = run(["docker", "container", "inspect", CONTAINER], check=False)
    if found.returncode != 0:
        return None
    details: dict[str, Any] = json.loads(found.stdout)[0]
    return details


def running() -> bool:
    details = inspect()
    return bool(details and details["State"]["Running"])


def inside(*argv: str, stdin: Input = None, check: bool = True, cwd: str = "/", what: str = "") -> str:
    """Run a command as root in the Droplet; its stdout. With ``check`` off, "" when it failed."""
    options = ["--workdir", cwd] + (["--interactive"] if stdin is not None else [])
    try:
        done = run(
            ["docker", "exec", *options, CONTAINER, *argv],
            stdin=stdin,
            check=check,
            what=what or f"in the Droplet: {' '.join(argv)[:100]}",
            do=_BROKEN,
        )
    except SandboxError as error:
        error.state = "the Droplet runs, but is not complete." if running() else "the Droplet is not running any more."
        raise
    return done.stdout if done.returncode == 0 else ""


def ensure(image: str) -> None:
    """Make the Droplet run the given image and answer: systemd up, its Docker Engine and its sshd answering."""
    details = inspect()
    if details and details["Image"] != image:
        say("the Droplet was made from an older image: building it anew")
        remove()
        details = None
    elif details and details["State"]["Status"] not in ("running", "exited"):
        say(f"the Droplet is half made ({details['State']['Status']}): building it anew")
        remove()
        details = None
    if details is None:
        _create(image)
        _wait()
    else:
        _check_port(details)
        try:
            if not details["State"]["Running"]:
                say("starting the stopped Droplet")
                run(["docker", "start", CONTAINER], what="starting the Droplet")
            _wait()
        except SandboxError as error:
            say(f"the Droplet does not come up any more ({error.what}): building it anew")
            remove()
            _create(image)
            _wait()


def remove() -> None:
    """Remove the container and its volume, with all that is in them."""
    run(["docker", "rm", "--force", "--volumes", CONTAINER], check=False)
    run(["docker", "volume", "rm", "--force", VOLUME], what="removing the Droplet's volume")


def _create(image: str) -> None:
    # A volume of an earlier Droplet would bring that one's containers back.
    run(["docker", "volume", "rm", "--force", VOLUME], what="removing an earlier Droplet's volume")
    probe = run(["docker", "run", "--rm", "--privileged", "--entrypoint", "/bin/true", image], check=False)
    privileges = ["--privileged"] if probe.returncode == 0 else _UNPRIVILEGED
    options = [f"--name={CONTAINER}", "--hostname=titan-droplet", "--cgroupns=private", *privileges]
    options += ["--tmpfs=/run", "--tmpfs=/run/lock", f"--volume={VOLUME}:/var/lib/docker"]
    options += [f"--publish=127.0.0.1:{ssh_port()}:22"]
    say(f"creating the Droplet ({'privileged' if probe.returncode == 0 else 'without full privileges: not to be had'})")
    run(
        ["docker", "run", "--detach", *options, DROPLET_IMAGE],
        what="creating the Droplet",
        state="the Droplet is not running.",
        do=f"when port {ssh_port()} is taken: set SANDBOX_SSH_PORT to a free one, and run the same command again.",
    )


def _check_port(details: dict[str, Any]) -> None:
    published = details["HostConfig"]["PortBindings"].get("22/tcp", [{}])[0].get("HostPort")
    if published != str(ssh_port()):
        raise SandboxError(
            f"the Droplet publishes its sshd on port {published}, not on {ssh_port()}.",
            state="the Droplet is as it was.",
            do=f"set SANDBOX_SSH_PORT={published}, or make a new one: `sandbox down`, then `sandbox up`.",
        )


def _wait() -> None:
    """Wait until systemd is up, the inner Docker Engine answers, and sshd lets this checkout in."""

    def booted() -> bool:
        state = run(["docker", "exec", CONTAINER, "systemctl", "is-system-running"], check=False).stdout.strip()
        return state in ("running", "degraded")

    def engine_answers() -> bool:
        return bool(inside("docker", "version", "--format", "{{.Server.Version}}", check=False))

    def boot_log() -> str:
        return run(["docker", "logs", "--tail", "20", CONTAINER], check=False).stderr + inside(
            "journalctl", "--boot", "--no-pager", "--lines=20", check=False
        )

    def docker_log() -> str:
        return inside("journalctl", "--unit=docker", "--no-pager", "--lines=20", check=False)

    def dead() -> bool:
        return not running()

    state = "the Droplet's container was started."
    wait_for(booted, seconds=60, what="waiting for systemd", state=state, do=_BROKEN, log=boot_log, gone=dead)
    # Somebody may have stopped one of them, as tests do.
    inside("systemctl", "start", *_SERVICES, check=False)
    what = "waiting for the Droplet's Docker Engine"
    wait_for(engine_answers, seconds=60, what=what, state=state, do=_BROKEN, log=docker_log, gone=dead)
    failed = inside("systemctl", "list-units", "--failed", "--plain", "--no-legend", check=False).split("\n")
    if failed[0]:
        say(f"failed units in the Droplet: {', '.join(line.split()[0] for line in failed if line)}")
    _let_in()


def _let_in() -> None:
    """Install this checkout's key in the Droplet, take down the Droplet's host key, and log in once."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    if not KEY.exists() or not KEY.with_suffix(".pub").exists():
        for file in (KEY, KEY.with_suffix(".pub")):
            file.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "titan-sandbox", "-f", str(KEY)])
    # Other checkouts may have put their keys there: add, never replace.
    script = (
        "set -eu; read -r key; install -d -m 0700 -o deploy -g deploy ~deploy/.ssh; keys=~deploy/.ssh/authorized_keys;"
        ' grep -qxF "$key" "$keys" 2>/dev/null || echo "$key" >>"$keys";'
        ' chown deploy:deploy "$keys"; chmod 0600 "$keys"'
    )
    inside("sh", "-c", script, stdin=KEY.with_suffix(".pub").read_bytes(), what="installing this checkout's SSH key")
    wait_for(
        lambda: bool(inside("cat", "/etc/ssh/ssh_host_ed25519_key.pub", check=False)),
        seconds=30,
        what="waiting for the Droplet's SSH host key",
        state="the Droplet runs, without sshd.",
        do=_BROKEN,
        log=lambda: inside("journalctl", "--unit=ssh", "--no-pager", "--lines=20", check=False),
    )
    kind, host_key = inside("cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
    known = f"[127.0.0.1]:{ssh_port()} {kind} {host_key}\n"
    if not KNOWN_HOSTS.exists() or KNOWN_HOSTS.read_text() != known:
        KNOWN_HOSTS.write_text(known)
    login = ssh_argv("sudo", "-n", "true")
    wait_for(
        lambda: run(login, check=False, timeout=15).returncode == 0,
        seconds=30,
        what="logging in over SSH as deploy",
        state="the Droplet runs, but cannot be reached over SSH.",
        do=_BROKEN,
        log=lambda: (
            run([*login[:1], "-v", *login[1:]], check=False, timeout=15).stderr
            + inside("journalctl", "--unit=ssh", "--no-pager", "--lines=10", check=False)
        ),
    )


def ssh_argv(*command: str) -> list[str]:
    options = ["-i", str(KEY), "-p", str(ssh_port()), "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10"]
    options += ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={KNOWN_HOSTS}", "-o", "LogLevel=ERROR"]
    return ["ssh", "-F", "/dev/null", *options, "deploy@127.0.0.1", *command]


def ssh(command: list[str]) -> NoReturn:
    """Become an ssh session in the Droplet."""
    require()
    argv = ssh_argv(*command)
    os.execv(shutil.which("ssh") or "/usr/bin/ssh", argv)


def require() -> None:
    """Raise SandboxError unless the Droplet runs and this checkout has its key."""
    if not running() or not KEY.exists():
        raise SandboxError(
            "there is no Droplet running that this checkout can log in to.",
            state="nothing was changed.",
            do="run `sandbox up` first.",
        )
