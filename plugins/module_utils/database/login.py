# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logins over TCP, told apart: accepted, refused because of the password, or not possible at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import OpsError
from .knock import ASKS, ASKS_MD5, NOT_NOW, knock

try:
    import psycopg2

    IMPORT_ERROR: ImportError | None = None
except ImportError as exc:  # reported by connect(), with the package's name
    IMPORT_ERROR = exc

__all__ = ["APPLICATION", "Connection", "Endpoint", "LoginFailed", "Row", "accepts", "connect", "takes_anything"]

Row = tuple[str, ...]
# As what our sessions call themselves.
APPLICATION = "titan.ops"

# What the server says in English before it is up or while it goes down, and what libpq says when nobody listens.
_PASSING = re.compile(
    r"could not connect|[Cc]onnection refused|timeout expired|timed out|No route to host|closed the connection|"
    r"reset by peer|starting up|shutting down|in recovery mode|not yet accepting|too many (?:clients|connections)"
)
# SQLSTATE 28P01, which libpq does not hand out for a login that fails (psycopg2: pgcode is None), in English words.
_WRONG = re.compile(r"password authentication failed")


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to log in; ``name`` is what the operator calls the server."""

    name: str
    host: str
    port: int
    database: str
    role: str


class LoginFailed(OpsError):
    """A login was not possible.

    Attributes:
        wrong_password: the server refused the password (or knows no such role: it does not tell which).
        passing: the server is not reachable (yet).
    """

    def __init__(self, msg: str, *, wrong_password: bool = False, passing: bool = False) -> None:
        super().__init__(msg)
        self.wrong_password = wrong_password
        self.passing = passing


class Connection:
    """A session of the server; each statement is a transaction of its own."""

    def __init__(self, raw: Any, name: str) -> None:
        self._raw = raw
        self._name = name

    def run(self, statements: Sequence[str]) -> list[Row]:
        """Run statements in turn; gives the rows of the last, every column as text (NULL as an empty one).

        Raises:
            OpsError: the server refused one, or is gone.
        """
        try:
            with self._raw.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        except psycopg2.Error as exc:
            # of the server's words only the first line: those after it quote the statement
            raise OpsError(f"The database {self._name} refused: {_first_line(exc)}") from exc
        return [tuple("" if value is None else str(value) for value in row) for row in rows]

    def cancel(self) -> None:
        """Have the server end the statement that another thread is waiting for."""
        with contextlib.suppress(psycopg2.Error):
            self._raw.cancel()

    def abandon(self) -> None:
        """Hang up on a server that answers nothing any more: who waits for it gets an error."""
        with contextlib.suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(self._raw.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the session."""
        self._raw.close()


def connect(endpoint: Endpoint, password: str, *, timeout: float = 5) -> Connection:
    """Log in over TCP.

    Args:
        endpoint: where and as whom.
        password: the role's.
        timeout: seconds to wait for the server's answer.

    Raises:
        LoginFailed: it was not possible; the error tells whether because of the password.
        OpsError: psycopg2 is missing.
    """
    if IMPORT_ERROR is not None:
        raise OpsError(
            f"The Python module {IMPORT_ERROR.name} is missing on this host",
            state="Nothing was changed.",
            hint="Install the package python3-psycopg2 (bootstrap.yml does).",
        )
    try:
        raw = _log_in(endpoint, password, timeout)
    except psycopg2.OperationalError as exc:
        wrong, passing = _cause(endpoint, str(exc), timeout)
        raise LoginFailed(
            f"The database {endpoint.name} ({endpoint.host}:{endpoint.port}) does not let {endpoint.role} in: "
            + _first_line(exc),
            wrong_password=wrong,
            passing=passing,
        ) from exc
    raw.autocommit = True
    return Connection(raw, endpoint.name)


def _log_in(endpoint: Endpoint, password: str, timeout: float) -> Any:
    return psycopg2.connect(
        host=endpoint.host,
        port=endpoint.port,
        dbname=endpoint.database,
        user=endpoint.role,
        password=password,
        connect_timeout=max(2, round(timeout)),
        application_name=APPLICATION,
        # nothing of the invoking user's own: no password file, no Kerberos ticket
        passfile="/dev/null",
        gssencmode="disable",
        sslmode="prefer",
    )


def _cause(endpoint: Endpoint, text: str, timeout: float) -> tuple[bool, bool]:
    """Whether a login failed for its password, and whether only for now; the words may be of any language.

    A server that asks for a password, and says the very same of one that nobody can have set, refused the password.
    """
    if _WRONG.search(text):
        return True, False
    if _PASSING.search(text):
        return False, True
    answer = knock(endpoint.host, endpoint.port, database=endpoint.database, role=endpoint.role, timeout=timeout)
    if answer not in (ASKS, ASKS_MD5):
        return False, answer is None or answer in NOT_NOW
    try:
        _log_in(endpoint, _nobodys(), timeout).close()
    except psycopg2.OperationalError as exc:
        return str(exc) == text, False
    return False, False


def accepts(endpoint: Endpoint, password: str, *, timeout: float = 5) -> bool:
    """Whether the server accepts the password.

    Raises:
        LoginFailed: that cannot be told, for the login fails for another reason.
    """
    try:
        connect(endpoint, password, timeout=timeout).close()
    except LoginFailed as exc:
        if exc.wrong_password:
            return False
        raise
    return True


def takes_anything(endpoint: Endpoint, *, timeout: float = 5) -> bool:
    """Whether a password that nobody can have set is accepted: then the server trusts us, and a login proves nothing.

    Raises:
        LoginFailed: the login fails for another reason.
    """
    return accepts(endpoint, _nobodys(), timeout=timeout)


def _nobodys() -> str:
    """A password that nobody can have set."""
    return secrets.token_urlsafe(24)


def _first_line(exc: Exception) -> str:
    """The server's own words, without libpq's repetition of host and port."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    text = lines[0] if lines else type(exc).__name__
    return re.sub(r'^connection to server at "[^"]*"(?: \([^)]*\))?, port \d+ failed:\s*', "", text)
