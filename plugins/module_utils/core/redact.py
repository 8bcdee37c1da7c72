# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes secrets out of text before anyone sees it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

__all__ = ["Redactor"]

_MASK = "********"
# Names whose values are secret wherever they stand in a log line: NAME=value, "NAME": "value", NAME: value.
_NAMED = re.compile(
    r"(?i)([A-Z0-9_.-]*(?:password|passwd|secret|token|api_?key|private_?key)[A-Z0-9_]*[\"']?\s*[=:]\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s,;&}\]]+)"
)
_URL_PASSWORD = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@]*:)([^\s@/]+)(@)")


class Redactor:
    """Masks known secret values in every usual encoding, and what looks like a secret by its name.

    Args:
        secrets: the values; those shorter than four characters are left out, they would mask half the text.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Mask this value too from now on."""
        if len(secret) >= 4:
            raw = secret.encode()
            self._values.update(
                (
                    secret,
                    quote(secret, safe=""),
                    quote_plus(secret),
                    base64.b64encode(raw).decode(),
                    base64.urlsafe_b64encode(raw).decode(),
                    secret.replace("$", "$$"),
                    json.dumps(secret)[1:-1],
                    json.dumps(secret, ensure_ascii=False)[1:-1],
                )
            )

    def values(self) -> list[str]:
        """Every text that is masked, longest first."""
        return sorted(self._values, key=len, reverse=True)

    def known(self, text: str) -> str:
        """The text without the known values; for text of our own, where names are never followed by their values."""
        for value in self.values():
            text = text.replace(value, _MASK)
        return text

    def __call__(self, text: str) -> str:
        """The text without known values and without what looks like one; for other programs' words."""
        text = self.known(text)
        text = _URL_PASSWORD.sub(r"\1" + _MASK + r"\3", text)
        return _NAMED.sub(r"\1" + _MASK, text)
