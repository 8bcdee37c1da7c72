#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation_recover
short_description: Finish or undo an interrupted rotation or restore
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - A rotation that was killed leaves a journal. This finishes or undoes it, whichever is nearer by what is true now.
    Where there is none it does nothing.
  - The same for a restore of the database (M(titan.ops.db_restore)).
  - M(titan.ops.hmac_rotate), M(titan.ops.pg_password) and M(titan.ops.db_restore) begin with the same. This module does
    nothing after it.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
requirements:
  - python3-psycopg2 of the distribution on the managed host, where the database password is concerned
options:
  lost_password:
    description:
      - Set the database password through the container's socket where the database accepts neither the old nor the new.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Tidy up after a lost connection
  titan.ops.rotation_recover:
"""

RETURN = r"""
recovered:
  description:
    - What was done, by the kind of operation; V(finished), V(undone), or V(superseded) when all holders have been given
      another value by hand since.
    - In check mode V(interrupted), or V(under way) while another operation holds the host's lock.
  returned: success
  type: dict
  sample: {pg_password: undone}
"""

import functools

from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.database.server import Server
from ansible_collections.titan.ops.plugins.module_utils.rotation.recovery import recover_all


def operation(context: Context) -> dict:
    """Recover whatever there is."""
    connector = functools.partial(Server, runner=context.runner)  # which holds the lock for as long as psql runs
    found = recover_all(
        context.open(read=False),  # whatever the files say by now
        check_mode=context.check_mode,
        socket=context.params["lost_password"],
        connector=connector,
    )
    told = "".join(f"{kind}: {how if context.check_mode else 'interrupted'}\n" for kind, how in found.items())
    return {"changed": bool(found), "recovered": found, "diff": {"before": told, "after": ""}}


def main() -> None:
    spec = {"lost_password": {"type": "bool", "default": False, "no_log": False}}
    run_module(spec, operation, mutates="recover an interrupted operation", history="recover")


if __name__ == "__main__":
    main()
