# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the rotation of the database password would do, and what forbids it; changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..compose.stack import Stack
from ..core.errors import InvalidInput, OpsError, Refused
from ..database.checks import refuse_unless_usable
from ..database.login import LoginFailed
from ..database.server import Facts, Server
from .envsecret import EnvSecret, read_secret, swapped
from .pg_options import PgOptions
from .planning import carry_of, check_names, diff_of, disagreement, guarded, holders_of, other_holders

__all__ = ["PgPlan", "plan"]


@dataclass(frozen=True)
class PgPlan:
    """What the rotation would do; holds no new password, for that is made when it is applied.

    Attributes:
        secret: the password as the env file has it now.
        database: the database's own service.
        services: stopped before the role is changed, and switched together after it.
        stale: other holders that are recreated after them.
        first: the database's own container, where it is to be recreated.
        left: other holders that keep the old password (policy "warn").
        not_holding: services that were named and do not hold the password: they run on.
        carry: files carried over, by service.
        password_known: whether the database accepts the env file's password.
        verifier: what the database keeps of it, where that may be read.
        warnings: what the operator should know.
    """

    secret: EnvSecret = field(repr=False)
    database: str
    services: tuple[str, ...]
    stale: tuple[str, ...]
    first: tuple[str, ...]
    left: tuple[str, ...]
    not_holding: tuple[str, ...]
    carry: Mapping[str, tuple[str, ...]]
    password_known: bool
    warnings: tuple[str, ...]
    verifier: str | None = field(default=None, repr=False)

    def steps(self) -> list[str]:
        """The steps of the transaction, in order, as ``Outcome.steps`` will name them."""
        return [
            "stop the services",
            "save files",
            "wait for their sessions to end",
            "set the role's password",
            "replace the env file",
            "create the new containers",
            *(["recreate the database"] if self.first else []),
            "start",
            *(["recreate the other holders"] if self.stale else []),
            "prove",
        ]

    def holders(self) -> list[dict[str, Any]]:
        """Each holder with its variables and what is done with it."""
        return holders_of(
            self.secret,
            {
                "kept": (self.database,),
                "switched": self.services,
                "recreated": (*self.stale, *self.first),
                "left": self.left,
            },
        )

    def diff(self, role: str) -> dict[str, str]:
        """Before and after, one line a place; never a value."""
        return diff_of(self.secret, self.holders(), first=[f"role {role} of {self.database}"])


def plan(stack: Stack, options: PgOptions, server: Server) -> PgPlan:
    """Say what a rotation would do, and refuse one that must not begin.

    Raises:
        InvalidInput: an option, the env file or the key is not usable.
        Refused: a guard forbids it, the stack is not well, a holder cannot be reached, or the database would not work
            with a new password.
    """
    secret = read_secret(stack, options.env_file, options.key)
    if options.password == secret.value:
        raise InvalidInput("The given password is the one that is in use", hint="Give another one, or none.")
    check_names(stack, options.probes)
    database = server.name
    holding = [name for name in secret.services() if name != database]
    services, not_holding = _services(stack, options, holding, database)
    others, told = other_holders(stack, options, secret, services, among=holding, what="password")
    stale = tuple(others) if options.stale == "recreate" else ()
    first = (database,) if options.recreate_database and database in secret.services() else ()
    warnings = [*secret.warnings, *told]
    warnings += [f"{name} does not hold {options.key}: it is not stopped" for name in not_holding]
    warnings += disagreement(stack, secret, [*services, *stale], ignored=[database], lost=options.recover)
    # The change itself is tried with a value of the same form, so that check mode refuses what a run would refuse.
    swapped(secret.file.data, options.key, secret.value, options.password or "x" * options.length)
    # The database first: of a wrong password there, services that are not well are only the consequence.
    known, seen, verifier = _database(stack, options, secret, server, [*services, *stale])
    warnings += guarded(stack, options, services, stale, what="password", ill_is_fine=options.recover)
    if database in secret.services() and not first:
        warnings.append(
            f"{database} itself keeps the old password in its environment, where it counts only for a new volume; the "
            f"next plain `docker compose up -d` recreates it"
        )
    return PgPlan(
        secret=secret,
        database=database,
        services=tuple(services),
        stale=stale,
        first=first,
        left=tuple(others) if options.stale == "warn" else (),
        not_holding=tuple(not_holding),
        carry=carry_of(stack, options, [*services, *stale]),
        password_known=known,
        warnings=tuple(dict.fromkeys([*warnings, *seen])),
        verifier=verifier,
    )


def _services(stack: Stack, options: PgOptions, holding: list[str], database: str) -> tuple[list[str], list[str]]:
    """The services that are switched together, and those named that do not hold the password."""
    named = stack.model.resolve_all(options.services)
    if database in named:
        raise InvalidInput(
            f"{database} is the database itself, and cannot be stopped while its role is changed",
            hint="Leave it out of services; recreate_database: true recreates it as part of the rotation.",
        )
    services = [name for name in named if name in holding] if named else holding
    if not services:
        raise InvalidInput(
            f"None of the services {', '.join(named) or '(none)'} holds {options.key}",
            hint=f"The holders are: {', '.join(holding) or 'none'}. Name the right ones with services.",
        )
    return services, [name for name in named if name not in holding]


def _database(
    stack: Stack, options: PgOptions, secret: EnvSecret, server: Server, clients: Sequence[str]
) -> tuple[bool, list[str], str | None]:
    """Whether the database accepts the current password, warnings, and what it keeps of that password.

    Raises:
        Refused: a new one would not work.
    """
    what = f"{options.key} is not rotated"
    try:
        if server.takes_anything():
            raise Refused(
                f"{what}: the database lets {options.role} in from this host with any password (trust), so that "
                "nothing can be proved",
                hint="Reach it another way (host), or let pg_hba.conf say scram-sha-256 for this host.",
            )
        known = server.accepts(secret.value)
        if not known and not options.recover:
            raise _wrong_password(options, server, what)
        facts = server.look(secret.value if known else None)
    except LoginFailed as exc:
        hint = exc.hint or "Mend the database first (docker logs shows why)."
        raise Refused(f"{what}: {exc.msg}", hint=hint) from exc
    except OpsError as exc:
        if isinstance(exc, InvalidInput):
            raise
        raise Refused(f"{what}: {exc.msg}", hint=exc.hint) from exc
    warnings = refuse_unless_usable(facts, options.target, _seen_as(stack, server.name, clients))
    if not known:
        warnings.append(f"The database does not accept the env file's {options.key}: it is set through the socket")
    if facts.md5:
        warnings.append(
            f"The database keeps the password of {options.role} as an MD5 verifier that {options.role} may not read: "
            "the new one is kept as SCRAM-SHA-256, and so would the old one be after an undo. A holder whose driver "
            "knows no SCRAM could then log in with neither"
        )
    return known, warnings, facts.verifier if known else None


def _seen_as(stack: Stack, database: str, clients: Sequence[str]) -> list[str]:
    """Addresses from which the clients come to the database: theirs on the networks that they share with it."""
    own = {name for item in stack.containers_of([database])[database] for name in item.networks}
    return [
        address
        for found in stack.containers_of(clients).values()
        for item in found
        for network, address in item.address_on.items()
        if network in own or "host" in own  # the host itself is on all of them
    ]


def _wrong_password(options: PgOptions, server: Server, what: str) -> Refused:
    """The error for a password that the database refuses; the socket, where it lets us look, tells more."""
    facts: Facts | None = None
    with contextlib.suppress(OpsError):
        facts = server.look(None)
    if facts is not None:
        refuse_unless_usable(facts, options.target, ())
    return Refused(
        f"{what}: the database refuses the current password of {options.role} that the env file has"
        + ("" if facts else " (or has no such role)"),
        hint="Write the right one into the env file, or set a new one through the container's socket with "
        "recover: true (-e recover=true).",
    )
