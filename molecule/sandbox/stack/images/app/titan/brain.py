# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""titan-brain: decides, signs its intents and publishes them for titan-execution."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from . import __version__, bus
from .database import Database
from .http import NOT_FOUND, UNAUTHORIZED, Answer, Request, Server
from .service import Fatal, Metrics, attend, log, number, required_secret, resident_bytes, run, wait_for
from .signing import http_signature_is_valid, new_nonce, sign_intent

PORT = 3100
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "AVAXUSDT")
KEY_ID = "titan-brain"
# How long a stop waits for a bus that does not answer, beyond STOP_SECONDS, before intents are given up.
_GIVE_UP_SECONDS = 20.0


class Brain:
    """Decisions queue up for STOP_SECONDS (risk checks, in the original) and are then published, stop or no stop."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.rate = number("INTENT_RATE", 20)
        self.stop_seconds = number("STOP_SECONDS", 1.0)
        self.memory_limit = number("MEMORY_DEGRADED_MB", 512) * 1024 * 1024
        self.started = time.time()
        self.metrics = Metrics(
            titan_brain_intents_decided_total=0,
            titan_brain_intents_published_total=0,
            titan_brain_publish_retries_total=0,
            titan_brain_db_write_errors_total=0,
        )
        self.database = Database()
        self.client: Client | None = None
        # Bounded: while the bus is away brain decides nothing new instead of hoarding stale intents.
        self.decided: asyncio.Queue[tuple[float, dict[str, Any]] | None] = asyncio.Queue(
            int(self.rate * self.stop_seconds) + 100
        )
        self.write_fault: str | None = None

    # --- work -----------------------------------------------------------------------------------------------------

    async def decide(self, stop: asyncio.Event) -> None:
        """Decide at a steady rate until told to stop."""
        due = time.monotonic()
        while self.rate > 0 and not await wait_for(stop, due - time.monotonic()):
            due = max(due + 1 / self.rate, time.monotonic() - 1)
            payload = {
                "symbol": random.choice(SYMBOLS),
                "side": random.choice(("BUY", "SELL")),
                "size": f"{random.randint(1, 500) / 1000:.3f}",
                "phase": random.randint(1, 3),
            }
            await self.decided.put((time.monotonic() + self.stop_seconds, payload))
            self.metrics["titan_brain_intents_decided_total"] += 1
        await stop.wait()
        await self.decided.put(None)

    async def publish(self, js: JetStreamContext, stop: asyncio.Event) -> None:
        """Sign and publish every decided intent when it is due; retry until JetStream has stored it."""
        while (item := await self.decided.get()) is not None:
            due, payload = item
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            nonce = new_nonce()
            while True:
                envelope = {
                    "type": "titan.cmd.execution.place.v1",
                    "producer": "titan-brain",
                    **sign_intent(self.secret, payload, nonce=nonce, key_id=KEY_ID),
                    "payload": payload,
                }
                try:
                    # The message id makes a retry after a lost acknowledgement count once.
                    await js.publish(
                        f"titan.cmd.execution.place.v1.{payload['symbol']}",
                        json.dumps(envelope).encode(),
                        timeout=2,
                        headers={"Nats-Msg-Id": nonce},
                    )
                    break
                except NatsError as error:
                    self.metrics["titan_brain_publish_retries_total"] += 1
                    log.warning("intent not stored by JetStream, trying again: %s", error or type(error).__name__)
                    await wait_for(stop, 0.5)
                    if stop.is_set():
                        await asyncio.sleep(0.2)
            self.metrics["titan_brain_intents_published_total"] += 1

    async def record(self, stop: asyncio.Event) -> None:
        """Write a decision to the database every second."""
        while not await wait_for(stop, 1.0):
            published = self.metrics["titan_brain_intents_published_total"]
            fault = await self.database.record_decision(random.choice(SYMBOLS), "HOLD", {"published": int(published)})
            if fault:
                self.metrics["titan_brain_db_write_errors_total"] += 1
                if not self.write_fault:
                    log.error("cannot write to the database: %s", fault)
            elif self.write_fault:
                log.info("the database takes writes again")
            self.write_fault = fault

    # --- HTTP -----------------------------------------------------------------------------------------------------

    async def components(self) -> dict[str, Any]:
        fault = await self.database.fault()
        connected = self.client is not None and self.client.is_connected
        memory = resident_bytes()
        return {
            "database": {"status": "down" if fault else "degraded" if self.write_fault else "up", "error": fault},
            "nats": {"status": "up" if connected else "down"},
            "memory": {"status": "degraded" if memory > self.memory_limit else "up", "resident_bytes": memory},
        }

    async def handle(self, request: Request) -> Answer:
        route = (request.method, request.path)
        if route == ("GET", "/metrics"):
            return Answer(200, self.metrics.text())
        if route in (("GET", "/health"), ("GET", "/status")):
            components = await self.components()
            states = {component["status"] for component in components.values()}
            status = "unhealthy" if "down" in states else "degraded" if "degraded" in states else "healthy"
            if request.path == "/health":
                return Answer(503 if status == "unhealthy" else 200, {"status": status})
            return Answer(
                200,
                {
                    "status": status,
                    "version": __version__,
                    "uptime_seconds": round(time.time() - self.started, 3),
                    "components": components,
                    "ai": {"provider": os.environ.get("AI_PROVIDER") or "none"},
                },
            )
        if not http_signature_is_valid(self.secret, request.headers, request.body):
            return UNAUTHORIZED
        if route == ("GET", "/services"):
            components = await self.components()
            return Answer(200, {"services": [{"name": name, **state} for name, state in components.items()]})
        return NOT_FOUND


async def main(stop: asyncio.Event) -> None:
    warm = time.monotonic() + number("STARTUP_SECONDS", 1.5)
    brain = Brain(required_secret("HMAC_SECRET"))
    log.info("titan-brain %s starting", __version__)
    await brain.database.open(stop)
    await brain.database.migrate()
    log.info("allocation: %s", await brain.database.allocation())
    brain.client = await bus.connect("titan-brain", stop)
    js = brain.client.jetstream()
    try:
        await bus.ensure_streams(js)
    except NatsError as error:
        raise Fatal(f"cannot create the streams: {error}") from None
    # The original loads its models here; the stand-in only takes as long.
    if await wait_for(stop, warm - time.monotonic()):
        return
    server = Server(PORT, brain.handle)
    await server.open()
    publishing = asyncio.create_task(brain.publish(js, stop), name="publishing")
    working = [
        asyncio.create_task(brain.decide(stop), name="deciding"),
        asyncio.create_task(brain.record(stop), name="recording"),
    ]
    log.info("titan-brain is ready, %g intents per second", brain.rate)
    await attend(stop, [publishing, *working])

    log.info("stopping: finishing %d decided intents", brain.decided.qsize())
    await server.close()
    await asyncio.wait([publishing, *working], timeout=brain.stop_seconds + _GIVE_UP_SECONDS)
    if not publishing.done():
        publishing.cancel()
        log.error("gave up %d decided intents: the bus does not take them", brain.decided.qsize())
    await brain.database.close()
    await bus.close(brain.client)


if __name__ == "__main__":
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # its errors reach our log through a callback
    run("titan-brain", main)
