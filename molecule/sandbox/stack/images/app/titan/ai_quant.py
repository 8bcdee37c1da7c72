# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""titan-ai-quant: asks a language model; here only whether the configured one answers."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from . import __version__
from .http import NOT_FOUND, Answer, Request, Server
from .service import run

PORT = 3300
LOCAL = "kimi-local"


def ask(endpoint: str, key: str) -> dict[str, Any]:
    """One completion of one token; raises OSError or ValueError when there is none."""
    question = {"model": "kimi-k2.5", "max_tokens": 1, "messages": [{"role": "user", "content": "ping"}]}
    request = urllib.request.Request(
        f"{endpoint.rstrip('/')}/chat/completions",
        json.dumps(question).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    started = time.monotonic()
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    try:
        return {
            "model": str(answer["model"]),
            "tokens": int(answer["usage"]["completion_tokens"]),
            "latency_ms": round((time.monotonic() - started) * 1000, 1),
        }
    except (KeyError, TypeError):
        raise ValueError("the answer is not a chat completion") from None


async def probe() -> Answer:
    provider = os.environ.get("AI_PROVIDER") or "none"
    endpoint = os.environ.get("KIMI_LOCAL_ENDPOINT", "")
    facts: dict[str, Any] = {"provider": provider, "endpoint": endpoint}
    if provider != LOCAL:
        return Answer(503, {**facts, "ok": False, "error": f"provider {provider!r} has no endpoint to ask"})
    try:
        return Answer(
            200, {**facts, "ok": True, **await asyncio.to_thread(ask, endpoint, os.environ.get("KIMI_API_KEY", ""))}
        )
    except urllib.error.HTTPError as error:
        return Answer(502, {**facts, "ok": False, "error": f"the endpoint answered {error.code}"})
    except (OSError, ValueError) as error:
        return Answer(502, {**facts, "ok": False, "error": str(error)})


async def handle(request: Request) -> Answer:
    if (request.method, request.path) == ("GET", "/health"):
        provider = os.environ.get("AI_PROVIDER") or "none"
        return Answer(200, {"status": "ok", "version": __version__, "provider": provider})
    if request.path == "/probe":
        return await probe()
    return NOT_FOUND


async def main(stop: asyncio.Event) -> None:
    server = Server(PORT, handle)
    await server.open()
    await stop.wait()
    await server.close()


if __name__ == "__main__":
    run("titan-ai-quant", main)
