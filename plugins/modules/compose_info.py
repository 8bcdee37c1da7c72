#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Longer than 290 lines: all but thirty of them document the result, which is a whole inventory.

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_info
short_description: Read what a Compose stack is and what it should be
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Reads the services that the Compose files declare and the containers that exist, and in what they differ.
  - Changes nothing, and returns no value of any environment variable.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.read_only
options:
  services:
    description:
      - Services to read, each by its Compose service name or by its container name.
      - None means the whole stack.
    type: list
    elements: str
    default: []
  disk:
    description:
      - Also ask Docker how much disk its images, containers, volumes and build cache take.
      - It has to measure them, which takes seconds, on a full disk minutes.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Read the stack
  titan.ops.compose_info:
  register: stack

- name: Show which services would be replaced by the next start
  ansible.builtin.debug:
    var: stack.drifted

- name: Read one service, and what Docker has on the disk
  titan.ops.compose_info:
    services: [titan-brain]
    disk: true
"""

RETURN = r"""
project:
  description: The Compose project.
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    src:
      description: Its directory.
      type: str
    files:
      description: Its Compose files, later ones override.
      type: list
      elements: str
    env_files:
      description: The files given to Compose as C(--env-file), later ones override.
      type: list
      elements: str
    compose_version:
      description: Version of Docker Compose.
      type: str
    engine_version:
      description: Version of the Docker Engine.
      type: str
  sample:
    name: titan-prod
    src: /opt/titan
    files: [/opt/titan/docker-compose.prod.yml]
    env_files: [/opt/titan/.env]
    compose_version: 2.26.1
    engine_version: 26.1.5
services:
  description: The declared services (those asked for) by name.
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: Compose service.
      type: str
    container_name:
      description: The container name that the Compose file fixes; null where it does not.
      type: str
    image:
      description: Name of the image by the Compose file.
      type: str
    containers:
      description: Its containers, stopped ones included.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the container.
          type: str
        id:
          description: Its id.
          type: str
        service:
          description: Its Compose service.
          type: str
        status:
          description: Docker's status, for example V(running), V(exited) or V(restarting).
          type: str
        health:
          description: What its health check says; null without one.
          type: str
        trouble:
          description: Why it is not well (yet), in words; null when it is.
          type: str
        restarts:
          description: How often Docker restarted it.
          type: int
        exit_code:
          description: Exit code; null while it runs.
          type: int
        started_at:
          description: When it was last started (ISO 8601, UTC); null for never.
          type: str
        finished_at:
          description: When it last ended (ISO 8601, UTC); null while it runs, and for never.
          type: str
        uptime_seconds:
          description: Seconds since it was started; null when it does not run.
          type: float
        image:
          description: Name of the image that it was made from.
          type: str
        image_id:
          description: Id of that image.
          type: str
        image_digests:
          description: Repository digests of that image; none for one that was neither pulled nor pushed.
          type: list
          elements: str
        ports:
          description: Its ports while it runs, and where the host publishes them (null where it does not).
          type: list
          elements: dict
          contains:
            container_port:
              description: Port in the container.
              type: int
            protocol:
              description: Protocol, for example V(tcp).
              type: str
            host_ip:
              description: Address on the host.
              type: str
            host_port:
              description: Port on the host.
              type: int
        config_drift:
          description:
            - Whether the Compose and env files differ from what it was made from (Compose's configuration hash).
            - Null when that cannot be told.
          type: bool
        environment_drift:
          description: Names of the variables in which its environment differs from what the Compose and env files say.
          type: list
          elements: str
        image_drift:
          description: Whether a new container would run another image.
          type: bool
  sample:
    - service: titan-brain
      container_name: titan-brain
      image: titan/brain:1.0.0
      containers:
        - name: titan-brain
          id: 5c1b7f2e0a61
          service: titan-brain
          status: running
          health: healthy
          trouble: null
          restarts: 0
          exit_code: null
          started_at: "2026-02-06T14:03:12Z"
          finished_at: null
          uptime_seconds: 86.2
          image: titan/brain:1.0.0
          image_id: sha256:0a1b2c
          image_digests: []
          ports:
            - {container_port: 3100, protocol: tcp, host_ip: 127.0.0.1, host_port: 3100}
          config_drift: true
          environment_drift: [HMAC_SECRET]
          image_drift: false
interrupted:
  description: Operations (kinds of journal) that were interrupted or, where RV(under_way) is set, may be under way.
  returned: success
  type: list
  elements: str
  sample: []
under_way:
  description: Who holds the host's lock at this moment and for what, null when nobody does or this user cannot tell.
  returned: success
  type: str
missing:
  description: Services (of those asked for) that have no container.
  returned: success
  type: list
  elements: str
  sample: [titan-ai-quant]
drifted:
  description: Services (of those asked for) with a container that differs in its configuration, environment or image.
  returned: success
  type: list
  elements: str
  sample: [titan-brain]
inactive:
  description:
    - Containers of services that the Compose files declare under a profile that is not active.
    - Fields as of RV(services[].containers), without the three of drift.
  returned: success
  type: list
  elements: dict
  sample: []
orphans:
  description:
    - Containers of the project that no service declares. Containers of C(docker compose run) are left out.
    - Fields as of RV(services[].containers), without the three of drift.
  returned: success
  type: list
  elements: dict
  sample: []
disk:
  description: How full the disks are.
  returned: success
  type: dict
  contains:
    file_systems:
      description: The file systems of the root directory, of Docker's data directory and of O(project_src).
      type: list
      elements: dict
      contains:
        path:
          description: Path in the file system.
          type: str
        total_bytes:
          description: Its size.
          type: int
        free_bytes:
          description: What of it users can still write.
          type: int
    docker:
      description: What Docker has on the disk; null without O(disk).
      type: dict
      contains:
        images_bytes:
          description: Images; layers that images share count once.
          type: int
        containers_bytes:
          description: What containers have written to their own layers.
          type: int
        volumes_bytes:
          description: Volumes.
          type: int
        build_cache_bytes:
          description: The build cache.
          type: int
  sample:
    file_systems:
      - {path: /, total_bytes: 171798691840, free_bytes: 128849018880}
    docker: null
"""

from ansible_collections.titan.ops.plugins.module_utils.bridge import Context, run_module
from ansible_collections.titan.ops.plugins.module_utils.compose.report import report


def operation(context: Context) -> dict:
    """Read."""
    params = context.params
    found = report(context.open(), context.runner, services=params["services"], disk=params["disk"])
    return {"changed": False, **found}


def main() -> None:
    run_module(
        {
            "services": {"type": "list", "elements": "str", "default": []},
            "disk": {"type": "bool", "default": False},
        },
        operation,
    )


if __name__ == "__main__":
    main()
