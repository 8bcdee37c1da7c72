# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the playbooks of the verbs say, and what has really happened, as ``docker inspect`` alone tells it."""

from __future__ import annotations

import re
import subprocess

from droplet import Seen

# What the playbooks say -> what has happened.
SAID = {
    "created and started": "create",
    "replaced by a new container": "recreate",
    "started": "start",
    "restarted": "restart",
    "stopped": "stop",
    "nothing to do": "none",
}


def said(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What a playbook says it has done (or would do), by service."""
    line = rf"^ +(?:msg: )?(\S+) +(?:would be )?({'|'.join(SAID)})(?: \(|, )"
    return {service: SAID[verb] for service, verb in re.findall(line, done.stdout, flags=re.MULTILINE)}


def happened(before: dict[str, Seen], after: dict[str, Seen]) -> dict[str, str]:
    """What has become of each container."""
    return {name: _change(before.get(name), after.get(name)) for name in {*before, *after}}


def _change(old: Seen | None, new: Seen | None) -> str:
    if old is None:
        return "create"
    if new is None:
        return "remove"
    if old.id != new.id:
        return "recreate"
    if old.started != new.started:
        return "restart" if old.status == "running" else "start"
    return "stop" if (old.status, new.status) == ("running", "exited") else "none" if old == new else "?"
