# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options that name a database and its backups (their specification is database_spec)."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment titan.ops.backup."""

    DOCUMENTATION = r"""
options:
  service:
    description: Service or container name of the PostgreSQL server.
    type: str
    default: titan-postgres
  database:
    description: The database.
    type: str
    default: titan_brain
  role:
    description: The role that logs in, the database's owner or a superuser.
    type: str
    default: titan
  port:
    description: Port of the server in its container.
    type: int
    default: 5432
  host:
    description:
      - Address at which the managed host reaches the server.
      - By default the container's network address, else where its port is published.
    type: str
  env_file:
    description: The env file with the role's password, absolute or relative to O(project_src).
    type: path
    default: compose/.env.prod
  key:
    description:
      - Variable of the password in O(env_file).
      - Where the server refuses it, the container's own socket is tried without one, for a backup matters more.
    type: str
    default: TITAN_DB_PASSWORD
  directory:
    description:
      - Directory of the backups, absolute or relative to O(project_src), for a release to the directory that holds
        C(releases).
    type: path
    default: backups/db
requirements:
  - python3-psycopg2 of the distribution on the managed host
  - PostgreSQL 10 or later
"""
