# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""titan-opsd: an operations daemon; it holds the HMAC secret under a name of its own."""

from __future__ import annotations

import asyncio
import json

from . import __version__
from .http import NOT_FOUND, UNAUTHORIZED, Answer, Request, Server
from .service import Metrics, log, required_secret, run
from .signing import http_signature_is_valid

PORT = 3200


async def main(stop: asyncio.Event) -> None:
    secret = required_secret("OPS_SECRET")
    metrics = Metrics(titan_opsd_ops_total=0, titan_opsd_refused_total=0)

    async def handle(request: Request) -> Answer:
        route = (request.method, request.path)
        if route == ("GET", "/health"):
            return Answer(200, {"status": "ok", "version": __version__})
        if route == ("GET", "/metrics"):
            return Answer(200, metrics.text())
        if not http_signature_is_valid(secret, request.headers, request.body):
            metrics["titan_opsd_refused_total"] += 1
            return UNAUTHORIZED
        if route != ("POST", "/ops"):
            return NOT_FOUND
        try:
            operation = json.loads(request.body or b"{}")["op"]
        except (ValueError, KeyError, TypeError):
            operation = None
        if operation != "ping":
            return Answer(400, {"error": "unknown operation", "operations": ["ping"]})
        metrics["titan_opsd_ops_total"] += 1
        log.info("operation ping")
        return Answer(200, {"op": "ping", "result": "pong"})

    server = Server(PORT, handle)
    await server.open()
    await stop.wait()
    await server.close()


if __name__ == "__main__":
    run("titan-opsd", main)
