#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Longer than 300 lines: nearly all of it is documentation, which Ansible wants in this file.

from __future__ import annotations

DOCUMENTATION = r"""
module: db_restore
short_description: Restore the database from a backup, or take a restore back
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Restores a backup into a new database beside the real one, stopped at the first error, and compares the rows of
    every table and the number of all objects with the manifest. What does not match never takes the database's place.
  - Only then are the writers stopped, the sessions ended, and both names swapped in one transaction. So the
    interruption does not grow with the size of the database.
  - The old database stays for O(keep_days) under a name like C(titan_brain__before_20260206140312). O(undo) takes it
    back.
  - When the writers are not well with the new database, the names are swapped back. The new one, with what was written
    into it meanwhile, stays for O(keep_days) under a name like C(titan_brain__failed_20260206140312).
  - Owner, encoding, locale, tablespace, settings, grants, comment and connection limit of the database are those of the
    manifest, else those of today's database.
  - Takes every format of M(titan.ops.db_backup), and dumps that were made by hand, plain (also packed with gzip or
    zstd, or with a terminal's carriage returns), custom or directory, whatever they are called. One that goes to other
    databases by itself is refused.
  - Without O(confirm) nothing is changed; the result says what would be. As in check mode, that waits for nobody, and
    a warning says when another operation is under way.
  - A run that was killed leaves a journal. The next one finishes or undoes it first.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
  - titan.ops.backup
  - titan.ops.progress
options:
  backup:
    description:
      - What is restored, the name of a backup in O(directory), or the absolute path of a file or directory on the host.
      - Needed, except for O(undo).
    type: str
  confirm:
    description: The name of the database that is replaced. Without it nothing is changed.
    type: str
  undo:
    description:
      - Take back the database from before the newest restore. The restored one is kept in its place, for O(keep_days).
    type: bool
    default: false
  kept:
    description:
      - With O(undo), the kept database that is taken back, by default the newest from before a restore. What a failed
        restore has left comes back by its name only.
    type: str
  writers:
    description:
      - Services that write into the database, by service or container name. Those that run are stopped for the swap and
        started again.
    type: list
    elements: str
    default: [titan-brain]
  probes:
    description:
      - Deep health checks of the writers by HTTP, asked after the swap.
      - By default C(/health) of titan-brain on port 3100.
    type: list
    elements: dict
    suboptions:
      service:
        description: Service or container name.
        type: str
        required: true
      port:
        description: HTTP port of the service.
        type: int
        required: true
      path:
        description: Path of the request.
        type: str
        default: /health
      status:
        description: Status codes that count as well.
        type: list
        elements: int
        default: [200]
  keep_days:
    description:
      - Days for which the old database is kept. After that, the next backup or restore drops it, as long as its
        successor holds a row.
    type: int
    default: 7
  jobs:
    description: Jobs that restore a directory or a custom archive; with more than one it is no single transaction.
    type: int
    default: 1
  partial:
    description:
      - Restore a dump without a manifest although it lacks tables that the database has now, or a backup although its
        manifest names another database.
    type: bool
    default: false
  space_margin:
    description:
      - What must be free on the server's disk before, as a multiple of the database's or the dump's size.
      - V(0) does not look. Where the role is no superuser it cannot be seen.
    type: float
    default: 1.2
  timeout:
    description: Seconds that loading may take.
    type: float
    default: 21600.0
  health_timeout:
    description: Seconds that the writers get to become healthy, before and after an undo alike.
    type: float
    default: 300.0
  stop_timeout:
    description: Seconds that a writer gets to stop where its container was given none, 30 by default.
    type: float
"""

EXAMPLES = r"""
- name: Show what a restore would do
  titan.ops.db_restore:
    backup: titan_brain_2026-02-06.sql

- name: Restore
  titan.ops.db_restore:
    backup: titan_brain_2026-02-06.sql
    confirm: titan_brain

- name: Take it back
  titan.ops.db_restore:
    undo: true
    confirm: titan_brain
"""

RETURN = r"""
confirmed:
  description: Whether O(confirm) was given. Without it nothing was changed.
  returned: success
  type: bool
database:
  description: The database.
  returned: success
  type: str
  sample: titan_brain
undo:
  description: Whether a restore was taken back.
  returned: success
  type: bool
what:
  description: What takes the database's place, the name of the backup or, for an undo, of the kept database.
  returned: success
  type: str
  sample: titan_brain_2026-02-06.sql
backup:
  description:
    - What is restored, with its name, path, size_bytes, kind, time, age_seconds, whether it has a manifest, and when
      a drill last restored it. Null for an undo.
  returned: success
  type: dict
rows:
  description:
    - Rows of what is restored. Before it is, null for an archive without a manifest, in which they cannot be seen.
  returned: success
  type: int
tables:
  description: How many tables.
  returned: success
  type: int
today:
  description:
    - Rows, tables and size_bytes of the database as it was when the run began; null where there was none.
    - Rows and tables are null where they could not be counted, in a damaged database for example.
  returned: success
  type: dict
  sample: {rows: 53123, tables: 39, size_bytes: 22000000}
differences:
  description:
    - The tables in which the backup has another number of rows than the database that it replaces (after a restore,
      than the kept one, as it was at the swap). What a table has more there has been written since the backup.
    - Null stands for a table that is not there at all.
  returned: success
  type: dict
  sample: {public.brain_decisions: {backup: 1000, today: 1234}}
writers:
  description: The services that were (would be) stopped.
  returned: success
  type: list
  elements: str
kept:
  description: What the old database is called now (would be now).
  returned: success
  type: str
  sample: titan_brain__before_20260206140312
kept_until:
  description: When that may be dropped, UTC.
  returned: success
  type: str
  sample: '2026-02-13T14:03:12Z'
needed_bytes:
  description: The free space that was asked for.
  returned: success
  type: int
steps:
  description: The steps that were taken (in check mode, would be), after a failure those of the undo included.
  returned: success, and failure that was undone
  type: list
  elements: str
proved:
  description: What was proved, one sentence each. Without a manifest this is less, and says so.
  returned: success, outside of check mode
  type: list
  elements: str
interruption:
  description: Per writer, seconds from the request to stop until it was started again, and until it was healthy.
  returned: success, outside of check mode
  type: dict
  sample: {titan-brain: {until_started_seconds: 1.2, until_healthy_seconds: 2.9}}
restore_seconds:
  description: How long loading took, during which nothing was interrupted. Null for an undo.
  returned: success, outside of check mode
  type: float
seconds:
  description: How long it all took.
  returned: success, outside of check mode
  type: float
dropped:
  description: Kept databases whose time was over, and that were (would be) dropped at the end.
  returned: success
  type: list
  elements: str
tidied:
  description: What a killed run had left, and was (would be) removed.
  returned: success
  type: list
  elements: str
recovered:
  description:
    - What was done with an interrupted earlier restore, V(finished) or V(undone), null when there was none.
    - When the one that was asked for here could be finished, that was all.
  returned: success
  type: str
rolled_back:
  description: Whether the database is the one from before, and the writers run with it.
  returned: failure after the restore had begun
  type: bool
reason:
  description: What happened. C(msg) is this, RV(state) and RV(hint) in one.
  returned: failure
  type: str
state:
  description: What state the host is in now.
  returned: failure
  type: str
hint:
  description: What to do next.
  returned: failure
  type: str
"""

import functools
from collections.abc import Mapping
from typing import Any

from ansible_collections.titan.ops.plugins.module_utils.backup.restore import JOURNAL, effects_of, restore
from ansible_collections.titan.ops.plugins.module_utils.backup.restore_options import RestoreOptions, restore_spec
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.core.progress import progress_spec
from ansible_collections.titan.ops.plugins.module_utils.database.server import Server
from ansible_collections.titan.ops.plugins.module_utils.rotation.recovery import recover_others


def operation(context: Context) -> dict:
    """Recover, plan, and, when it is confirmed, apply outside of check mode."""
    options = RestoreOptions.from_params(context.params, context.options().project_src)
    stack = context.open(read=False)  # an interrupted restore is recovered whatever the files say by now
    effects = effects_of(stack, lambda: context.cancelled, progress=context.progress)
    dry = context.check_mode or options.confirm is None
    connector = functools.partial(Server, runner=context.runner)
    recover_others(stack, JOURNAL, check_mode=dry, connector=connector)
    return restore(stack, options, effects, check_mode=context.check_mode)


def _history(params: Mapping[str, Any]) -> str:
    """A look is no restore in the history and the metrics, and neither is an undo."""
    if params["confirm"] is None:
        return ""
    return "restore_undo" if params["undo"] else "restore"


def main() -> None:
    run_module(
        {**restore_spec(), **progress_spec()},
        operation,
        mutates="restore the database",
        history=_history,
        looks=lambda params: params["confirm"] is None,
    )


if __name__ == "__main__":
    main()
