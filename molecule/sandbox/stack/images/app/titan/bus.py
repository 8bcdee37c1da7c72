# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The message bus: connection and JetStream streams."""

from __future__ import annotations

import asyncio
import logging
import os

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from .service import Fatal

log = logging.getLogger("titan")

COMMANDS = "TITAN_CMD"
FILL_SUBJECT = "titan.execution.fill.v1"
REJECT_SUBJECT = "titan.evt.execution.reject.v1"
# A redelivered message must not be counted twice: longer than any outage the sandbox practises.
_DUPLICATE_WINDOW = 600.0
_CONNECT_SECONDS = 10.0
_WEEK = 7 * 24 * 3600.0


def _stream(name: str, subjects: list[str], retention: RetentionPolicy = RetentionPolicy.LIMITS) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=subjects,
        retention=retention,
        storage=StorageType.FILE,
        max_age=_WEEK,
        duplicate_window=_DUPLICATE_WINDOW,
    )


STREAMS = (
    _stream(COMMANDS, ["titan.cmd.>"], RetentionPolicy.WORK_QUEUE),
    _stream("TITAN_EVT", ["titan.evt.>"]),
    _stream("TITAN_DATA", ["titan.data.>"]),
    _stream("TITAN_SIGNAL", ["titan.signal.>"]),
    _stream("TITAN_DLQ", ["titan.dlq.>"]),
    _stream("TITAN_EXECUTION", ["titan.execution.>"]),
)


async def connect(name: str, stop: asyncio.Event) -> Client:
    """Connect as the environment says; from then on reconnect for ever.

    When the client gives up all the same (refused credentials), `stop` is set.
    Raises Fatal when the first connection is not there in time: the container's restart policy tries again.
    """
    last_error = "no answer"

    async def disconnected() -> None:
        if not stop.is_set():
            log.warning("NATS connection lost, reconnecting")

    async def reconnected() -> None:
        log.info("NATS connection is back")

    async def closed() -> None:
        stop.set()

    async def failed(error: Exception) -> None:
        nonlocal last_error
        last_error = str(error) or type(error).__name__
        log.warning("NATS: %s", last_error)

    user = os.environ.get("NATS_USER", "")
    client = Client()
    connecting = client.connect(
        os.environ.get("NATS_URL", "nats://titan-nats:4222"),
        user=user,
        password=os.environ.get(f"NATS_{user.upper()}_PASSWORD", ""),
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        disconnected_cb=disconnected,
        reconnected_cb=reconnected,
        closed_cb=closed,
        error_cb=failed,
    )
    try:
        await asyncio.wait_for(connecting, _CONNECT_SECONDS)
    except (NatsError, OSError, asyncio.TimeoutError):
        raise Fatal(f"cannot connect to NATS as user {user!r}: {last_error}") from None
    log.info("connected to NATS as %s", user)
    return client


async def close(client: Client) -> None:
    """Send what is buffered and close; Fatal when the connection had already been given up."""
    if client.is_closed:
        raise Fatal("the NATS connection was closed for good")
    try:
        await client.flush(timeout=2)
    except NatsError:
        log.warning("NATS did not take the last messages in time")
    await client.close()


async def ensure_streams(js: JetStreamContext) -> None:
    """Create the streams that do not exist yet."""
    for config in STREAMS:
        try:
            await js.stream_info(config.name or "")
        except NotFoundError:
            await js.add_stream(config)
            log.info("created stream %s", config.name)
