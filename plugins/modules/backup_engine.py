#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_engine
short_description: Install what backup_db.sh runs on a host without Ansible
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Puts the engine of the collection, the very code that M(titan.ops.db_backup) runs, into one file that Python on the
    host runs, a zip archive with a C(__main__).
  - The file is replaced atomically, so a backup that cron starts meanwhile runs either the old or the new one.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
options:
  path:
    description:
      - The file, absolute or relative to O(project_src), for a release to the directory that holds C(releases).
      - Its directory is made where it is missing.
    type: path
    default: lib/titan-ops.pyz
  settings:
    description:
      - The settings that C(backup_db.sh) is to get. They are checked before anything is written, in check mode, too.
        Nothing else is done with them here.
      - Refused is what would fail every night, such as C(threads) without a compression, and an off-site
        repository whose password is not on the host.
    type: dict
  schedules:
    description:
      - When cron is to run it, by the names of the variables that say so. An empty one is no schedule. They are checked
        with the settings, for cron ignores a whole file with one bad line; nothing else is done with them here.
    type: dict
"""

EXAMPLES = r"""
- name: Install the engine
  titan.ops.backup_engine:
"""

RETURN = r"""
file:
  description: Where it is.
  returned: success
  type: str
  sample: /opt/titan/lib/titan-ops.pyz
sha256:
  description: The sha256 of the file.
  returned: success
  type: str
"""

import hashlib
import os

from ansible_collections.titan.ops.plugins.module_utils.backup import cli
from ansible_collections.titan.ops.plugins.module_utils.backup.bundle import build, sources
from ansible_collections.titan.ops.plugins.module_utils.backup.crontab import check_schedule
from ansible_collections.titan.ops.plugins.module_utils.backup.options import directory_of
from ansible_collections.titan.ops.plugins.module_utils.backup.settings import Settings
from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.files import read_regular, write_atomic

# The package that holds the engine, under whatever name Ansible has brought it.
ROOT = cli.__name__.rpartition(".")[0].rpartition(".")[0]


def operation(context: Context) -> dict:
    """Compare; outside of check mode, write."""
    if context.params["settings"] is not None:
        _check(context.params["settings"])
    for name, text in (context.params["schedules"] or {}).items():
        if text:
            check_schedule(name, str(text))
    path = directory_of(context.options().project_src, context.params["path"])
    wanted = build(sources(ROOT))
    try:
        found = read_regular(path)
        old, same = found.data, found.data == wanted and found.mode == 0o644
    except InvalidInput:
        if os.path.lexists(path):
            raise
        old, same = b"", False
    if not same and not context.check_mode:
        directory = os.path.dirname(path)
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)
        except OSError as exc:
            raise OpsError(f"The directory {directory} cannot be made: {exc.strerror or exc}") from exc
        write_atomic(path, wanted, mode=0o644)
    before, after = (hashlib.sha256(data).hexdigest() if data else "" for data in (old, wanted))
    return {
        "changed": not same,
        "file": path,
        "sha256": after,
        "diff": {"before": f"sha256 {before}\n" if before else "", "after": f"sha256 {after}\n"},
    }


def _check(settings: dict) -> None:
    try:
        Settings.of(settings).check()
    except InvalidInput as exc:
        raise InvalidInput(f"With these settings backup_db.sh would fail: {exc.msg}", hint=exc.hint) from exc


def main() -> None:
    run_module(
        {
            "path": {"type": "path", "default": "lib/titan-ops.pyz"},
            "settings": {"type": "dict"},
            "schedules": {"type": "dict"},
        },
        operation,
        mutates="install the engine of backup_db.sh",
    )


if __name__ == "__main__":
    main()
