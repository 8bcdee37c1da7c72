# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reasons for which a new password would not work, known before it is set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..core.errors import Refused
from . import hba
from .psql import quote_ident
from .server import Facts, Target

__all__ = ["refuse_unless_usable"]

_OLDEST = 100000  # SCRAM came with PostgreSQL 10


def refuse_unless_usable(facts: Facts, target: Target, clients: Iterable[str]) -> list[str]:
    """Warnings about the server; raises where a new password would not work.

    Args:
        facts: what there is.
        target: the role.
        clients: network addresses that log in with the password, beside our own.

    Raises:
        Refused: with the reason.
    """
    role = target.role
    if facts.version < _OLDEST:
        raise Refused(
            f"The server is PostgreSQL {facts.version // 10000}.{facts.version // 100 % 100}, which does not know "
            "SCRAM-SHA-256 passwords: 10 or later is needed",
            hint="Upgrade the database first.",
        )
    if facts.standby:
        raise Refused("The database is a read-only standby", hint="Name the primary with service.")
    if not facts.exists:
        raise Refused(f"The database has no role {role}", hint="Name the right one with role.")
    if not facts.can_login:
        raise Refused(f"The role {role} may not log in", hint=f"ALTER ROLE {quote_ident(role)} LOGIN; then run again.")
    if facts.expired:
        raise Refused(
            f"The password of the role {role} has expired (VALID UNTIL): no password would work",
            hint=f"ALTER ROLE {quote_ident(role)} VALID UNTIL 'infinity'; then run again.",
        )
    if facts.rules is None:
        return [f"The role {role} may not read pg_hba.conf, so only this host's own login shows that a new one works"]
    for address in dict.fromkeys([facts.seen_as, *clients]):
        if address:
            _refuse_rule(facts.rules, target, address)
    broken = [f"line {rule.line}: {rule.error}" for rule in facts.rules if rule.error]
    return [f"pg_hba.conf cannot be loaded again as it stands ({'; '.join(broken)})"] if broken else []


def _refuse_rule(rules: Sequence[hba.Rule], target: Target, address: str) -> None:
    try:
        rule = hba.rule_for(rules, database=target.database, role=target.role, address=address)
    except LookupError:
        return
    if rule is None:
        raise Refused(
            f"pg_hba.conf has no line that lets {target.role} from {address} into {target.database}",
            hint="Add one with scram-sha-256, reload the server, and run again.",
        )
    if rule.method not in hba.PASSWORD_METHODS:
        raise Refused(
            f"For {target.role} from {address} the server does not ask for a password of its own: {rule}",
            hint="Let that line say scram-sha-256, reload the server, and run again.",
        )
