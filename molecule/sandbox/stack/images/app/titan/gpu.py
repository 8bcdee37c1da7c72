# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU Droplet's model server, as far as one token: OpenAI's API with a key, and a /health that knows nothing."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from pathlib import Path

from .http import NOT_FOUND, Answer, Request, Server
from .service import log, required_secret, run
from .signing import new_nonce

PORT = 8000
# While this file exists the GPU is dead; /health, as with real servers, does not notice.
DEAD = Path("/app/gpu.dead")


async def main(stop: asyncio.Event) -> None:
    want = f"Bearer {required_secret('GPU_API_KEY')}".encode()

    async def handle(request: Request) -> Answer:
        route = (request.method, request.path)
        if route == ("GET", "/health"):
            return Answer(200, {})
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), want):
            return Answer(401, {"error": {"message": "invalid API key", "type": "authentication_error"}})
        if route == ("GET", "/v1/models"):
            return Answer(200, {"object": "list", "data": [{"id": "kimi-k2.5", "object": "model"}]})
        if route != ("POST", "/v1/chat/completions"):
            return NOT_FOUND
        try:
            question = json.loads(request.body)
            model, words = str(question["model"]), " ".join(str(part["content"]) for part in question["messages"])
        except (ValueError, KeyError, TypeError):
            return Answer(400, {"error": {"message": "not a chat completion request", "type": "invalid_request_error"}})
        if DEAD.exists():
            log.error("CUDA error: device lost")
            return Answer(500, {"error": {"message": "CUDA error: device lost", "type": "server_error"}})
        return Answer(
            200,
            {
                "id": f"chatcmpl-{new_nonce()}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": model,
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "length"}
                ],
                "usage": {"prompt_tokens": len(words.split()), "completion_tokens": 1},
            },
        )

    server = Server(PORT, handle)
    await server.open()
    await stop.wait()
    await server.close()


if __name__ == "__main__":
    run("titan-gpu", main)
