# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP requests to a service, from the host's network or from inside a container's."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from ..core.clock import Clock
from ..core.errors import OpsError

try:
    import requests
    import urllib3.exceptions
except ImportError:  # reported when first needed
    requests = None  # type: ignore[assignment, unused-ignore]

__all__ = ["Response", "in_network_of", "request"]

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_BODY_LIMIT = 1_000_000


@dataclass(frozen=True)
class Response:
    """An answer: status code, at most a megabyte of body, and how long it took in seconds."""

    status: int
    body: bytes
    latency: float

    def json(self) -> Any:
        """The body as JSON; None when it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def request(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
    timeout: float = 5,
    verify: bool = True,
    clock: Clock,
) -> Response:
    """Make one request, without proxies and without following redirects.

    Args:
        url: where.
        method: the HTTP method.
        headers: additional headers.
        data: the request's body.
        timeout: seconds for connecting, and between two bytes of the answer.
        verify: check a TLS certificate.
        clock: measures the latency.

    Raises:
        OpsError: no answer; the message says why (refused, timed out, no such host).
    """
    if requests is None:
        raise OpsError(
            "The Python module requests is missing on this host", hint="Install the package python3-requests."
        )
    session = requests.Session()
    session.trust_env = False
    began = clock.monotonic()
    try:
        with session.request(
            method,
            url,
            headers=dict(headers or {}),
            data=data,
            timeout=timeout,
            verify=verify,
            allow_redirects=False,
            stream=True,
        ) as answer:
            body = answer.raw.read(_BODY_LIMIT, decode_content=True)
            return Response(answer.status_code, body, clock.monotonic() - began)
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as exc:
        raise OpsError(f"{url} did not answer within {timeout:g} seconds") from exc
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
        raise OpsError(f"{url} does not answer: {_cause(exc)}") from exc
    finally:
        session.close()


def in_network_of(pid: int, call: Callable[[], T]) -> T:
    """Run ``call`` inside the network of a process, so that localhost means that container's.

    A thread of its own enters the network namespace (setns(2)) and ends with the call; nothing is needed in the image.

    Args:
        pid: the container's first process on this host.
        call: what to do there.

    Raises:
        OpsError: not root, or the process is gone; and whatever ``call`` raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def inside() -> None:
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(fd, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            finally:
                os.close(fd)
        except OSError as exc:
            errors.append(
                OpsError(
                    f"The container's network (process {pid}) cannot be entered: {exc.strerror}",
                    hint="Run as root on the Docker host itself (become: true).",
                )
            )
            return
        try:
            results.append(call())
        except BaseException as exc:  # handed to the caller's thread below
            errors.append(exc)

    thread = threading.Thread(target=inside, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _cause(exc: BaseException) -> str:
    """The innermost reason, e.g. "Connection refused", without the library's wrappings."""
    seen: BaseException = exc
    while True:
        inner = getattr(seen, "reason", None) or seen.__cause__ or seen.__context__
        if not isinstance(inner, BaseException) or inner is seen:
            break
        seen = inner
    return getattr(seen, "strerror", None) or str(seen)
