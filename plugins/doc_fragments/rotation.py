# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options that rotations share (their specification is rotation_spec in rotation/spec.py)."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment titan.ops.rotation."""

    DOCUMENTATION = r"""
options:
  env_file:
    description:
      - The env file that holds the secret, absolute or relative to O(project_src).
      - A symlink is followed and stays; owner, mode and every other byte are kept.
    type: path
    default: compose/.env.prod
  stale:
    description:
      - What to do with other services that hold the secret.
      - V(recreate) gives it to them as part of the transaction.
      - V(fail) refuses the rotation.
      - V(warn) leaves them as they are and says so.
    type: str
    choices: [warn, fail, recreate]
    default: recreate
  carry_files:
    description:
      - Files in the services' own container layers that must survive the replacement (where they exist), by service or
        container name, with absolute paths.
    type: dict
    default:
      titan-execution:
        - /app/system.halt
        - /app/titan_execution.redb
  guards:
    description:
      - Conditions under which the rotation is refused.
      - By default, an armed trading engine, that is C(/app/execution.armed) in titan-execution.
    type: list
    elements: dict
    suboptions:
      service:
        description: Service or container name.
        type: str
        required: true
      path:
        description:
          - Without O(guards[].port), a file whose presence in the container forbids the rotation.
          - With it, the path of the HTTP request whose answer is looked at.
        type: str
        required: true
      port:
        description: HTTP port of the service.
        type: int
      field:
        description: Field of the JSON answer, with dots for nesting.
        type: str
      value:
        description: Value of the field, as text, that forbids the rotation.
        type: str
      reason:
        description: What the condition means, for the message.
        type: str
      hint:
        description: How to end the condition, for the message.
        type: str
  health_timeout:
    description:
      - Seconds that the services get to become healthy, before and after an undo alike.
    type: float
    default: 300.0
  stop_timeout:
    description:
      - Seconds that a container gets to stop where the Compose file declares none, 30 by default.
    type: float
  force:
    description:
      - Rotate although a guard forbids it or services are not well. What is not well may then lose messages.
      - An armed trading engine ends disarmed, for C(/app/execution.armed) is not among O(carry_files).
    type: bool
    default: false
"""
