# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somewhere off-site for tests: a second container with an SFTP and an S3-compatible server, on a network of its own.

It is made anew each time, empty and with another host key; the network connects it with the Droplet alone.
"""

from __future__ import annotations

from . import droplet, images
from .paths import CONTAINER, SANDBOX, STORAGE, STORAGE_IMAGE, STORAGE_NETWORK, ssh_port
from .shell import run, say

_FULL = "/full:rw,size=1m,mode=1777"
# Debian's own line for it (hostname(1)).
_OWN_NAME = 'grep -qw "$(hostname)" /etc/hosts || echo "127.0.1.1 $(hostname)" >>/etc/hosts'


def make() -> None:
    """Start an empty storage that the Droplet reaches by its container's name."""
    droplet.require()
    base = images.base()
    dockerfile = SANDBOX / "storage" / "Dockerfile"
    inputs = images.digest([base, dockerfile.read_text(encoding="utf-8")])
    if images.label(STORAGE_IMAGE) != inputs:
        say("storage image: sshd and moto from Debian packages (about 30 s)")
        images.build(dockerfile, dockerfile.parent, [STORAGE_IMAGE], inputs, base)
    remove()
    # Docker's own choice would be what the engine inside the Droplet has chosen for its networks already.
    network = ["--internal", f"--subnet=10.213.{ssh_port() % 256}.0/24"]
    run(["docker", "network", "create", *network, STORAGE_NETWORK], what="making the storage's network")
    run(["docker", "network", "connect", STORAGE_NETWORK, CONTAINER], what="connecting the Droplet to the storage")
    options = [f"--name={STORAGE}", "--hostname=storage", f"--network={STORAGE_NETWORK}", f"--tmpfs={_FULL}"]
    run(["docker", "run", "--detach", "--init", *options, STORAGE_IMAGE], what="starting the storage")
    say(
        f"the storage is up, and empty; the Droplet reaches it as {STORAGE} (molecule/offsite/prepare.yml sets both up)"
    )
    say(f"  SFTP: sftp:store@{STORAGE}:/store/titan, with the public key in its /home/store/.ssh/authorized_keys")
    say(f"  S3: s3:http://{STORAGE}:9000/bucket/titan, after: docker exec -d {STORAGE} moto_server -H 0.0.0.0 -p 9000")


def remove() -> None:
    """Remove the storage with all that is in it, and its network."""
    run(["docker", "rm", "--force", "--volumes", STORAGE], check=False)
    if run(["docker", "network", "inspect", STORAGE_NETWORK], check=False).returncode == 0:
        run(["docker", "network", "disconnect", "--force", STORAGE_NETWORK, CONTAINER], check=False)
        # Docker takes the Droplet's own name out of its /etc/hosts with that, of which sudo then complains.
        run(["docker", "exec", CONTAINER, "sh", "-c", _OWN_NAME], check=False)
        run(["docker", "network", "rm", STORAGE_NETWORK], what="removing the storage's network")
