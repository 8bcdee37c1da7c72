#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: env_file
short_description: Set variables of an env file, proved to arrive as they are
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Gives variables of an env file new values and keeps every other byte of it, its comments, order and line ends. The
    file is replaced atomically. A symlink stays one, and owner and mode are kept.
  - Before anything is written, the new file is read back by this collection's own parser, by Compose itself in a
    project that has nothing else, and, where the stack uses the file, by Compose in the stack with the new file in
    place of the old one. A value that would not arrive exactly as it is given is refused.
  - Values reach a process when its container is recreated, not before. RV(services) says whose that are.
  - The file must exist. No copy of it is kept, for it holds secrets.
  - To change a secret that services share use the module that rotates it, for example M(titan.ops.hmac_rotate).
  - For a file outside of the project directory neither Docker nor Compose is needed. RV(proved_by) tells what was
    there.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
options:
  path:
    description:
      - The env file, absolute or relative to O(project_src).
    type: path
    default: compose/.env.prod
  values:
    description:
      - The variables with their new values.
      - Booleans are written as V(true) or V(false). Put a number with a fraction into quotes.
      - Variables that have their value already are left as they are written.
    type: dict
    required: true
  append:
    description:
      - Add variables that the file does not have yet, at its end.
      - Without it such a variable is refused, which finds a mistyped name.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Let the stack use the private GPU
  titan.ops.env_file:
    values:
      AI_PROVIDER: kimi-local
      KIMI_LOCAL_ENDPOINT: http://10.110.0.7:8000/v1
  register: changed

- name: Give the values to the services that read them
  titan.ops.compose_service:
    services: "{{ changed.services }}"
    state: recreated
  when: changed.services | length > 0
"""

RETURN = r"""
path:
  description: Real path of the env file.
  returned: success
  type: str
  sample: /opt/titan/compose/.env.prod
variables:
  description: The variables that have got (in check mode, would get) another value, those in RV(added) included.
  returned: success
  type: list
  elements: str
  sample: [AI_PROVIDER, KIMI_LOCAL_ENDPOINT]
added:
  description: The variables that the file did not have.
  returned: success
  type: list
  elements: str
  sample: []
proved_by:
  description:
    - What has read the new file and returned every value as it was given.
    - V(parser) is this collection's own parser, V(compose) is Compose in a project of its own, and V(stack) is Compose
      in the stack.
    - When nothing changes, V(parser) alone.
  returned: success
  type: list
  elements: str
  sample: [parser, compose, stack]
services:
  description: The services whose environment changes with the file. They get the values when they are recreated.
  returned: success
  type: list
  elements: str
  sample: [titan-ai-quant, titan-brain]
"""

from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.compose.envfile import apply, open_proof, plan, texts_of
from ansible_collections.titan.ops.plugins.module_utils.compose.project import secrets_file


def operation(context: Context) -> dict:
    """Plan with all proofs; outside of check mode, write."""
    params = context.params
    options = context.options()
    values = texts_of(params["values"])
    context.refuse_half_done(", which may have to put the env file back")
    path = secrets_file(options.project_src, params["path"])
    proof = open_proof(path, options, context.open, context.runner, list(values.values()))
    change = plan(path, values, append=params["append"], cli=proof.cli, stack=proof.stack)
    if change.keys and not context.check_mode:
        apply(change)
    return {
        "changed": bool(change.keys),
        "path": change.file.real_path,
        "variables": list(change.keys),
        "added": list(change.added),
        "proved_by": list(change.proved_by),
        "services": list(change.services),
        "warnings": [*proof.warnings, *change.warnings],
        "diff": change.diff(),
    }


def main() -> None:
    run_module(
        {
            "path": {"type": "path", "default": "compose/.env.prod"},
            "values": {"type": "dict", "required": True, "no_log": True},
            "append": {"type": "bool", "default": True},
        },
        operation,
        mutates="set variables of an env file",
        history="env_file",
        hides=["values"],
    )


if __name__ == "__main__":
    main()
