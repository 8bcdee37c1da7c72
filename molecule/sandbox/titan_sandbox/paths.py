# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and places of the sandbox, in one list."""

from __future__ import annotations

import os
from pathlib import Path

SANDBOX = Path(__file__).resolve().parent.parent
CHECKOUT = SANDBOX.parent.parent
STACK = SANDBOX / "stack"
DROPLET = SANDBOX / "droplet"

# Run-time state of this checkout (git-ignored): the SSH key and the Droplet's host key.
STATE = CHECKOUT / ".sandbox"
KEY = STATE / "id_ed25519"
KNOWN_HOSTS = STATE / "known_hosts"
# Downloads worth keeping (git-ignored).
CACHE = CHECKOUT / ".cache"

SUITE = "trixie"
# Another name and port (SANDBOX_SSH_PORT) make a second Droplet, for another checkout at the same time.
CONTAINER = os.environ.get("SANDBOX_NAME") or "titan-droplet"
VOLUME = f"{CONTAINER}-docker"
# The container that stands for somewhere off-site, while tests want one.
STORAGE = f"{CONTAINER}-storage"
STORAGE_NETWORK = f"{CONTAINER}-offsite"
BASE_IMAGE = "titan-sandbox/base"
DROPLET_IMAGE = "titan-sandbox/droplet"
STORAGE_IMAGE = "titan-sandbox/storage"
# On every image and container made here: what it was made from. The same inputs need no new build.
LABEL = "titan.sandbox.inputs"


def ssh_port() -> int:
    """The port on 127.0.0.1 that reaches the Droplet's sshd."""
    return int(os.environ.get("SANDBOX_SSH_PORT") or "2222")
