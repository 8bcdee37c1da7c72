# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two databases change their names in one transaction, while everybody is kept out of both."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping

from ..core.errors import OpsError
from ..database.login import connect
from ..database.psql import quote_ident, quote_literal
from .scratch import connected
from .session import Way
from .siblings import comment_statement

__all__ = ["swap"]

_EVERY = 0.05


def swap(admin: Way, renames: Mapping[str, str], comments: Mapping[str, str]) -> None:
    """Rename databases, and end every session in them.

    ALTER DATABASE ... RENAME locks the database's name against new sessions, then waits for five seconds until the last
    of the old ones is gone (dbcommands.c, RenameDatabase): these are ended meanwhile. New ones wait, and find the new
    database under the name when the transaction is over.

    Args:
        admin: the way into another database.
        renames: the new name by the old one, in order; all of them in one transaction.
        comments: the comment of each under its new name; "" for none.

    Raises:
        OpsError: nothing was renamed, as far as the server could tell us.
    """
    statements = [f"ALTER DATABASE {quote_ident(old)} RENAME TO {quote_ident(new)}" for old, new in renames.items()]
    statements += [comment_statement(name, text) for name, text in comments.items()]
    session = connected(admin)
    try:
        session.run(["SET lock_timeout = '10s'", "SET statement_timeout = '60s'"])
        with _nobody_in(admin, tuple(renames)) as trouble:
            try:
                session.run(["BEGIN", *statements, "COMMIT"])
            except OpsError as exc:
                told = f"; sessions could not be ended: {trouble[-1]}" if trouble else ""
                raise OpsError(f"The names could not be swapped: {exc.msg}{told}", hint=exc.hint) from exc
    finally:
        session.close()


@contextlib.contextmanager
def _nobody_in(admin: Way, databases: tuple[str, ...]) -> Iterator[list[str]]:
    """End the databases' sessions again and again, as long as the body runs; gives what stood against it."""
    names = ", ".join(quote_literal(name) for name in databases)
    over = threading.Event()
    trouble: list[str] = []

    def work() -> None:
        try:
            session = connect(admin.endpoint, admin.password or "")
        except OpsError as exc:
            trouble.append(exc.msg)
            return
        try:
            while not over.is_set():
                try:
                    session.run(
                        [
                            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
                            f" WHERE datname IN ({names}) AND pid <> pg_catalog.pg_backend_pid()"
                        ]
                    )
                except OpsError as exc:
                    trouble.append(exc.msg)
                over.wait(_EVERY)
        finally:
            session.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield trouble
    finally:
        over.set()
        thread.join()
