# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A role's password on the stack's PostgreSQL server: looked at, set, and proved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Callable, Protocol, TypeVar

from ..compose.container import Container
from ..compose.stack import Stack
from ..core.clock import wait_for
from ..core.errors import OpsError
from ..core.runner import Runner
from . import hba
from .knock import ASKS_MD5, knock
from .leftovers import end_own
from .login import APPLICATION, Connection, Endpoint, LoginFailed, Row, accepts, connect, takes_anything
from .psql import SocketAccess, quote_ident, quote_literal
from .scram import verifier

__all__ = ["Access", "Facts", "Server", "Session", "Target"]

T = TypeVar("T")

_ENDED = ("created", "exited", "dead")
_VIEW = 100000  # pg_hba_file_rules came with PostgreSQL 10
# Statements of ours are not written into the server's log, and end in time. What a role may not set, or this server
# does not have, is passed over.
_SETTINGS = {
    "application_name": APPLICATION,
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_duration": "off",
    "log_min_error_statement": "panic",
    "pg_stat_statements.track_utility": "off",
    "pgaudit.log": "none",
    "standard_conforming_strings": "on",
    "default_transaction_read_only": "off",
    "synchronous_commit": "local",
    "lock_timeout": "10s",
    "statement_timeout": "30s",
}
_QUIET = (
    "SELECT set_config(s.name, v.value, false) FROM (VALUES {}) v(name, value) JOIN pg_catalog.pg_settings s"
    " ON s.name = v.name WHERE s.context = 'user' OR s.context = 'superuser'"
    " AND current_setting('is_superuser') = 'on'"
).format(", ".join(f"('{name}', '{value}')" for name, value in _SETTINGS.items()))


class Access(Protocol):
    """A way to run statements."""

    def run(self, statements: Sequence[str]) -> list[Row]:
        """The rows of the last of the statements."""

    def close(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Target:
    """The role, and where it is.

    Attributes:
        service: the database's Compose service or container name.
        port: the server's port in its container.
        database: the database that the role logs in to.
        role: the role whose password it is.
        host: where the server is reached; the container's own address, else its published port, without it.
        socket: whether the container's socket may be used where no password is known.
    """

    service: str = "titan-postgres"
    port: int = 5432
    database: str = "titan_brain"
    role: str = "titan"
    host: str | None = None
    socket: bool = False


@dataclass(frozen=True)
class Facts:
    """What decides whether a new password would work.

    Attributes:
        version: server_version_num, e.g. 170002.
        standby: whether it is a read-only replica.
        exists: whether there is such a role.
        can_login: whether it has LOGIN.
        expired: whether its VALID UNTIL has passed.
        seen_as: the address that the server sees us come from ("" over the socket).
        rules: pg_hba.conf; None where we may not read it.
        verifier: what the server keeps of the role's password; None where we may not read it, or there is none.
        md5: whether that is of the old kind, as the server's question tells; asked only where we may not read it.
    """

    version: int
    standby: bool
    exists: bool
    can_login: bool
    expired: bool
    seen_as: str
    rules: tuple[hba.Rule, ...] | None
    verifier: str | None = field(default=None, repr=False)
    md5: bool = False


@dataclass(frozen=True)
class Session:
    """Somebody else's session of the role; ``seconds`` since its transaction began, None outside of one."""

    pid: int
    application: str
    address: str
    state: str
    seconds: float | None

    def __str__(self) -> str:
        since = f", in a transaction for {self.seconds:.0f} s" if self.seconds is not None else ""
        return f"process {self.pid} ({self.application or 'unnamed'} from {self.address}, {self.state}{since})"


class Server:
    """The server of a stack.

    Args:
        stack: the stack.
        target: the role, and where it is.
        runner: runs psql inside the container where the socket is used.
    """

    def __init__(self, stack: Stack, target: Target, *, runner: Runner | None = None) -> None:
        self._stack = stack
        self._target = target
        self._resolved: str | None = None
        self._runner = runner or Runner()

    @property
    def name(self) -> str:
        """The database's Compose service."""
        if self._resolved is None:  # asked for late: a server may be needed while the Compose files cannot be read
            self._resolved = self._stack.resolve(self._target.service)
        return self._resolved

    def running(self) -> bool:
        """Whether its container runs."""
        return self._container() is not None

    def wake(self, *, timeout: float) -> bool:
        """Let the server's container run, whatever keeps it from that, and wait until it is well.

        Returns:
            Whether it did not run.

        Raises:
            OpsError: there is none, or it does not come up.
        """
        found = self._stack.containers_of([self.name])[self.name]
        if not found:
            raise OpsError(f"The database {self.name} has no container (docker compose up -d {self.name})")
        for item in found:
            if item.status == "paused":
                self._stack.engine.unpause(item.id)
        self._stack.engine.start_together([item.id for item in found if item.status in _ENDED])
        awake = all(item.status == "running" for item in found)
        if not awake:  # one that Docker restarts comes up by itself
            self._stack.wait_well([self.name], timeout=timeout)
        return not awake

    def accepts(self, password: str, *, timeout: float = 0) -> bool:
        """Whether a login over TCP with this password works; a server that is only coming up gets ``timeout`` seconds.

        Raises:
            LoginFailed: that cannot be told.
        """
        return self._patiently(lambda: accepts(self.endpoint(), password), timeout)

    def takes_anything(self) -> bool:
        """Whether it takes whatever password (trust)."""
        return takes_anything(self.endpoint())

    def look(self, password: str | None) -> Facts:
        """What there is, seen with this password, or through the socket with None; changes nothing."""
        access = self._open(password)
        role = quote_literal(self._target.role)
        try:
            [row] = access.run(
                [
                    _QUIET,
                    "SELECT current_setting('server_version_num'), pg_is_in_recovery()::text,"
                    " (r.oid IS NOT NULL)::text, coalesce(r.rolcanlogin, false)::text,"
                    " coalesce(r.rolvaliduntil <= now(), false)::text, coalesce(host(inet_client_addr()), '')"
                    f" FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_roles r ON r.rolname = {role}",
                ]
            )
            version = int(row[0])
            rules = None
            if version >= _VIEW and access.run([_QUIET, hba.READABLE]) == [("true",)]:
                rules = tuple(hba.from_rows(access.run([_QUIET, hba.QUERY])))
            stored = self._stored(access)
        finally:
            access.close()
        standby, exists, can_login, expired = (text == "true" for text in row[1:5])
        md5 = stored is None and password is not None and self._asks_md5()
        return Facts(version, standby, exists, can_login, expired, row[5], rules, stored, md5)

    def _stored(self, access: Access) -> str | None:
        role = quote_literal(self._target.role)
        if access.run([_QUIET, "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')::text"]) != [("true",)]:
            return None
        rows = access.run([_QUIET, f"SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = {role}"])
        stored = rows[0][0] if rows else ""
        if stored:
            self._stack.redact.add(stored)
        return stored or None

    def _asks_md5(self) -> bool:
        at = self.endpoint()
        return knock(at.host, at.port, database=at.database, role=at.role, timeout=5) == ASKS_MD5

    def put(self, value: str, other: str, *, timeout: float, stored: str | None = None) -> bool:
        """Make the role's password ``value``, whichever of the two it is now; tells whether it had to be changed.

        Args:
            value: the password.
            other: the other one.
            timeout: seconds for a server that is only coming up.
            stored: what the server kept of ``value`` before: it gets exactly that back. A holder whose driver knows no
                SCRAM lives on an MD5 verifier.

        Raises:
            OpsError: the server cannot be reached in time, accepts neither, or refuses the change.
        """
        # First nothing that a killed run has sent may be able to change the answer any more.
        self._end_own(self._valid(value, other, timeout))
        known = self._valid(value, other, timeout)
        if known == value:
            return False
        access = self._open(known)
        try:
            for secret in filter(None, (stored, verifier(value))):
                self._stack.redact.add(secret)
                access.run([_QUIET, f"ALTER ROLE {quote_ident(self._target.role)} PASSWORD {quote_literal(secret)}"])
                if self.accepts(value, timeout=timeout):
                    return True
        finally:
            access.close()
        raise OpsError(f"The database does not accept the password of {self._target.role} that it was just given")

    def sessions(
        self, password: str | None, addresses: Iterable[str], applications: Iterable[str], *, end: bool = False
    ) -> list[Session]:
        """Sessions of the role that come from these addresses or bear these names; with ``end``, those it has ended."""
        hosts = ", ".join(quote_literal(item) for item in addresses) or "NULL"
        names = ", ".join(quote_literal(item) for item in applications) or "NULL"
        access = self._open(password)
        try:
            rows = access.run(
                [
                    _QUIET,
                    "SELECT pid::text, coalesce(application_name, ''), coalesce(host(client_addr), 'the socket'),"
                    " coalesce(state, ''), coalesce(extract(epoch FROM clock_timestamp() - xact_start)::text, '')"
                    f" FROM pg_catalog.pg_stat_activity WHERE usename = {quote_literal(self._target.role)}"
                    f" AND (host(client_addr) IN ({hosts}) OR application_name IN ({names}))"
                    " AND pid <> pg_backend_pid() ORDER BY pid",
                ]
            )
            if end and rows:  # by number: beside the conditions above the server might end a session before it asks
                access.run([_QUIET, f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{_list(rows)}]) pid"])
        finally:
            access.close()
        return [
            Session(int(pid), name, address, state, float(seconds) if seconds else None)
            for pid, name, address, state, seconds in rows
        ]

    def _valid(self, value: str, other: str, timeout: float) -> str | None:
        """Which of the two is accepted; None where neither is and the socket may be used."""
        for password in (value, other):
            if self.accepts(password, timeout=timeout):
                return password
        if self._target.socket:
            return None
        raise OpsError(
            f"The database accepts neither the old nor the new password of {self._target.role}",
            hint="Somebody has set a third one. Run rotate_db_password.yml with -e recover=true: it sets the "
            "password through the container's socket.",
        )

    def _end_own(self, password: str | None) -> None:
        """Let nothing of a killed run of ours change the role any more."""
        access = self._open(password)
        try:
            end_own(lambda statement: access.run([_QUIET, statement]), self._target.role, self._stack.clock)
        finally:
            access.close()

    def endpoint(self) -> Endpoint:
        """Where the server listens now.

        Raises:
            LoginFailed: its container does not run or cannot be reached from the host.
        """
        target = self._target
        host, port = (target.host, target.port) if target.host else self._reachable()
        return Endpoint(self.name, host, port, target.database, target.role)

    def _reachable(self) -> tuple[str, int]:
        """The container's own address, else where the host publishes its port."""
        container, port = self._container(), self._target.port
        if container is None:
            raise LoginFailed(f"The database {self.name} does not run", passing=True)
        if container.addresses:
            return container.addresses[0], port
        for item in container.ports:
            if item.container_port == port and item.host_port:
                return (item.host_ip if item.host_ip not in (None, "0.0.0.0", "::") else "127.0.0.1"), item.host_port
        if container.address:  # host networking
            return container.address, port
        raise LoginFailed(f"The database {self.name} has neither a network address nor a published port {port}")

    def _container(self) -> Container | None:
        found = self._stack.containers_of([self.name])[self.name]
        return next((item for item in found if item.status == "running"), None)

    def _ended(self) -> bool:
        """Whether its container does not run, and will not before somebody lets it."""
        found = self._stack.containers_of([self.name])[self.name]
        return bool(found) and all(item.status in (*_ENDED, "paused") for item in found)

    def _open(self, password: str | None) -> Access:
        if password is not None:
            session: Connection = connect(self.endpoint(), password)
            return session
        return self._socket()

    def _socket(self) -> SocketAccess:
        """The first way through the socket that works: as the image's superuser, as postgres, as the role itself."""
        container = self._container()
        if container is None:
            raise OpsError(f"The database {self.name} does not run")
        superuser = container.environment.get("POSTGRES_USER") or "postgres"
        failures = []
        for role in dict.fromkeys((superuser, "postgres", self._target.role)):
            for user in ("", "postgres"):
                access = SocketAccess(
                    self._runner,
                    docker_host=self._stack.options.docker_host,
                    container=container.id,
                    database=self._target.database,
                    role=role,
                    user=user,
                )
                try:
                    access.run(["SELECT 1"])
                    return access
                except OpsError as exc:
                    failures.append(exc.msg.replace(container.id, container.name))
        raise OpsError("The container's socket lets nobody in who could help: " + "; ".join(dict.fromkeys(failures)))

    def _patiently(self, ask: Callable[[], T], timeout: float) -> T:
        """Ask again while the server is only coming up; where its container has ended it is not."""
        last: list[LoginFailed] = []

        def once() -> tuple[T] | None:
            try:
                return (ask(),)
            except LoginFailed as exc:
                if not exc.passing or self._ended():
                    raise
                last.append(exc)
                return None

        answer = wait_for(once, timeout=timeout, clock=self._stack.clock)
        if answer is None:
            raise last[-1]
        return answer[0]


def _list(rows: Iterable[Row]) -> str:
    return ", ".join(str(int(row[0])) for row in rows)
