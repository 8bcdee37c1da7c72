#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_offsite_info
short_description: List the backups of a stack's database that are off-site
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Lists what M(titan.ops.db_offsite) has copied into a restic repository, of every host, newest first.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.read_only
  - titan.ops.offsite
"""

EXAMPLES = r"""
- name: List the backups off-site
  titan.ops.db_offsite_info:
    repository: sftp:backup@example.com:/srv/titan
    password_file: /root/offsite/password
    ssh_key: /root/offsite/id_ed25519
    known_hosts: /root/offsite/known_hosts
"""

RETURN = r"""
exists:
  description: Whether there is a repository.
  returned: success
  type: bool
backups:
  description: The backups in it, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    hostname:
      description: The host that it came from.
      type: str
    snapshot:
      description: The id of its snapshot.
      type: str
    time:
      description: When it was made, UTC.
      type: str
    age_seconds:
      description: How long ago that was.
      type: int
    sha256:
      description: Its sha256.
      type: str
    size_bytes:
      description: Its size.
      type: int
    label:
      description: Its label, null without one.
      type: str
"""

from ansible_collections.titan.ops.plugins.module_utils.backup.offsite import listed, of_database
from ansible_collections.titan.ops.plugins.module_utils.backup.offsite_options import OffsiteOptions, offsite_spec
from ansible_collections.titan.ops.plugins.module_utils.backup.restic import Restic, ResticEffects
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module


def operation(context: Context) -> dict:
    """Look."""
    effects = ResticEffects(context.clock)
    options = OffsiteOptions.from_params(context.params, context.options().project_src, effects.redact)
    restic = Restic(options.repository, effects)
    there = restic.exists()
    found = of_database(restic.snapshots(options.timeout), options.database) if there else []
    return {"changed": False, "exists": there, "backups": listed(found, context.clock.now())}


def main() -> None:
    run_module(offsite_spec(), operation)


if __name__ == "__main__":
    main()
