#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_service
short_description: Start, stop, restart or recreate services of a Compose stack
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Brings the whole stack, or some services of it, into a state and waits until they are healthy.
  - Only the named services are touched unless O(dependencies) says otherwise.
  - A service that does not come up fails the task, with the last lines of its log (secrets masked) and the state of all
    services concerned.
  - While an operation that was interrupted left its journal, nothing is started. That operation's next run ends it.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
options:
  services:
    description:
      - Services, each by its Compose service name or by its container name.
      - None means the whole stack.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(started) creates what is missing, replaces what differs from the Compose and env files, and starts the rest.
      - V(stopped) stops containers and keeps them.
      - V(restarted) stops and starts the same containers. Neither configuration nor environment is read again.
      - V(recreated) replaces containers by new ones, which is how a changed env file reaches a process. Several are
        stopped first, each before what it depends on.
    type: str
    choices: [started, stopped, restarted, recreated]
    default: started
  dependencies:
    description:
      - Also start (and replace, where they differ) what the services depend on.
    type: bool
    default: false
  wait:
    description:
      - Wait for health checks, not only for running processes.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that services get to become healthy.
    type: float
    default: 300.0
  stop_timeout:
    description:
      - Seconds that a container gets to stop before it is killed.
      - By default the longest that the Compose file declares for the services concerned, 30 for those without.
    type: float
"""

EXAMPLES = r"""
- name: Start the stack
  titan.ops.compose_service:
    state: started

- name: Give titan-brain its new configuration
  titan.ops.compose_service:
    services: [titan-brain]
    state: recreated
"""

RETURN = r"""
actions:
  description: What happened (in check mode, would happen) to each service.
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: Compose service.
      type: str
    action:
      description: One of create, recreate, start, restart, stop, none.
      type: str
    reason:
      description: Why.
      type: str
    before:
      description: Its containers' status before.
      type: str
  sample:
    - {service: titan-brain, action: recreate, reason: asked for, before: running}
project_name:
  description: The Compose project.
  returned: success
  type: str
  sample: titan-prod
log:
  description: The last log lines of the container that failed, secrets masked.
  returned: failure of a service
  type: list
  elements: str
"""

from dataclasses import asdict

from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.compose.operations import STATES, apply, plan

# What the history calls it: the playbook's name.
_VERBS = {"started": "start", "stopped": "stop", "restarted": "restart", "recreated": "recreate"}


def operation(context: Context) -> dict:
    """Plan; outside of check mode, apply."""
    params = context.params
    if params["state"] != "stopped":
        context.refuse_half_done(": starting services now could leave the stack in two halves that do not fit")
    stack = context.open()
    planned = plan(stack, params["state"], params["services"], dependencies=params["dependencies"])
    actions = planned.actions
    if not context.check_mode:
        actions = tuple(
            apply(
                stack,
                planned,
                wait=params["wait"],
                timeout=params["timeout"],
                stop_timeout=params["stop_timeout"],
            )
        )
    return {
        "changed": any(item.action != "none" for item in actions),
        "actions": [asdict(item) for item in actions],
        "project_name": stack.name,
        "warnings": list(planned.warnings),
        "diff": planned.diff(),
    }


def main() -> None:
    run_module(
        {
            "services": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": list(STATES), "default": "started"},
            "dependencies": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 300.0},
            "stop_timeout": {"type": "float"},
        },
        operation,
        mutates="change services",
        history=lambda params: _VERBS[params["state"]],
    )


if __name__ == "__main__":
    main()
