# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options that name an off-site repository (their specification is offsite_spec)."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment titan.ops.offsite."""

    DOCUMENTATION = r"""
options:
  repository:
    description:
      - The restic repository, as restic writes it, for example C(sftp:backup@example.com:/srv/titan) or
        C(s3:https://nyc3.digitaloceanspaces.com/bucket/titan). Credentials do not belong into it.
      - SFTP and S3-compatible ones are tested. restic's others are handed through.
    type: str
    required: true
  password_file:
    description:
      - File on the managed host with the repository's password, for root alone (mode 0600).
      - Without this password nothing in the repository can be read. Keep a copy of it somewhere else.
    type: path
    required: true
  environment_file:
    description:
      - File on the managed host with the store's credentials, lines C(NAME=value), for root alone (mode 0600).
      - An S3 repository wants C(AWS_ACCESS_KEY_ID) and C(AWS_SECRET_ACCESS_KEY).
    type: path
  ssh_key:
    description:
      - Private key on the managed host for an SFTP repository, by default those of root.
    type: path
  known_hosts:
    description:
      - File on the managed host with the host key of the SFTP server, by default root's own and the system's.
      - A key that is not in it is never accepted.
    type: path
  restic_options:
    description:
      - More of restic's extended options (C(restic options) lists them), for example V(s3.storage-class=STANDARD_IA).
      - With one for C(sftp), O(ssh_key) and O(known_hosts) are left to it.
    type: list
    elements: str
    default: []
  hostname:
    description:
      - Whose backups they are, by default the managed host's name. Several hosts may share a repository.
      - One that is given is never exchanged for another. By default the backups of another host are brought back when
        there are none of this one, as after a disaster.
    type: str
  database:
    description: The database whose backups they are.
    type: str
    default: titan_brain
  directory:
    description:
      - Directory of the backups, absolute or relative to O(project_src), for a release to the directory that holds
        C(releases).
    type: path
    default: backups/db
  connect_timeout:
    description: Seconds in which the repository must answer.
    type: float
    default: 60.0
  timeout:
    description: Seconds that each step may take, for example to copy one backup.
    type: float
    default: 21600.0
requirements:
  - restic 0.14 or later, the distribution's package, on the managed host
"""
