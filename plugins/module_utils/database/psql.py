# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way in that needs no password: psql on the server's socket, inside its container."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..core.errors import CommandFailed, OpsError
from ..core.runner import Runner
from .login import APPLICATION, Row

__all__ = ["SocketAccess", "quote_ident", "quote_literal"]

_FIELD, _RECORD = "\x1f", "\x1e"


class SocketAccess:
    """Statements through ``docker exec ... psql``, on standard input: arguments can be read by every process.

    Args:
        runner: runs the command.
        docker_host: address of the engine.
        container: the database's container.
        database: where to connect.
        role: as whom; the socket must trust the container's user.
        user: the container's user that runs psql; "" for the image's own.
    """

    def __init__(
        self, runner: Runner, *, docker_host: str, container: str, database: str, role: str, user: str = ""
    ) -> None:
        self._runner = runner
        self._env = {"DOCKER_HOST": docker_host}
        self._name = container
        as_user = ["--user", user] if user else []
        options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--set", "ON_ERROR_STOP=1"]
        separators = ["--field-separator", _FIELD, "--record-separator", _RECORD]
        named = ["--env", f"PGAPPNAME={APPLICATION}"]
        self._argv = ["docker", "exec", "--interactive", *named, *as_user, container, "psql", *options, *separators]
        self._argv += ["--username", role, "--dbname", database]

    def run(self, statements: Sequence[str]) -> list[Row]:
        """Run statements in turn in one session; gives the rows of the last, every column as text.

        Raises:
            OpsError: psql could not, or the server refused one.
        """
        silent = "".join(f"{statement};\n" for statement in statements[:-1])
        script = f"\\o /dev/null\n{silent}\\o\n{statements[-1]};\n"
        try:
            done = self._runner.run(self._argv, data=script.encode(), env=self._env, timeout=60, check=False)
        except CommandFailed as exc:
            raise OpsError(f"psql on the socket of {self._name} could not be run: {exc.msg}") from exc
        if done.rc != 0:
            # only the first line: those after it quote the statement
            said = (done.err.splitlines() or ["no output"])[0].strip()
            said = re.sub(r"^psql:(?:<stdin>:\d+:)?\s*(?:error:)?\s*", "", said)
            raise OpsError(f"psql on the socket of {self._name} failed: {said}")
        text = done.out.rstrip("\n")
        return [tuple(record.split(_FIELD)) for record in text.split(_RECORD)] if text else []

    def close(self) -> None:
        """Nothing stays open: every run is a session of its own."""


def quote_ident(name: str) -> str:
    """A name as SQL writes it whatever its characters are (PostgreSQL 17 manual, 4.1.1)."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """A text as SQL writes it; needs standard_conforming_strings, which every session here sets."""
    return "'" + text.replace("'", "''") + "'"
