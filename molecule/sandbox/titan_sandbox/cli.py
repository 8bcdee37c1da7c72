# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each command of the sandbox script does, in order."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from . import compose_cli, droplet, engine, images, stack, storage
from .paths import CONTAINER, STATE, ssh_port
from .shell import SandboxError, run, say


def main(options: argparse.Namespace) -> int:
    try:
        if options.verb == "compose-cli":
            binary = compose_cli.ensure()
            if binary:
                print(binary)
        elif options.verb == "ssh":
            droplet.ssh(options.command)
        elif options.verb == "status":
            return status()
        else:
            with _alone(options.verb):
                if options.verb == "up":
                    up(bare=options.bare)
                elif options.verb == "reset":
                    reset()
                elif options.verb == "storage":
                    (remove_storage if options.remove else storage.make)()
                else:
                    down(with_images=options.images)
        return 0
    except SandboxError as error:
        print(f"sandbox {options.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"sandbox {options.verb}: interrupted; `sandbox up` goes on from here.", file=sys.stderr)
        return 130


def up(*, bare: bool) -> None:
    engine.ensure()
    base = images.base()
    # The stack's images are built while the Droplet boots: neither needs the other.
    with ThreadPoolExecutor(max_workers=1) as builder:
        building = None if bare else builder.submit(images.stack, base)
        droplet.ensure(images.droplet(base))
        built = building.result() if building else []
    if not bare:
        stack.ensure(built)
    say(f"the Droplet is up: ssh to deploy@127.0.0.1 port {ssh_port()} (or: sandbox ssh)")


def reset() -> None:
    droplet.require()
    base = images.base()
    droplet.ensure(images.droplet(base))
    stack.reset(images.stack(base))
    say("the stack is as at its beginning")


def remove_storage() -> None:
    if not (shutil.which("docker") and engine.answers()):
        raise SandboxError("no Docker Engine answers.", state="nothing was changed.", do="start it: `sandbox up` does.")
    storage.remove()
    say("the storage and its network are gone")


def down(*, with_images: bool) -> None:
    if shutil.which("docker") and engine.answers():
        say("removing the Droplet, its volume and its keys")
        storage.remove()
        droplet.remove()
        if with_images:
            say("removing the images")
        images.remove(everything=with_images)
    shutil.rmtree(STATE, ignore_errors=True)


def status() -> int:
    details = droplet.inspect()
    print(f"Droplet   {CONTAINER}: {details['State']['Status'] if details else 'none (sandbox up makes one)'}")
    if not details or not details["State"]["Running"]:
        return 1
    systemd = run(["docker", "exec", CONTAINER, "systemctl", "is-system-running"], check=False).stdout.strip()
    print(f"systemd   {systemd}")
    reachable = run(droplet.ssh_argv("true"), check=False, timeout=15).returncode == 0
    answer = "answers" if reachable else "does not let this checkout in"
    print(f"ssh       deploy@127.0.0.1 port {ssh_port()}: {answer}")
    bad = stack.unhealthy()
    if not stack.complete():
        bad.append("the stack is only half laid out (sandbox up finishes it)")
    print(f"stack     {'healthy' if not bad else '; '.join(bad)}")
    for line in stack.table():
        print(f"          {line}")
    return 0 if reachable and not bad else 1


@contextmanager
def _alone(verb: str) -> Iterator[None]:
    """Only one of these at a time on this machine: checkouts share the one Droplet."""
    path = Path(tempfile.gettempdir()) / "titan-sandbox.lock"
    while True:
        with path.open("a+", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                say(f"waiting for another sandbox command to end: {lock.read().strip() or 'unknown'}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever held it has removed the file, too: what was locked may be a file that nobody else sees.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                lock.truncate(0)
                lock.write(f"{verb}, process {os.getpid()}")
                lock.flush()
                try:
                    yield
                finally:
                    path.unlink()
                return
