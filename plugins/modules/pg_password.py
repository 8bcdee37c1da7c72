#!/usr/bin/python
# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Longer than 250 lines: nearly all of it is documentation, which Ansible wants in this file.

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_password
short_description: Rotate the password of a stack's database role, as one transaction
version_added: 0.1.0
author:
  - Titan Ops (@titan-ops)
description:
  - Sets a new password of a PostgreSQL role, writes it to the env file, and gives it to every service that holds the
    old.
  - The services are stopped first and their sessions awaited. Then the role is changed, the env file replaced, and the
    holders are replaced and started together.
  - The password is proved by logins over TCP (the new one is accepted, the old one refused), in each container's
    environment, and by brain's own health. When anything fails, the old password is put back everywhere.
  - Containers that had been replaced by then are made again from their image and settings, with O(carry_files) but
    nothing else of their own layer.
  - The server gets a SCRAM-SHA-256 verifier that is computed on the managed host, never the password's text.
  - A run that was killed is finished or undone by the next one, or by M(titan.ops.rotation_recover).
  - A rotation is not idempotent. Every run outside of check mode rotates.
extends_documentation_fragment:
  - titan.ops.stack
  - titan.ops.stack.attributes
  - titan.ops.rotation
requirements:
  - python3-psycopg2 of the distribution on the managed host
  - PostgreSQL 10 or later
options:
  key:
    description:
      - Variable of the password in O(env_file). Copies of the value under other names in that file, and inside URLs,
        change with it.
    type: str
    default: TITAN_DB_PASSWORD
  password:
    description:
      - The new password. Without it one is made on the managed host.
      - It is in the task's arguments, which Ansible writes into a temporary file on the host for the time of the run
        unless pipelining is on. The playbook rotate_db_password sets C(ansible_pipelining), your own should, too.
      - From 16 to 256 letters, digits and C(. _ -), for these survive every env file, URL, shell and SQL text.
    type: str
  length:
    description: Length of the password that is made, in characters.
    type: int
    default: 40
  alphabet:
    description: Characters of the password that is made, out of letters, digits and C(. _ -).
    type: str
    default: abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789
  role:
    description: The role whose password it is.
    type: str
    default: titan
  database:
    description: The database that the role logs in to.
    type: str
    default: titan_brain
  service:
    description: Service or container name of the PostgreSQL server.
    type: str
    default: titan-postgres
  port:
    description: Port of the server in its container.
    type: int
    default: 5432
  host:
    description:
      - Address at which the managed host reaches the server.
      - By default the container's network address, else where its port is published. An address from which the server
        takes any password is refused, because a login proves nothing there.
    type: str
  recover:
    description:
      - Go on although the database refuses the env file's password. The new one is then set through the container's
        socket, which must trust its superuser.
      - Services that are not well for want of the right password do not forbid the rotation then, and must be well
        after it.
    type: bool
    default: false
  recreate_database:
    description:
      - Recreate the database's own container, too, when it holds the password (as C(POSTGRES_PASSWORD), say).
      - By default only the env file is changed for it, since the password of the running server is the role's.
    type: bool
    default: false
  services:
    description:
      - Services that are stopped before the role is changed and started together after it, by service or container
        name. Those among them that do not hold the password run on. An empty list means every holder.
    type: list
    elements: str
    default: [titan-brain, titan-execution]
  session_timeout:
    description: Seconds that the sessions of the stopped services get to leave the database.
    type: float
    default: 30.0
  on_session_timeout:
    description:
      - What to do when they have not.
      - V(undo) ends the rotation and starts the old services again.
      - V(terminate) ends the sessions. What they have not committed is lost.
      - V(continue) leaves them alone. They go on with what they do.
    type: str
    choices: [undo, terminate, continue]
    default: undo
  probes:
    description:
      - HTTP requests that show that a service works with the password. Services that do not hold it are passed over.
      - By default C(GET /health) of titan-brain on port 3100, which logs in to the database.
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
        default: /health
      status:
        description: Status codes that count as well.
        type: list
        elements: int
        default: [200]
"""

EXAMPLES = r"""
- name: Rotate the database password
  titan.ops.pg_password:

- name: Set a password although the old one is lost
  titan.ops.pg_password:
    recover: true
"""

RETURN = r"""
key:
  description: The variable that was rotated.
  returned: success
  type: str
  sample: TITAN_DB_PASSWORD
variables:
  description: The variables of the env file that have the value, copies under other names included.
  returned: success
  type: list
  elements: str
  sample: [TITAN_DB_PASSWORD, DATABASE_URL]
role:
  description: The role.
  returned: success
  type: str
  sample: titan
env_file:
  description: Real path of the env file.
  returned: success
  type: str
  sample: /opt/titan/compose/.env.prod
holders:
  description:
    - The services that hold the password, under which variables, and what was (would be) done with each.
    - V(kept) says of the database itself that its container was not recreated.
  returned: success
  type: list
  elements: dict
  sample:
    - {service: titan-brain, variables: [TITAN_DB_PASSWORD], action: switched}
not_stopped:
  description: Those of O(services) that do not hold the password, and run on.
  returned: success
  type: list
  elements: str
sessions:
  description:
    - How long the old sessions took to leave the database, how many there were, were ended, and are left.
    - When the rotation was undone because sessions stayed, the list of them, one text each.
  returned: success, outside of check mode, and failure for sessions that stayed
  type: raw
  sample: {seconds: 0.012, found: 0, terminated: 0, left: []}
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
    - What the new password was proved by, beside the environment and the health check of each container.
    - Services that were not well before (O(force)) are not asked. Where none was asked, a warning says so.
  returned: success, outside of check mode
  type: list
  elements: str
  sample: ["login over TCP: the new password is accepted, the old one refused"]
steps:
  description: The steps that were taken (in check mode, would be), after a failure those of the undo included.
  returned: success, and failure that was undone
  type: list
  elements: str
recovered:
  description:
    - What was done with an interrupted earlier rotation, null when there was none.
    - V(finished), V(undone), or V(superseded) when all have been given another password by hand since.
  returned: success
  type: str
rolled_back:
  description:
    - Whether it was undone, so that the old password is back in the env file and in every holder, and what was well
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
  description: The places with a copy of the password that the env file does not reach.
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
from ansible_collections.titan.ops.plugins.module_utils.rotation.pg import rotate
from ansible_collections.titan.ops.plugins.module_utils.rotation.pg_options import PgOptions
from ansible_collections.titan.ops.plugins.module_utils.rotation.recovery import recover_others
from ansible_collections.titan.ops.plugins.module_utils.rotation.spec import pg_spec


def operation(context: Context) -> dict:
    """Recover, plan, and outside of check mode apply."""
    options = PgOptions.from_params(context.params)
    stack = context.open(read=False)  # an interrupted rotation is recovered whatever the files say by now
    connector = functools.partial(Server, runner=context.runner)  # which holds the lock for as long as psql runs
    recover_others(stack, "pg_password", check_mode=context.check_mode)
    return rotate(
        stack,
        options,
        check_mode=context.check_mode,
        cancelled=lambda: context.cancelled,
        connector=connector,
    )


def main() -> None:
    run_module(pg_spec(), operation, mutates="rotate the database password", history="rotate_db_password", secret="key")


if __name__ == "__main__":
    main()
