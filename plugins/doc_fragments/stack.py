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
      - Where releases lie in C(/opt/titan/releases/<id>) and C(/opt/titan/current) leads to one, that link. Containers
        of any of the releases then count as the stack's.
    type: path
    default: /opt/titan
  project_name:
    description:
      - Name of the Compose project.
      - By default the name that the labels of the stack's containers say, else what Compose itself would use.
      - Another name than the containers' is refused, because it would start a second stack on empty volumes. So is a
        start without any container that tells the name, while volumes of the stack bear another one.
    type: str
  files:
    description:
      - Compose files, absolute or relative to O(project_src), later ones override.
      - By default those that the labels of the stack's containers say, else C(docker-compose.prod.yml). A file of
        another release stands for the one of the same name in O(project_src).
      - Containers that were made from different sets of files are refused, and so is a file that is not there any more.
        Name the files then; one left out could move a service to another image.
    type: list
    elements: path
    default: []
  env_files:
    description:
      - Files passed to Compose as C(--env-file), absolute or relative to O(project_src), later ones override.
      - By default C(.env), C(compose/.env.prod) and C(.env.prod), as far as they exist, a file with two names once.
      - For a release with neither of the latter two, C(compose/.env.prod) beside the C(releases) directory.
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
      - Directory in which operations keep their journal while they are under way.
      - By default C(state) below O(project_src), for a release beside the C(releases) directory, so that it outlives
        the release.
      - Made with mode 0700 and the owner of the directory around it. One that exists is left as it is, unless everybody
        may write to it.
    type: path
  lock_path:
    description:
      - Lock file that every changing operation on this host holds while it runs.
      - By default C(deploy.lock) in O(state_dir), which Titan's deployments lock, too
        (C(/opt/titan/state/deploy.lock)).
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
  metrics_dir:
    description:
      - Directory in which Prometheus' node_exporter looks for text files. Operations that keep a history write the time
        and the result of their last run there.
      - By default C(/var/lib/prometheus/node-exporter), where that exists. V('') writes none.
    type: path
  operator:
    description:
      - Who asked for the operation, beside the user that Ansible logs in as. It stands in the history and is told to
        whoever waits for the host's lock.
    type: dict
    suboptions:
      user:
        description: The person, for example AWX's C(awx_user_name).
        type: str
      job:
        description: The job, for example AWX's C(awx_job_id).
        type: str
      job_template:
        description: The job's template, for example AWX's C(awx_job_template_name).
        type: str
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
