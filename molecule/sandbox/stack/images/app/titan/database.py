# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brain's database: a pool for its work, and a fresh login for its health check."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, TypeVar

import psycopg2
from psycopg2.pool import ThreadedConnectionPool

from .service import Fatal, wait_for

log = logging.getLogger("titan")

Result = TypeVar("Result")
FIRST_VERSION = 1
_MIGRATION = Path(__file__).resolve().parent.parent / "migrations" / "001_initial.sql"
_CONNECT_ATTEMPTS = 5
# One login serves all health requests of this long, so that a fast prober does not become a load.
_CHECK_AGE_SECONDS = 0.5


def _settings() -> dict[str, Any]:
    return {
        "host": os.environ.get("TITAN_DB_HOST", "titan-postgres"),
        "port": int(os.environ.get("TITAN_DB_PORT", "5432")),
        "dbname": os.environ.get("TITAN_DB_NAME", "titan_brain"),
        "user": os.environ.get("TITAN_DB_USER", "titan"),
        "password": os.environ.get("TITAN_DB_PASSWORD", ""),
        "connect_timeout": 2,
        "application_name": "titan-brain",
    }


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class Database:
    """All calls are coroutines; psycopg2 itself runs in threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(3, "database")
        self._pool: ThreadedConnectionPool | None = None
        self._checking = asyncio.Lock()
        self._checked: tuple[float, str | None] = (float("-inf"), "not checked yet")

    async def _call(self, function: Callable[..., Result], *args: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def open(self, stop: asyncio.Event) -> None:
        """Open the pool; Fatal after some tries, so that a wrong password becomes a crash loop."""
        for attempt in range(1, _CONNECT_ATTEMPTS + 1):
            try:
                self._pool = await self._call(lambda: ThreadedConnectionPool(1, 4, **_settings()))
                return
            except psycopg2.OperationalError as error:
                log.error("database connection failed (%d/%d): %s", attempt, _CONNECT_ATTEMPTS, _reason(error))
                if await wait_for(stop, 1.0):
                    raise Fatal("told to stop before the database could be reached") from None
        raise Fatal("cannot log in to the database")

    async def close(self) -> None:
        if self._pool:
            await self._call(self._pool.closeall)
        self._threads.shutdown()

    async def fault(self) -> str | None:
        """Why a new login over the network fails, or None when it works."""
        async with self._checking:
            when, fault = self._checked
            if time.monotonic() - when > _CHECK_AGE_SECONDS:
                fault = await self._call(self._login)
                if fault and not self._checked[1]:
                    log.error("database check failed: %s", fault)
                self._checked = (time.monotonic(), fault)
            return fault

    @staticmethod
    def _login() -> str | None:
        try:
            connection = psycopg2.connect(**_settings())
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
            finally:
                connection.close()
        except psycopg2.Error as error:
            return _reason(error)
        return None

    async def _in_transaction(self, work: Callable[[Any], Result]) -> Result:
        pool = self._pool
        assert pool is not None, "open() comes first"

        def call() -> Result:
            connection = pool.getconn()
            broken = True
            try:
                with connection, connection.cursor() as cursor:
                    result = work(cursor)
                broken = False
                return result
            finally:
                pool.putconn(connection, close=broken)

        return await self._call(call)

    async def migrate(self) -> None:
        """Bring the schema to this version; like the original, **from nothing** when the first version is missing."""

        def work(cursor: Any) -> None:
            cursor.execute("SELECT pg_advisory_xact_lock(3100)")
            cursor.execute("SELECT to_regclass('public.migrations') IS NOT NULL")
            present = cursor.fetchone()[0]
            if present:
                cursor.execute("SELECT 1 FROM migrations WHERE version = %s", (FIRST_VERSION,))
                present = cursor.fetchone()
            if not present:
                log.warning("migration %d is not applied: dropping and creating all tables", FIRST_VERSION)
                cursor.execute(_MIGRATION.read_text(encoding="utf-8"))

        try:
            await self._in_transaction(work)
        except psycopg2.Error as error:
            raise Fatal(f"database migration failed: {_reason(error)}") from None

    async def allocation(self) -> dict[str, str]:
        """The newest allocation per phase, from which brain starts."""

        def work(cursor: Any) -> dict[str, str]:
            cursor.execute("SELECT DISTINCT ON (phase) phase, weight FROM allocation_history ORDER BY phase, id DESC")
            return {str(phase): str(weight) for phase, weight in cursor.fetchall()}

        return await self._in_transaction(work)

    async def record_decision(self, symbol: str, action: str, detail: Mapping[str, Any]) -> str | None:
        """Insert one row of brain_decisions; why it failed, or None."""

        def work(cursor: Any) -> None:
            cursor.execute(
                "INSERT INTO brain_decisions (symbol, action, detail) VALUES (%s, %s, %s)",
                (symbol, action, json.dumps(detail)),
            )

        try:
            await self._in_transaction(work)
        except psycopg2.Error as error:
            return _reason(error)
        return None
