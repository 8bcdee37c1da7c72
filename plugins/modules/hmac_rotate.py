#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Longer than 250 lines: nearly all of it is documentation, which Ansible wants in this file.

from __future__ import annotations

DOCUMENTATION = r"""
module: hmac_rotate
short_description: Rotate the HMAC secret that the services of a stack sign with, as one transaction
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Makes a new secret on the managed host, writes it to the env file, and gives it to every service that holds the old.
  - Producers of signed messages are stopped first, the consumers work off what was signed with the old secret, then the
    holders are replaced and started together. Nothing that was signed with the old secret is rejected or lost, unless
    O(drain) says so. When the rotation is undone after the start, what was signed with the new secret by then is
    rejected.
  - The new secret is proved in each container's environment, by health checks and by signed requests. When anything
    fails, the old secret is put back everywhere and the services are started again. Containers that had been replaced
    by then are made again from their image and settings, with O(carry_files) but nothing else of their own layer.
  - A run that was killed is finished or undone by the next one.
  - The secret never leaves the managed host and is in no output.
  - A rotation is not idempotent. Every run outside of check mode rotates.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
  - titan.ops.rotation
options:
  key:
    description:
      - Variable of the secret in O(env_file). Copies of the value under other names in that file change with it.
    type: str
    default: HMAC_SECRET
  length:
    description: Length of the new secret in bytes (it is written as twice as many hexadecimal digits), at least 16.
    type: int
    default: 32
  services:
    description: Services that are switched together, by service or container name. An empty list means every holder.
    type: list
    elements: str
    default: [titan-brain, titan-execution]
  producers:
    description: Those of O(services) that sign messages. They are stopped first, before the drain.
    type: list
    elements: str
    default: [titan-brain]
  drain:
    description: The JetStream consumer that must have worked off its messages before the consumers are stopped.
    type: dict
    default: {}
    suboptions:
      enabled:
        description: Whether to wait for it.
        type: bool
        default: true
      service:
        description: Service or container name of NATS.
        type: str
        default: titan-nats
      port:
        description: Port of NATS' monitoring endpoint in its container.
        type: int
        default: 8222
      stream:
        description: The stream of signed messages.
        type: str
        default: TITAN_CMD
      consumer:
        description: The durable consumer.
        type: str
        default: EXECUTION_CORE
      timeout:
        description: Seconds to wait.
        type: float
        default: 30.0
      on_timeout:
        description:
          - V(undo) ends the rotation and starts the old services again.
          - V(continue) goes on; what is left will be rejected.
        type: str
        choices: [undo, continue]
        default: undo
  probes:
    description:
      - Read-only requests that a service accepts only when they are signed. The new secret must be accepted and the old
        one refused. Services that do not hold the secret are passed over.
      - By default C(GET /services) of titan-brain on port 3100.
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
        description: HTTP path.
        type: str
        required: true
      method:
        description: HTTP method.
        type: str
        default: GET
      body:
        description: Body of the request; it is signed, too.
        type: str
        default: ''
  counters:
    description:
      - Prometheus counters of services that are shown in RV(counters) before and after. They decide nothing.
      - By default titan-execution's accepted and rejected intents.
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
      metric:
        description: Name of the metric.
        type: str
        required: true
      path:
        description: HTTP path.
        type: str
        default: /metrics
"""

EXAMPLES = r"""
- name: Rotate the HMAC secret
  titan.ops.hmac_rotate:

- name: Rotate it, and wait longer for a slow consumer
  titan.ops.hmac_rotate:
    drain:
      timeout: 120
"""

RETURN = r"""
key:
  description: The variable that was rotated.
  returned: success
  type: str
  sample: HMAC_SECRET
variables:
  description: The variables of the env file that have the value, copies under other names included.
  returned: success
  type: list
  elements: str
  sample: [HMAC_SECRET]
env_file:
  description: Real path of the env file.
  returned: success
  type: str
  sample: /opt/titan/compose/.env.prod
holders:
  description: The services that hold the secret, under which variables, and what was (would be) done with each.
  returned: success
  type: list
  elements: dict
  sample:
    - {service: titan-opsd, variables: [OPS_SECRET], action: recreated}
drained:
  description: What waited in the stream when the producers had stopped, what was left, and for how long it took.
  returned: success, outside of check mode, with drain.enabled
  type: dict
  sample: {stream: TITAN_CMD, consumer: EXECUTION_CORE, waiting: 3, left: 0, seconds: 0.082}
interruption:
  description:
    - Per service, seconds from the request to stop until the new container started, and until it was healthy.
    - Of the services that are switched together. Other holders are recreated one by one and not measured.
  returned: success, outside of check mode, and failure that was undone (then of the containers from before)
  type: dict
  sample: {titan-brain: {until_started_seconds: 2.1, until_healthy_seconds: 3.8}}
skew_seconds:
  description: Seconds between the first and the last start of the services switched together, by Docker's clock.
  returned: success, outside of check mode
  type: float
  sample: 0.012
carried:
  description: Files that were carried over, by service.
  returned: success, outside of check mode
  type: dict
  sample: {titan-execution: [/app/system.halt]}
proved:
  description:
    - What the new secret was proved by, beside the environment and the health check of each container.
    - Services that were not well before (O(force)) are not asked. Where none was asked, a warning says so.
  returned: success, outside of check mode
  type: list
  elements: str
  sample: ["titan-brain: GET /services accepted when signed with the new secret, refused with the old one"]
counters:
  description: The counters before and after; a process that keeps them in memory begins at zero again.
  returned: success
  type: dict
  sample: {before: {titan_execution_rejection_events_total: 0}, after: {titan_execution_rejection_events_total: 0}}
steps:
  description: The steps that were taken (in check mode, would be), after a failure those of the undo included.
  returned: success, and failure that was undone
  type: list
  elements: str
recovered:
  description:
    - What was done with an interrupted earlier rotation, null when there was none.
    - V(finished), V(undone), or V(superseded) when all holders have been given another value by hand since.
  returned: success
  type: str
rolled_back:
  description:
    - Whether it was undone, so that the old secret is back in the env file and in every holder, and what was well
      before is well again. V(false) says that undoing failed, too, and that the journal is kept for the next run.
    - Containers that had been replaced were made again from their image and settings. Files in their own layer other
      than O(carry_files) are gone.
  returned: failure after the rotation had begun
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
reasons:
  description: Everything that stands against the rotation, one sentence each.
  returned: refusal by guards or by services that are not well
  type: list
  elements: str
literals:
  description: The places with a copy of the secret that the env file does not reach.
  returned: refusal for such copies
  type: list
  elements: str
service:
  description: The service that failed.
  returned: failure of a service
  type: str
log:
  description: The last log lines of the container that failed, secrets masked.
  returned: failure of a service
  type: list
  elements: str
"""

import functools

from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.database.server import Server
from ansible_collections.titan.ops.plugins.module_utils.rotation.hmac import rotate
from ansible_collections.titan.ops.plugins.module_utils.rotation.hmac_options import HmacOptions
from ansible_collections.titan.ops.plugins.module_utils.rotation.recovery import recover_others
from ansible_collections.titan.ops.plugins.module_utils.rotation.spec import hmac_spec


def operation(context: Context) -> dict:
    """Recover, plan, and outside of check mode apply."""
    options = HmacOptions.from_params(context.params)
    stack = context.open(read=False)  # an interrupted rotation is recovered whatever the files say by now
    connector = functools.partial(Server, runner=context.runner)  # which holds the lock for as long as psql runs
    recover_others(stack, "hmac_rotate", check_mode=context.check_mode, connector=connector)
    return rotate(stack, options, check_mode=context.check_mode, cancelled=lambda: context.cancelled)


def main() -> None:
    run_module(hmac_spec(), operation, mutates="rotate the HMAC secret", history="rotate_hmac", secret="key")


if __name__ == "__main__":
    main()
