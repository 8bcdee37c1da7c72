#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_verify
short_description: Prove a backup by restoring it into a scratch database
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Restores a backup that M(titan.ops.db_backup) has made into a new database of the same server, stopped at the first
    error, and compares the rows of every table and the number of all objects with the manifest.
  - Then drops that database and writes into the manifest when the backup was verified. Retention keeps the newest
    verified one. A backup that is proved bad loses an earlier such mark, and counts as
    damaged until it is verified by its name.
  - The database itself is not touched. Its disk must have room for a second copy.
  - What a killed run has left is removed by the next.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
  - titan.ops.backup
  - titan.ops.progress
options:
  name:
    description:
      - The backup's name, without a path, or with that of O(directory). By default, and for V(latest), the newest good
        one.
    type: str
  jobs:
    description: Jobs that restore a directory.
    type: int
    default: 1
  space_margin:
    description:
      - What must be free on the server's disk before, as a multiple of the database's size.
      - V(0) does not look. Where the role is no superuser it cannot be seen.
    type: float
    default: 1.2
  timeout:
    description: Seconds that the restore may take.
    type: float
    default: 21600.0
"""

EXAMPLES = r"""
- name: Prove the newest backup
  titan.ops.db_verify:
"""

RETURN = r"""
name:
  description: The backup.
  returned: success
  type: str
  sample: titan_brain_2026-02-06.sql
verified:
  description: When that was, UTC.
  returned: success, outside of check mode
  type: str
  sample: '2026-02-06T03:00:00Z'
restore_seconds:
  description: How long the restore took.
  returned: success, outside of check mode
  type: float
rows:
  description: Rows of all tables, as counted in the restored database.
  returned: success, outside of check mode
  type: int
tables:
  description: How many tables.
  returned: success, outside of check mode
  type: int
tidied:
  description: What a killed run had left, and was removed (in check mode, would be).
  returned: success
  type: list
  elements: str
"""

from ansible_collections.titan.ops.plugins.module_utils.backup.options import DrillOptions, drill_spec
from ansible_collections.titan.ops.plugins.module_utils.backup.tools import Effects
from ansible_collections.titan.ops.plugins.module_utils.backup.verify import apply, plan, refuse_damaged
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.compose.engine import connect
from ansible_collections.titan.ops.plugins.module_utils.core.progress import progress_spec


def operation(context: Context) -> dict:
    """Plan; outside of check mode, apply."""
    params, stack = context.params, context.options()
    asked = DrillOptions.from_params(params, stack.project_src)
    effects = Effects(
        connect(stack.docker_host),
        stack.docker_host,
        context.clock,
        cancelled=lambda: context.cancelled,
        progress=context.progress,
    )
    planned = plan(stack, asked.target, asked.directory, params["name"], effects, space_margin=asked.space_margin)
    result = {"tidied": list(planned.left), "warnings": list(planned.warnings)}
    after = "verified: now\n"
    if context.check_mode:
        refuse_damaged(planned)
    else:
        result = apply(planned, effects, jobs=asked.jobs, timeout=asked.timeout)
        after = f"verified: {result['verified']}\n"
    before = f"verified: {planned.made.verified or 'never'}\n"
    return {"changed": True, "name": planned.backup.name, "diff": {"before": before, "after": after}, **result}


def main() -> None:
    run_module(
        {
            **drill_spec(),
            **progress_spec(),
            "name": {"type": "str"},
        },
        operation,
        mutates="verify a backup",
        history="verify_backup",
    )


if __name__ == "__main__":
    main()
