#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_backup_info
short_description: List the backups of a stack's database
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Lists every backup in a directory, newest first, those that were made by hand as well, and whether each is what its
    manifest says.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.read_only
options:
  directory:
    description:
      - Directory of the backups, absolute or relative to O(project_src), for a release to the directory that holds
        C(releases).
    type: path
    default: backups/db
  checksums:
    description: Read every backup and compare its sha256 with its manifest, too.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: List the backups
  titan.ops.db_backup_info:
"""

RETURN = r"""
directory:
  description: Where they are.
  returned: success
  type: str
  sample: /opt/titan/backups/db
backups:
  description: The backups, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    path:
      description: Where it is.
      type: str
    size_bytes:
      description: Its size.
      type: int
    time:
      description: When its snapshot was taken (without a manifest, when the file was last written), UTC.
      type: str
    age_seconds:
      description: How long ago that was.
      type: int
    format:
      description: V(plain), V(custom) or V(directory); null without a manifest, as are the next three.
      type: str
    compression:
      description: V(none), V(gzip) or V(zstd).
      type: str
    label:
      description: Its label; null for one that counts as the night's.
      type: str
    verified:
      description: When a drill last restored it, UTC; null for never.
      type: str
    state:
      description: V(good) or V(damaged) by its manifest or a drill, V(unknown) without one.
      type: str
    trouble:
      description: Why it is not good.
      type: str
    manifest:
      description: Its manifest, null without one.
      type: dict
leftovers:
  description: What a killed run has left; the next backup removes it.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.titan.ops.plugins.module_utils.backup.catalog import leftovers, listed
from ansible_collections.titan.ops.plugins.module_utils.backup.options import directory_of
from ansible_collections.titan.ops.plugins.module_utils.backup.report import told
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module


def operation(context: Context) -> dict:
    """Look."""
    directory = directory_of(context.options().project_src, context.params["directory"])
    now, checksums = context.clock.now(), context.params["checksums"]
    backups = [told(item, now=now, checksums=checksums) for item in listed(directory)]
    return {"changed": False, "directory": directory, "backups": backups, "leftovers": leftovers(directory)}


def main() -> None:
    run_module(
        {
            "directory": {"type": "path", "default": "backups/db"},
            "checksums": {"type": "bool", "default": False},
        },
        operation,
    )


if __name__ == "__main__":
    main()
