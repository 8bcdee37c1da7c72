# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real PostgreSQL server for a test session: on loopback, in a directory of its own, never as root."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.titan.ops.plugins.module_utils.core.runner import Completed, Runner

# What decides about a login is the name of the database here: a machine has but one loopback.
HBA = """\
local all all trust
host trusting all all trust
host rejecting all all reject
host asking all all ident
host md5 all all md5
host all all all scram-sha-256
"""


def directory() -> str | None:
    """Where this machine has the server's programs; None where it has none."""
    found = shutil.which("postgres")
    places = [os.path.dirname(os.path.realpath(found))] if found else []
    places += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    return next((place for place in places if os.path.exists(f"{place}/initdb")), None)


class Postgres:
    """The running server; ``sql`` is the superuser's, on the socket."""

    def __init__(self, binaries: str, home: Path, port: int, user: str | None, language: str = "") -> None:
        self.binaries = binaries
        self.home = home
        self.port = port
        self._user = user
        self._language = language

    def call(self, *argv: str, data: str | None = None) -> str:
        """Run one of the server's programs as its user."""
        done = subprocess.run(
            [f"{self.binaries}/{argv[0]}", *argv[1:]],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.home,
            user=self._user,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8", "LANGUAGE": self._language},
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Run statements as the superuser; what the last printed."""
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        where = [f"--host={self.home}", f"--port={self.port}", "--username=postgres", f"--dbname={database}"]
        return self.call("psql", *options, *where, data=";\n".join(statements) + ";\n").strip()

    def log(self) -> str:
        """All that the server has logged."""
        return (self.home / "log").read_text(encoding="utf-8")

    def runner(self) -> Runner:
        """Stands for ``docker exec``: psql runs here, on this server's socket."""
        return _InPlaceOfDocker(self)


class _InPlaceOfDocker(Runner):
    def __init__(self, server: Postgres) -> None:
        super().__init__()
        self._server = server
        self.argv: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **kwargs: Any) -> Completed:
        assert list(argv[:3]) == ["docker", "exec", "--interactive"]
        self.argv.append(tuple(argv))
        psql = list(argv[argv.index("psql") + 1 :])
        where = [f"--host={self._server.home}", f"--port={self._server.port}"]
        return super().run([f"{self._server.binaries}/psql", *where, *psql], **kwargs)


@contextlib.contextmanager
def running(*, language: str = "") -> Iterator[Postgres]:
    """Make a server that speaks a language (where its translations are there), and remove it without a trace."""
    binaries = directory()
    assert binaries is not None
    user = None
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
    home = Path(tempfile.mkdtemp(prefix="titan-pg-"))
    if user:
        shutil.chown(home, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Postgres(binaries, home, port, user, language)
    data = f"--pgdata={home}/data"
    try:
        options = ("--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync")
        server.call("initdb", data, *options)
        (home / "data/pg_hba.conf").write_text(HBA, encoding="utf-8")
        settings = (
            f"port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{home}'\nfsync=off\n"
            "max_prepared_transactions=2\nlog_statement=all\nlog_min_duration_statement=0\nlog_duration=on\nlog_connections=on\n"
        )
        with open(home / "data/postgresql.conf", "a", encoding="utf-8") as stream:
            stream.write(settings)
        server.call("pg_ctl", data, "--wait", "--silent", f"--log={home}/log", "start")
        try:
            yield server
        finally:
            server.call("pg_ctl", data, "--wait", "--silent", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(home)
