# Copyright (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Titan signs: intents on the bus, and HTTP requests. One key, no previous one, 300 s of tolerance."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

TOLERANCE_SECONDS = 300


def _digest(secret: str, text: bytes) -> str:
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def canonical(payload: Any) -> str:
    """The payload as JavaScript would write it with recursively sorted keys."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def new_nonce() -> str:
    return secrets.token_hex(16)


def sign_intent(secret: str, payload: Mapping[str, Any], *, nonce: str, key_id: str) -> dict[str, Any]:
    """The envelope's four signature fields, for now."""
    ts = int(time.time() * 1000)
    sig = _digest(secret, f"{ts}.{nonce}.{canonical(payload)}".encode())
    return {"sig": sig, "nonce": nonce, "ts": ts, "key_id": key_id}


def intent_fault(secret: str, envelope: Mapping[str, Any]) -> str | None:
    """Why the envelope must be rejected, or None when its signature and age are right."""
    sig, nonce, ts = envelope.get("sig"), envelope.get("nonce"), envelope.get("ts")
    if not isinstance(sig, str) or not isinstance(nonce, str) or not isinstance(ts, int):
        return "signature_missing"
    want = _digest(secret, f"{ts}.{nonce}.{canonical(envelope.get('payload'))}".encode())
    if not hmac.compare_digest(sig.encode(), want.encode()):
        return "hmac_signature_mismatch"
    if abs(time.time() * 1000 - ts) > TOLERANCE_SECONDS * 1000:
        return "timestamp_out_of_tolerance"
    return None


def http_signature_is_valid(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether x-signature is the HMAC of "<x-timestamp>.<raw body>" and x-timestamp (seconds) is recent."""
    ts, sig = headers.get("x-timestamp", ""), headers.get("x-signature", "")
    if not (ts.isascii() and ts.isdigit()) or abs(time.time() - int(ts)) > TOLERANCE_SECONDS:
        return False
    return hmac.compare_digest(sig.encode(), _digest(secret, ts.encode() + b"." + body).encode())
