# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rule of pg_hba.conf holds for a login, read from the view pg_hba_file_rules."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["PASSWORD_METHODS", "QUERY", "READABLE", "Rule", "from_rows", "rule_for"]

# With md5 a SCRAM verifier is asked for by SCRAM, too (PostgreSQL 17 manual, 20.5).
PASSWORD_METHODS = ("scram-sha-256", "md5", "password")

# Whether a client comes with TLS, or tries Kerberos encryption, is its own choice.
_UNSURE = ("hostssl", "hostnossl", "hostnogssenc")
_SEPARATOR = "\x1f"
# Whether this role may read the view: superusers by default.
READABLE = (
    "SELECT (has_table_privilege('pg_catalog.pg_hba_file_rules', 'SELECT')"
    " AND has_function_privilege('pg_catalog.pg_hba_file_rules()', 'EXECUTE'))::text"
)
QUERY = (
    "SELECT line_number::text, coalesce(type, ''), coalesce(array_to_string(database, chr(31)), ''),"
    " coalesce(array_to_string(user_name, chr(31)), ''), coalesce(address, ''), coalesce(netmask, ''),"
    " coalesce(auth_method, ''), coalesce(error, '') FROM pg_catalog.pg_hba_file_rules"
)


@dataclass(frozen=True)
class Rule:
    """One line of pg_hba.conf (PostgreSQL 17 manual, 53.9); ``error`` is why the server cannot read it."""

    line: int
    kind: str
    databases: tuple[str, ...]
    users: tuple[str, ...]
    address: str
    netmask: str
    method: str
    error: str = ""

    def __str__(self) -> str:
        return f"{self.method} (pg_hba.conf, line {self.line})"


def from_rows(rows: Iterable[Sequence[str]]) -> list[Rule]:
    """The rules in the server's order, from the rows of ``QUERY``."""
    return [
        Rule(int(line), kind, _split(databases), _split(users), address, netmask, method, error)
        for line, kind, databases, users, address, netmask, method, error in rows
    ]


def rule_for(rules: Sequence[Rule], *, database: str, role: str, address: str) -> Rule | None:
    """The rule that PostgreSQL applies to a TCP login: the first that matches.

    Returns:
        None when no rule matches: then the login is refused.

    Raises:
        LookupError: it cannot be told here, because a rule before the match names a group, a host name, a pattern, or
            the server's own networks, or holds for logins with or without encryption alone; only a login shows what
            holds then.
    """
    for rule in rules:
        # hostgssenc: neither we nor a driver without a Kerberos ticket come so
        if rule.kind not in ("host", *_UNSURE):
            continue
        verdicts = (_names(rule.databases, database, role), _names(rule.users, role, ""), _address(rule, address))
        if False in verdicts:
            continue
        if None in verdicts or rule.kind in _UNSURE:
            raise LookupError(f"line {rule.line} of pg_hba.conf cannot be told from the outside")
        return rule
    return None


def _names(listed: Sequence[str], name: str, role: str) -> bool | None:
    unsure = False
    for item in listed:
        if item in ("all", name) or (item == "sameuser" and role and name == role):
            return True
        # "+group", "/pattern", samerole and samegroup cannot be told from the outside
        unsure = unsure or item[:1] in ("+", "/", "@") or item in ("samerole", "samegroup")
    return None if unsure else False


def _address(rule: Rule, address: str) -> bool | None:
    if rule.address == "all":
        return True
    try:
        mine = ipaddress.ip_address(address)
        mask = f"/{rule.netmask}" if rule.netmask else ""
        if ":" in rule.address and rule.netmask:
            mask = f"/{bin(int(ipaddress.ip_address(rule.netmask))).count('1')}"
        network = ipaddress.ip_network(f"{rule.address}{mask}", strict=False)
    except ValueError:
        return None  # samehost, samenet, or a host name
    return mine.version == network.version and mine in network


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(_SEPARATOR)) if text else ()
