# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of the database password (runbook 3.1) as one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Callable

from ..compose.stack import Stack
from ..core.errors import OpsError
from ..core.journal import Journal
from ..database.login import LoginFailed
from ..database.server import Server, Target
from ..health.probe import Probe
from .envsecret import swapped
from .frame import in_frame, journal_of, recover_interrupted
from .pg_options import PgOptions
from .pg_plan import PgPlan, plan
from .pg_proof import prove
from .planning import not_asked
from .sessions import SessionWait, settle
from .switch import Switch
from .transaction import Authority, Outcome, Transaction

__all__ = ["JOURNAL", "Connector", "apply", "recover", "rotate"]

JOURNAL = "pg_password"
_WAKINGS = 3
Connector = Callable[[Stack, Target], Server]


def rotate(
    stack: Stack,
    options: PgOptions,
    *,
    check_mode: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
    connector: Connector = Server,
) -> dict[str, Any]:
    """The whole operation: recover an interrupted one, plan, and apply unless in check mode.

    Args:
        stack: the stack.
        options: the options.
        check_mode: plan only.
        cancelled: asked before each step; True undoes what was done so far.
        connector: gives the database.

    Returns:
        What the module returns (its documentation, "Return values").

    Raises:
        OpsError: refused or failed; the message says what state the host is in.
    """
    if options.password:
        stack.redact.add(options.password)

    def work(warnings: list[str]) -> dict[str, Any]:
        planned = plan(stack, options, connector(stack, options.target))
        warnings += planned.warnings
        result: dict[str, Any] = {
            "variables": list(planned.secret.keys),
            "role": options.role,
            "env_file": planned.secret.file.real_path,
            "holders": planned.holders(),
            "not_stopped": list(planned.not_holding),
            "steps": planned.steps(),
            "diff": planned.diff(options.role),
        }
        if not check_mode:
            proved: list[str] = []
            outcome, sessions = apply(stack, options, planned, cancelled=cancelled, connector=connector, proved=proved)
            result.update(**asdict(outcome), sessions=asdict(sessions) if sessions else None, proved=proved)
            if options.probes and len(proved) == 1:  # the login alone
                warnings.append(not_asked(options.key, "request to a service", options.probes))
            if sessions and sessions.left:
                warnings.append(f"Sessions that were open before go on with what they do: {'; '.join(sessions.left)}")
        return result

    return in_frame(
        stack,
        JOURNAL,
        options.key,
        check_mode=check_mode,
        recover=lambda: recover(stack, socket=options.recover, connector=connector),
        work=work,
    )


def apply(
    stack: Stack,
    options: PgOptions,
    planned: PgPlan,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    connector: Connector = Server,
    proved: list[str] | None = None,
) -> tuple[Outcome, SessionWait | None]:
    """Carry out the rotation; how it went, and what was waited for in the database.

    Args:
        stack: the stack.
        options: the options that the plan was made with.
        planned: what ``plan`` returned.
        cancelled: asked before each step; True undoes what was done so far.
        connector: gives the database.
        proved: is given what was proved by logins and requests.

    Raises:
        OpsError: it failed; the message says whether the old password is back everywhere.
    """
    secret, new = planned.secret, options.new_password()
    switch = Switch(
        key=options.key,
        env_file=secret.file.real_path,
        old=secret.value,
        new=new,
        old_data=secret.file.data,
        new_data=swapped(secret.file.data, options.key, secret.value, new),
        producers=(),
        services=planned.services,
        stale=planned.stale,
        first=planned.first,
        holders={holder.service: holder.variables for holder in secret.holders},
        carry=planned.carry,
        health_timeout=options.health_timeout,
        context={
            "target": asdict(replace(options.target, service=planned.database)),
            "probes": [asdict(replace(probe, service=stack.resolve(str(probe.service)))) for probe in options.probes],
            "stop_timeout": options.stop_timeout,
            "verifier": planned.verifier,
            "lost": not planned.password_known,
        },
    )
    containers = [item for found in stack.containers_of(planned.services).values() for item in found]
    addresses = [address for item in containers for address in item.addresses]
    applications = [*planned.services, *(item.name for item in containers)]
    waited: list[SessionWait] = []

    def settled() -> None:
        server = connector(stack, options.target)
        password = secret.value if planned.password_known else None
        waited.append(settle(stack, server, options, password, addresses, applications))

    transaction = _transaction(stack, journal_of(stack, JOURNAL), switch, connector, settled, cancelled, done=proved)
    return transaction.run(), waited[0] if waited else None


def recover(stack: Stack, *, socket: bool = False, connector: Connector = Server) -> str | None:
    """Finish or undo an interrupted rotation, if there is one.

    Args:
        stack: the stack.
        socket: use the container's socket where the database takes neither password, whatever the journal says.
        connector: gives the database.

    Returns:
        "finished", "undone", "superseded", or None when there was nothing to do.

    Raises:
        OpsError: none was possible.
    """

    def again(journal: Journal, switch: Switch) -> Transaction:
        return _transaction(stack, journal, switch, connector, lambda: None, socket=socket)

    return recover_interrupted(stack, JOURNAL, again)


def awake(server: Server, ask: Callable[[], bool], timeout: float) -> bool:
    """Ask a server that is brought up where it does not run, and again where it ends just then."""
    for _attempt in range(_WAKINGS):
        server.wake(timeout=timeout)
        try:
            return ask()
        except LoginFailed as exc:
            if not exc.passing or server.running():
                raise
    raise OpsError(f"The database {server.name} ends again and again", hint="docker logs shows why.")


def _transaction(
    stack: Stack,
    journal: Journal,
    switch: Switch,
    connector: Connector,
    settled: Callable[[], None],
    cancelled: Callable[[], bool] = lambda: False,
    *,
    socket: bool = False,
    done: list[str] | None = None,
) -> Transaction:
    """From the switch alone, for a later run knows nothing else."""
    context: Mapping[str, Any] = switch.context
    target = Target(**{**context["target"], **({"socket": True} if socket else {})})
    probes = tuple(Probe.from_params(entry) for entry in context["probes"])
    server = connector(stack, target)
    timeout = switch.health_timeout

    def put(value: str, other: str) -> None:
        stored = context.get("verifier") if value == switch.old else None
        awake(server, lambda: server.put(value, other, timeout=timeout, stored=stored), timeout)

    def accepts(value: str) -> bool:
        return awake(server, lambda: server.accepts(value, timeout=timeout), timeout)

    def proved(right: str, wrong: str, services: Sequence[str]) -> None:
        # Where the password had been lost, who lives on it was not well before, and must be now.
        demanded = switch.services if target.socket and right == switch.new else services
        prove(stack, server, probes, right, wrong, demanded, timeout=timeout)
        if done is not None:
            done.append("login over TCP: the new password is accepted, the old one refused")
            asked = [(stack.resolve(str(probe.service)), probe) for probe in probes]
            done.extend(f"{name}: GET {probe.path} is well" for name, probe in asked if name in demanded)

    return Transaction(
        stack,
        journal,
        switch,
        drain=None,
        prove=proved,
        cancelled=cancelled,
        stop_timeout=context["stop_timeout"],
        authority=Authority(settle=settled, put=put, accepts=accepts, lost=context.get("lost", False)),
    )
