# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP/1.1 server: a request, an answer, close. The health endpoints need no more."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Callable

log = logging.getLogger("titan")

_MAX_BODY = 1 << 20
_READ_SECONDS = 10.0


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int
    body: Mapping[str, Any] | str


Handler = Callable[[Request], Awaitable[Answer]]
NOT_FOUND = Answer(404, {"error": "not found"})
UNAUTHORIZED = Answer(401, {"error": "signature missing, wrong or expired"})


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = {}
    for line in head[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= _MAX_BODY:
        raise ValueError("body too large")
    return Request(method, target.partition("?")[0], headers, await reader.readexactly(length))


def _bytes(answer: Answer) -> bytes:
    text = isinstance(answer.body, str)
    body = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"Content-Type: {'text/plain; version=0.0.4; charset=utf-8' if text else 'application/json'}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class Server:
    """Serves on all addresses of the container until closed."""

    def __init__(self, port: int, handler: Handler) -> None:
        self._port = port
        self._handler = handler
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "0.0.0.0", self._port)
        log.info("listening on port %d", self._port)

    async def close(self) -> None:
        """Stop listening; answers under way are finished."""
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                request = await asyncio.wait_for(_read(reader), _READ_SECONDS)
            except ValueError:
                answer = Answer(400, {"error": "bad request"})
            else:
                try:
                    answer = await self._handler(request)
                except Exception:
                    log.exception("%s %s failed", request.method, request.path)
                    answer = Answer(500, {"error": "internal error"})
            writer.write(_bytes(answer))
            await writer.drain()
        except (ConnectionError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass  # the client's concern
        finally:
            writer.close()
