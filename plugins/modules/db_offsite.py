#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_offsite
short_description: Copy backups of a stack's database off-site, and bring them back
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Keeps the backups that M(titan.ops.db_backup) makes in a restic repository as well, encrypted.
  - Only snapshots that this module has made, of this host and database, are ever removed. The repository may hold
    anything else.
  - It takes a lock of its own, C(offsite.lock) in O(state_dir), not the host's, for a copy only reads finished files
    and may take hours.
  - A lock that a killed restic has left in the repository is removed, one that another process holds is not.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
  - titan.ops.offsite
  - titan.ops.progress
options:
  action:
    description:
      - V(copy) copies every good backup that is not in the repository, the newest first. Each is compared with the
        sha256 of its manifest before; one that is damaged fails the task after all others were copied. One that
        O(action=forget) would forget at once is left out.
      - V(forget) forgets those that O(keep_daily), O(keep_weekly) and O(keep_monthly) do not keep. The newest, the
        newest verified one, and those with a label always stay.
      - V(check) checks the repository and reads O(read_data_subset) of its data.
      - V(fetch) brings the backup O(name) and its manifest into O(directory), when it is exactly what its manifest
        says. There it counts as any other, for the retention, too.
    type: str
    choices: [copy, forget, check, fetch]
    default: copy
  init:
    description:
      - With O(action=copy), make the repository where there is none.
      - A server that does not answer, or a wrong password, is an error and not taken for that.
    type: bool
    default: false
  name:
    description:
      - With O(action=fetch), the name of the backup, the beginning of its snapshot's id (at least 8 characters), or
        V(latest). A name that different backups bear is refused, and their ids are told.
    type: str
    default: latest
  keep_daily:
    description: Of how many days the newest backup stays in the repository. Days without a backup do not count.
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
  prune:
    description:
      - With O(action=forget), free the space, too. It locks the repository for everybody, and may download and upload a
        part of it.
    type: bool
    default: false
  read_data_subset:
    description:
      - With O(action=check), how much of the data is read back, as restic's C(--read-data-subset) has it, for example
        V(5%) (at random), V(1/12) or V(500M). None by default.
    type: str
    default: ''
  limit_upload:
    description: With O(action=copy), at most so many KiB per second. V(0) for no limit.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Copy what is missing in the repository
  titan.ops.db_offsite:
    repository: sftp:backup@example.com:/srv/titan
    password_file: /root/offsite/password
    ssh_key: /root/offsite/id_ed25519
    known_hosts: /root/offsite/known_hosts

- name: Bring the newest backup back
  titan.ops.db_offsite:
    action: fetch
    repository: s3:https://nyc3.digitaloceanspaces.com/bucket/titan
    password_file: /root/offsite/password
    environment_file: /root/offsite/environment
"""

RETURN = r"""
copied:
  description: The backups that were copied (in check mode, would be), the newest first.
  returned: success, O(action=copy)
  type: list
  elements: str
created:
  description: Whether the repository was made (in check mode, would be).
  returned: success, O(action=copy)
  type: bool
added_bytes:
  description: How much was sent. What the repository has already is not sent again.
  returned: success, O(action=copy)
  type: int
forgotten:
  description: The backups that were forgotten (in check mode, would be).
  returned: success, O(action=forget)
  type: list
  elements: str
present:
  description: How many backups of this host and database are in the repository now.
  returned: success, O(action=copy) or O(action=forget)
  type: int
name:
  description: The backup's name.
  returned: success, O(action=fetch)
  type: str
backup:
  description: Where it is now (in check mode, would be).
  returned: success, O(action=fetch)
  type: str
hostname:
  description: The host that it came from.
  returned: success, O(action=fetch)
  type: str
snapshot:
  description: The id of its snapshot.
  returned: success, O(action=fetch)
  type: str
time:
  description: When it was made, UTC.
  returned: success, O(action=fetch)
  type: str
sha256:
  description: Its sha256, as M(titan.ops.db_backup) has it.
  returned: success, O(action=fetch)
  type: str
size_bytes:
  description: Its size.
  returned: success, O(action=fetch)
  type: int
label:
  description: Its label, null without one.
  returned: success, O(action=fetch)
  type: str
missing:
  description: What the repository lacks after a copy that failed.
  returned: failure, O(action=copy)
  type: list
  elements: str
cause:
  description:
    - Why it failed, in a word. Of the repository V(absent), V(password), V(host_key), V(refused), V(unreachable),
      V(locked), V(full), V(timeout), V(incomplete), V(damaged), or empty.
    - V(backup) when backups on the host are at fault (those in RV(missing)), and all others are there.
  returned: failure in the repository, or for a backup
  type: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.titan.ops.plugins.module_utils.backup.offsite_options import LOCK, action_spec
from ansible_collections.titan.ops.plugins.module_utils.backup.offsite_run import HISTORY, perform
from ansible_collections.titan.ops.plugins.module_utils.backup.restic import ResticEffects
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.core.progress import progress_spec


def operation(context: Context) -> dict:
    """Plan; outside of check mode, do it."""
    effects = ResticEffects(
        context.clock, lambda: context.cancelled, kept=context.runner.kept, progress=context.progress
    )
    return perform(context.params, context.options().project_src, effects, check_mode=context.check_mode)


def _history(params: Mapping[str, Any]) -> str:
    return HISTORY[params["action"]]


def main() -> None:
    spec = {**action_spec(), **progress_spec()}
    run_module(spec, operation, mutates="copy backups off-site", history=_history, lock=LOCK)


if __name__ == "__main__":
    main()
