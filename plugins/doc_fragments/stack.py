# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options that every module shares (their specification is stack_spec in the bridge)."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment titan.ops.stack."""

    DOCUMENTATION = r"""
options:
  project_src:
    description:
      - Absolute path of the stack's project directory on the managed host.
    type: path
    default: /opt/titan
  project_name:
    description:
      - Name of the Compose project.
      - By default the name that the labels of the stack's containers say, else what Compose itself would use.
      - Another name than the containers' is refused, because it would start a second stack on empty volumes.
    type: str
  files:
    description:
      - Compose files, absolute or relative to O(project_src), later ones override.
      - By default those that the labels of the stack's containers say, else C(docker-compose.prod.yml).
    type: list
    elements: path
    default: []
  env_files:
    description:
      - Files passed to Compose as C(--env-file), absolute or relative to O(project_src), later ones override.
      - By default C(.env) and C(compose/.env.prod), as far as they exist.
    type: list
    elements: path
    default: []
  profiles:
    description:
      - Compose profiles that are active.
    type: list
    elements: str
    default: []
  state_dir:
    description:
      - Directory (mode 0700) in which operations keep their journal while they are under way.
      - By default C(state) below O(project_src).
    type: path
  lock_path:
    description:
      - Lock file that every changing operation on this host holds while it runs.
      - By default C(deploy.lock) in O(state_dir), which Titan's deployments lock, too.
    type: path
  lock_timeout:
    description:
      - Seconds to wait for another operation to end.
    type: float
    default: 60.0
  docker_host:
    description:
      - Address of the Docker Engine.
    type: str
    default: unix:///var/run/docker.sock
requirements:
  - Docker Engine and Docker Compose 2.18 or later on the managed host
  - python3-docker and python3-requests of the distribution on the managed host
"""

    ATTRIBUTES = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and say what would change without changing it.
    support: full
  diff_mode:
    description: Says what has changed (or would change), without any secret, in diff mode.
    support: full
"""

    READ_ONLY = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode); it changes nothing anyway.
    support: full
  diff_mode:
    description: Says what has changed in diff mode.
    support: N/A
    details: This module changes nothing.
"""
