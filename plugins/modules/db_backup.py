#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_backup
short_description: Back a stack's database up, or remove a backup
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Dumps a PostgreSQL database in a short-lived container of the server's own image, straight into the directory of the
    backups.
  - A backup gets its name only when it is complete, was read again, and is on the disk. Beside it lies a manifest with
    its sha256 and the number of rows of every table in the dump's own snapshot.
  - After a backup without a label, old ones without a label go as O(keep_daily), O(keep_weekly) and O(keep_monthly)
    say. The newest good one and the newest verified one always stay, and unless O(keep_daily) is 0 everything of the
    newest one's day (in UTC). Files without a manifest are never touched, nor is what is dated in the future.
  - What a killed run has left is removed by the next.
  - Every run makes a new backup. Names are in UTC.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
  - titan.ops.backup
  - titan.ops.progress
options:
  state:
    description:
      - V(present) makes a backup.
      - V(absent) removes the one called O(name), unless it is the last good one of its database.
    type: str
    choices: [present, absent]
    default: present
  name:
    description:
      - The backup to remove, without a path, or with that of O(directory). Needed for O(state=absent), and only there.
    type: str
  label:
    description:
      - A word for the name of a backup that is made by hand. It then stays until it is removed by hand, and nothing
        else is removed after it.
      - Without it, the day's first backup is called C(titan_brain_2026-02-06.sql). A later one has the time in its
        name.
    type: str
  format:
    description:
      - V(plain) is SQL, which the runbook's own command restores.
      - V(custom) and V(directory) are for C(pg_restore). The latter can be made and restored by several jobs.
    type: str
    choices: [plain, custom, directory]
    default: plain
  compression:
    description: How the dump is compressed.
    type: str
    choices: [none, gzip, zstd]
    default: none
  level:
    description: How much, from 1 to 9 for gzip and from 1 to 19 for zstd. By default 6 and 3.
    type: int
  threads:
    description: Threads that compress a plain dump.
    type: int
    default: 1
  jobs:
    description: Jobs that dump into a directory.
    type: int
    default: 1
  via:
    description:
      - V(sidecar) dumps in a container of its own, V(exec) inside the server's container through C(docker exec), which
        takes twice the time.
      - V(auto) takes the sidecar, and the other way where that one is not open. RV(via_reason) says why.
    type: str
    choices: [auto, sidecar, exec]
    default: auto
  keep_daily:
    description: Of how many days the newest backup stays. Days without a backup do not count.
    type: int
    default: 7
  keep_weekly:
    description: Of how many weeks.
    type: int
    default: 4
  keep_monthly:
    description: Of how many months.
    type: int
    default: 12
  space_margin:
    description:
      - What must be free before, as a multiple of the last such backup's size, for the first one of the database's.
      - V(0) does not look.
    type: float
    default: 1.2
  timeout:
    description: Seconds that the dump may take.
    type: float
    default: 21600.0
  lock_wait_timeout:
    description: Seconds that the dump waits for a table that somebody has locked.
    type: float
    default: 60.0
"""

EXAMPLES = r"""
- name: Back the database up before a change
  titan.ops.db_backup:
    label: before_release

- name: Back it up compressed, as the nightly job may
  titan.ops.db_backup:
    compression: zstd
    threads: 4

- name: Remove a backup
  titan.ops.db_backup:
    state: absent
    name: titan_brain_2026-02-06T140312Z_before_release.sql
"""

RETURN = r"""
name:
  description: The backup's name (in check mode, what it would be now).
  returned: success, O(state=present)
  type: str
  sample: titan_brain_2026-02-06.sql
backup:
  description: Where it is.
  returned: success, O(state=present)
  type: str
  sample: /opt/titan/backups/db/titan_brain_2026-02-06.sql
sha256:
  description: Its sha256; of a directory that of the lines C(<sha256>  <name>) of its files.
  returned: success, O(state=present), outside of check mode
  type: str
size_bytes:
  description: Its size.
  returned: success, O(state=present), outside of check mode
  type: int
seconds:
  description: How long it took.
  returned: success, O(state=present), outside of check mode
  type: float
rows:
  description: Rows of all tables.
  returned: success, O(state=present), outside of check mode
  type: int
tables:
  description: How many tables.
  returned: success, O(state=present), outside of check mode
  type: int
via:
  description: How it was made, sidecar or exec.
  returned: success, O(state=present), outside of check mode
  type: str
via_reason:
  description: Why not in a sidecar, where that was to be expected.
  returned: success, O(state=present), outside of check mode
  type: str
removed:
  description: The backups that went (in check mode, would go).
  returned: success
  type: list
  elements: str
dropped:
  description:
    - Databases from before a restore (M(titan.ops.db_restore)) whose time was over, and that were (would be) dropped.
    - Not after a backup with a label.
  returned: success, O(state=present)
  type: list
  elements: str
tidied:
  description: What a killed run had left, and was removed (in check mode, would be).
  returned: success, O(state=present)
  type: list
  elements: str
needed_bytes:
  description: The free space that was asked for.
  returned: success, O(state=present)
  type: int
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.titan.ops.plugins.module_utils.backup.absent import remove_backup
from ansible_collections.titan.ops.plugins.module_utils.backup.create import apply, plan
from ansible_collections.titan.ops.plugins.module_utils.backup.options import BackupOptions, backup_spec, directory_of
from ansible_collections.titan.ops.plugins.module_utils.backup.tools import Effects
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.compose.engine import connect
from ansible_collections.titan.ops.plugins.module_utils.core.errors import Mistaken
from ansible_collections.titan.ops.plugins.module_utils.core.progress import progress_spec


def operation(context: Context) -> dict:
    """Plan; outside of check mode, apply."""
    params, stack = context.params, context.options()
    if (params["state"] == "absent") != (params["name"] is not None):
        raise Mistaken("name says which backup to remove: it goes with state: absent, and only with it")
    if params["state"] == "absent":
        directory = directory_of(stack.project_src, params["directory"])
        return remove_backup(directory, params["name"], check_mode=context.check_mode)
    options = BackupOptions.from_params(params, stack.project_src)
    effects = Effects(
        connect(stack.docker_host),
        stack.docker_host,
        context.clock,
        cancelled=lambda: context.cancelled,
        progress=context.progress,
    )
    planned = plan(stack, options, effects)
    result = {
        "removed": list(planned.removed),
        "tidied": list(planned.leftovers),
        "dropped": list(planned.expired),
        "warnings": list(planned.warnings),
    }
    if not context.check_mode:
        result = apply(planned, effects)
    return {
        "changed": True,
        "name": planned.name,
        "backup": planned.path,
        "needed_bytes": planned.needed_bytes,
        "diff": planned.diff(),
        **result,
    }


def _history(params: Mapping[str, Any]) -> str:
    """A removal must not pass for a backup in the metrics."""
    return "backup" if params["state"] == "present" else "backup_remove"


def main() -> None:
    run_module({**backup_spec(), **progress_spec()}, operation, mutates="back the database up", history=_history)


if __name__ == "__main__":
    main()
