#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: health_check
short_description: Ask health probes, and wait until all of them pass
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Asks HTTP, TCP, command and container-health probes, all at the same time, until all of them pass in the same round.
  - Fails with one sentence for each probe that does not pass, and with the last log lines of its service's containers
    (secrets masked).
  - Changes nothing.
  - Without a probe that names a service, no Compose project is needed.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.read_only
options:
  probes:
    description:
      - What to ask.
      - By default the health endpoints of Titan's runbook, asked inside their containers.
      - They are C(/health) of titan-brain on port 3100, which must say V(healthy) or V(degraded), C(/health) of
        titan-execution on port 3002, and C(/healthz) of titan-nats on port 8222.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What to call the probe in the result.
          - By default made of the service, port and path.
        type: str
      kind:
        description:
          - V(http) makes a GET request, without following redirects.
          - V(tcp) opens a connection.
          - V(command) runs O(probes[].argv) in the service's container; exit code 0 passes.
          - V(container) looks at the service's containers; each must run, and pass its health check if it has one.
        type: str
        choices: [http, tcp, command, container]
        default: http
      service:
        description:
          - Compose service or container name.
          - Without it the host itself is asked. V(command) and V(container) need it.
        type: str
      via:
        description:
          - For V(http) and V(tcp), from where to ask.
          - V(host) asks localhost of the host, so a container's port must be published there.
          - V(address) asks the container's network address from the host.
          - V(inside) asks localhost inside the container's network. Nothing is needed in its image, but root.
          - By default V(address) with O(probes[].service), else V(host).
        type: str
        choices: [host, address, inside]
      port:
        description: Port, for V(http) and V(tcp).
        type: int
      path:
        description: Path and query, for V(http).
        type: str
        default: /
      status:
        description: HTTP status codes that pass.
        type: list
        elements: int
        default: [200]
      headers:
        description: Headers of the request. Their values are masked wherever they would appear in the output.
        type: dict
        default: {}
      json:
        description:
          - Fields of the JSON answer and what each must say, a value or a list of acceptable values.
          - A dot steps into a nested field, a number into a list.
        type: dict
        default: {}
      argv:
        description: The command and its arguments, for V(command). No shell reads it.
        type: list
        elements: str
        default: []
      timeout:
        description:
          - Seconds that one try may take.
          - A command that takes longer is killed, unless it has started others. Those stay, and it is not run again
            before they have ended.
        type: float
        default: 5.0
  timeout:
    description:
      - Seconds to wait until all probes pass.
      - V(0) asks once.
    type: float
    default: 30.0
  interval:
    description:
      - Seconds between the first two rounds. The pause grows from round to round, to at most ten times that.
    type: float
    default: 0.3
"""

EXAMPLES = r"""
- name: Ask what the runbook asks
  titan.ops.health_check:

- name: Wait until the database takes queries and brain has reached it
  titan.ops.health_check:
    timeout: 300
    probes:
      - {name: database, service: titan-postgres, kind: command, argv: [pg_isready, -U, titan]}
      - service: titan-brain
        via: inside
        port: 3100
        path: /health
        json:
          status: [healthy, degraded]

- name: Ask something on the host, once
  titan.ops.health_check:
    timeout: 0
    probes:
      - {name: node_exporter, port: 9100, path: /metrics}
"""

RETURN = r"""
probes:
  description: How each probe ended, in the order given.
  returned: success, and failure of a probe
  type: list
  elements: dict
  contains:
    name:
      description: Name of the probe.
      type: str
    kind:
      description: Its kind.
      type: str
    service:
      description: The Compose service that was asked; null for the host itself.
      type: str
    ok:
      description: Whether it passed.
      type: bool
    tries:
      description: How often it had to be asked until it passed for good. For one that failed, how often it was asked.
      type: int
    reason:
      description: Why it did not pass; null when it did.
      type: str
    status:
      description:
        - HTTP status code, exit code of the command, or the container's health (its status without a health check).
        - Null for V(tcp), and when there was no answer.
      type: raw
    latency_seconds:
      description: Seconds that the last try took; null for V(container), and when there was no answer.
      type: float
    facts:
      description:
        - The JSON body of the last HTTP answer, secrets masked.
        - Of a body above 32 KiB only the fields that O(probes[].json) names, by their dotted paths.
        - Null when there is none.
      type: raw
  sample:
    - name: titan-brain:3100/health
      kind: http
      service: titan-brain
      ok: true
      tries: 1
      reason: null
      status: 200
      latency_seconds: 0.0042
      facts: {status: healthy}
waited_seconds:
  description: Seconds from the first question to the last answer.
  returned: success, and failure of a probe
  type: float
  sample: 0.021
logs:
  description: The last log lines, secrets masked, of the containers of services whose probes failed, by container name.
  returned: failure of a probe
  type: dict
  sample: {titan-brain: ["connection to NATS lost"]}
"""

from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.health.probe import Probe, probe_spec
from ansible_collections.titan.ops.plugins.module_utils.health.probes import check, default_probes


def operation(context: Context) -> dict:
    """Ask; the stack is looked for only when a probe is about it."""
    params = context.params
    probes = [Probe.from_params(entry) for entry in params["probes"]]
    stack = context.open() if not probes or any(probe.service for probe in probes) else None
    if not probes and stack is not None:
        probes = default_probes(stack)
    result = check(probes, stack=stack, clock=context.clock, timeout=params["timeout"], interval=params["interval"])
    return {"changed": False, **result}


def main() -> None:
    run_module(
        {
            "probes": {"type": "list", "elements": "dict", "default": [], "options": probe_spec()},
            "timeout": {"type": "float", "default": 30.0},
            "interval": {"type": "float", "default": 0.3},
        },
        operation,
    )


if __name__ == "__main__":
    main()
