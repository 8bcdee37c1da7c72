# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes secrets out of text before anyone sees it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote

__all__ = ["MASK", "Redactor", "all_values", "secret_values"]

MASK = "********"
_SHORTEST = 4
# A shorter value is found inside ordinary words, too.
_LONG = 8

# Words that call a value secret wherever they stand in its name, and those that do so as its last part. In running
# text the latter must follow another part: "key: 5" may be anything.
_SECRET_NAME = re.compile(
    r"(?i:password|passwd|passphrase|secret|token|credential|authorization|private|(?:api|access)[_-]?key"
    r"|[_.-](?:pass|pwd|key|auth|salt)$)|[a-z0-9](?:Pass|Pwd|Key|Auth|Salt)$"
)
_BARE_NAME = re.compile(r"(?i)pass|pwd|key|auth|salt")
# These hold an address, and with it perhaps a password.
_ADDRESS_NAME = re.compile(r"(?i)(?:^|_)(?:url|uri|dsn)$")
# These say where a secret is.
_PLACE_NAME = re.compile(r"(?i)_(?:file|path|dir)$")
# NAME=value, "NAME": "value", \"NAME\": \"value\", NAME: value, Authorization: Bearer value.
_NAMED = re.compile(r"(?<![A-Za-z0-9_.-])([A-Za-z0-9_.-]+)\\?[\"']?\s*[=:]\s*")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|(?:(?i:bearer|basic)\s+)?[^\s,;&}\]]+")
# Up to the last @: people put passwords into URLs without encoding them.
_URL_PASSWORD = re.compile(r"(://[^\s:/?#@\"']*:)([^\s/?#\"'<>]+)(@)")

_HOST = r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|(?:[a-z0-9-]+\.)+[a-z]{2,12})(?::\d{1,5})?"
_PATH = r"(?:/[\w.@%+~-]+)+/?|/"
_URL = rf"[a-z][a-z0-9+.-]*://(?i:{_HOST}|[a-z0-9-]+(?::\d{{1,5}})?)?(?:{_PATH})?"
_PLAIN = re.compile(rf"[+-]?\d{{1,15}}(?:\.\d{{1,15}})?|{_PATH}|(?i:{_HOST})|{_URL}")
# Letters and digits in one long run: a key, wherever it stands.
_RANDOM = re.compile(r"(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{16,}")
_WORDS = frozenset(("production", "development", "disabled", "critical"))


def secret_values(environment: Mapping[str, str]) -> Iterator[str]:
    """The values of an environment that their names or form call secret; the passwords in URLs on their own as well."""
    for name, value in environment.items():
        yield from _url_passwords(value)
        if _SECRET_NAME.search(name) or _BARE_NAME.fullmatch(name):
            if not (_PLACE_NAME.search(name) and value.startswith("/")):
                yield value
        elif _ADDRESS_NAME.search(name) and not _harmless(value, ()):
            yield value


def all_values(
    environment: Mapping[str, str], *, image: Mapping[str, str], names: Collection[str] = ()
) -> Iterator[str]:
    """Every value of a container's environment that may be secret, whatever it is called.

    Args:
        environment: the container's.
        image: what its image sets by itself: known to whoever has the image.
        names: words that are no secret, e.g. of services; a name with underscores for its hyphens is one, too.
    """
    yield from secret_values(environment)
    for name, value in environment.items():
        if len(value) >= _LONG and image.get(name) != value and not _harmless(value, names):
            yield value


class Redactor:
    """Masks known secret values in every usual encoding, and what looks like a secret by its name.

    A value that is short, or part of a public word, would be found in harmless text: it is masked only in other
    programs' words, and there only where it stands as a value (after ``=`` or ``:``, in quotes, as a URL's password).

    Args:
        secrets: the values; those shorter than four characters are left out.
        public: words that are shown whatever the values are: names of services, images, paths.
    """

    def __init__(self, secrets: Iterable[str] = (), *, public: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._public: set[str] = set()
        self._patterns: tuple[re.Pattern[str] | None, re.Pattern[str] | None] | None = None
        for secret in secrets:
            self.add(secret)
        self.allow(public)

    def add(self, secret: str) -> None:
        """Mask this value too from now on; of one with several lines each line as well, for logs are read by lines."""
        self._patterns = None
        lines = [line.strip() for line in secret.splitlines()]
        for text in dict.fromkeys([secret, *(line for line in lines if len(line) >= _LONG)]):
            if len(text) >= _SHORTEST:
                self._values.update(_forms(text))

    def allow(self, words: Iterable[str]) -> None:
        """Show these words from now on, even where a value is part of them."""
        self._patterns = None
        self._public.update(words)

    def values(self) -> list[str]:
        """Every text that is masked, longest first."""
        return sorted(self._values, key=len, reverse=True)

    def known(self, text: str) -> str:
        """The text without the known values; for text of our own, where names are never followed by their values."""
        anywhere = self._compiled()[0]
        return anywhere.sub(MASK, text) if anywhere else text

    def __call__(self, text: str) -> str:
        """The text without known values and without what looks like one; for other programs' words."""
        anywhere, as_value = self._compiled()
        text = anywhere.sub(MASK, text) if anywhere else text
        text = _URL_PASSWORD.sub(rf"\1{MASK}\3", text)
        text = as_value.sub(rf"\1{MASK}", text) if as_value else text
        return _without_named(text)

    def _compiled(self) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
        """Patterns for the values that are masked anywhere, and for those that are masked only as a value."""
        if self._patterns is None:
            weak = [form for form in self.values() if len(form) < _LONG or any(form in word for word in self._public)]
            strong = [form for form in self.values() if form not in weak]
            self._patterns = (
                re.compile(_either(strong)) if strong else None,
                re.compile(
                    rf"([=:]\s*\\?[\"']?|[\"']|//(?=[^\s/@:]+@)){_either(weak)}(?=$|[\s\"'\\,;&)}}\]@]|\.(?:\s|$))"
                )
                if weak
                else None,
            )
        return self._patterns


def _without_named(text: str) -> str:
    """The text without the values that stand beside a secret's name."""
    parts: list[str] = []
    done = 0
    for found in _NAMED.finditer(text):
        secret = found.start() >= done and _SECRET_NAME.search(found[1])
        value = _VALUE.match(text, found.end()) if secret else None
        if value:
            parts += [text[done : found.end()], MASK]
            done = value.end()
    return "".join([*parts, text[done:]])


def _either(texts: Iterable[str]) -> str:
    return f"(?:{'|'.join(re.escape(text) for text in texts)})"


def _forms(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogateescape")
    quotable = raw.decode("utf-8", "replace")
    return {
        secret,
        quote(quotable, safe=""),
        quote_plus(quotable),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        secret.replace("$", "$$"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }


def _url_passwords(text: str) -> Iterator[str]:
    """Passwords of the URLs in a text, as they stand there and decoded (RFC 3986, 2.1).

    Where a password was not encoded it cannot be told where it ends: each place where it may is tried.
    """
    for url in [part for word in text.split() for part in {word, *word.split(",")} if "://" in part]:
        rest = url.partition("://")[2]
        for reach in (rest, re.split(r"[/?#]", rest, maxsplit=1)[0]):
            password = reach.rpartition("@")[0].partition(":")[2]
            if password:
                yield password
                yield unquote(password)


def _harmless(value: str, names: Collection[str]) -> bool:
    """Whether a value is obviously no secret: a name, number, path, host, or a URL without a password."""
    if value in _WORDS or value.replace("_", "-") in names:
        return True
    host = value.partition(":")
    if host[0] in names and (not host[1] or host[2].isdigit()):
        return True
    return _PLAIN.fullmatch(value) is not None and _RANDOM.search(value) is None
