# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a PostgreSQL server answers to a login before any password is sent, as a code that no language alters.

libpq has only words for a login that fails, and they are in the server's language (lc_messages) or in ours.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

__all__ = ["ASKS", "ASKS_MD5", "NOT_NOW", "knock"]

# It goes on and asks for a password (PostgreSQL 17 manual, 53.7: AuthenticationCleartextPassword, MD5Password, SASL).
ASKS = "asks for a password"
# MD5 is asked for only where the role's verifier is of that kind; for a SCRAM one a line of pg_hba.conf with md5 asks
# by SASL (20.5).
ASKS_MD5 = "asks for a password by MD5"
_METHODS = {3: ASKS, 5: ASKS_MD5, 10: ASKS}
# It is coming up, going down, or full (appendix A: cannot_connect_now, admin_shutdown, crash_shutdown,
# too_many_connections).
NOT_NOW = ("57P03", "57P01", "57P02", "53300")

_PROTOCOL, _TLS = 196608, 80877103
_LONGEST = 65536


def knock(host: str, port: int, *, database: str, role: str, timeout: float) -> str | None:
    """Ask to be let in, with TLS where the server offers it and else without, as libpq does (sslmode=prefer).

    Returns:
        ASKS or ASKS_MD5, the five characters of the SQLSTATE with which it refuses, "" for anything else, or None where
        nobody answers.
    """
    answers = []
    for secure in (True, False):
        with contextlib.suppress(OSError, EOFError), socket.create_connection((host, port), timeout=timeout) as plain:
            if not secure:
                answers.append(_ask(plain, database, role))
            elif _offers_tls(plain):
                context = ssl.create_default_context()
                context.check_hostname = False  # nothing is sent that anybody might not know
                context.verify_mode = ssl.CERT_NONE
                with context.wrap_socket(plain) as stream:
                    answers.append(_ask(stream, database, role))
    telling = [answer for answer in answers if answer in (ASKS, ASKS_MD5, *NOT_NOW)]
    return next(iter([*telling, *answers]), None)


def _offers_tls(stream: socket.socket) -> bool:
    stream.sendall(struct.pack("!ii", 8, _TLS))
    return _read(stream, 1) == b"S"


def _ask(stream: socket.socket, database: str, role: str) -> str:
    """Send the start-up message; what the first message of the answer says (manual, 53.7)."""
    pairs = b"".join(text.encode() + b"\0" for text in ("user", role, "database", database)) + b"\0"
    stream.sendall(struct.pack("!ii", 8 + len(pairs), _PROTOCOL) + pairs)
    kind, length = struct.unpack("!ci", _read(stream, 5))
    body = _read(stream, min(length - 4, _LONGEST))
    if kind == b"R":
        return _METHODS.get(struct.unpack("!i", body[:4])[0], "")
    fields = body.split(b"\0") if kind == b"E" else []
    return next((field[1:].decode("ascii", "replace") for field in fields if field[:1] == b"C"), "")


def _read(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        if not more:
            raise EOFError("the server broke off")
        data += more
    return data
