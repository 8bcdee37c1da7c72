# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SCRAM-SHA-256 verifiers, computed here so that the server never sees a password's text."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stringprep
import unicodedata
from typing import Callable

__all__ = ["prepared", "verifier"]

# PostgreSQL's own defaults (src/include/common/scram-common.h).
_ITERATIONS = 4096
_SALT_BYTES = 16
# Of table C.1.2 in RFC 3454, but not in Python's.
_ZERO_WIDTH_SPACE = "\u200b"

_PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def verifier(password: str, *, salt: bytes | None = None, iterations: int = _ITERATIONS) -> str:
    """What PostgreSQL keeps of a password: ``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>``.

    RFC 5802, 3 and RFC 7677; the form is that of ``pg_authid.rolpassword`` (PostgreSQL 17 manual, 53.9), which
    ``ALTER ROLE ... PASSWORD`` takes as it is.

    Args:
        password: the text.
        salt: random bytes; made here by default.
        iterations: of PBKDF2.
    """
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password), salt, iterations)
    stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    server_key = _hmac(salted, b"Server Key")
    return f"SCRAM-SHA-256${iterations}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def prepared(password: str) -> bytes:
    """The password as PostgreSQL and libpq prepare it: SASLprep (RFC 4013), or as it is where that forbids it."""
    raw = password.encode("utf-8", "surrogateescape")
    if password.isascii():
        return raw
    spaced = [" " if stringprep.in_table_c12(char) or char == _ZERO_WIDTH_SPACE else char for char in password]
    mapped = "".join(char for char in spaced if not stringprep.in_table_b1(char))
    # What is prohibited is looked for before the normalisation, as PostgreSQL does (src/common/saslprep.c).
    if not mapped or any(table(char) for table in _PROHIBITED for char in mapped):
        return raw
    rightward = [stringprep.in_table_d1(char) for char in mapped]
    mixed = any(stringprep.in_table_d2(char) for char in mapped)
    if any(rightward) and (mixed or not (rightward[0] and rightward[-1])):
        return raw
    return unicodedata.normalize("NFKC", mapped).encode("utf-8")


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
