# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The leak scan: everything that others can see of an operation, searched for a secret in every usual form."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from droplet import ENV_FILE, Droplet

HERE = pathlib.Path(__file__).resolve().parent
# A piece of a secret that is this long stands nowhere by chance.
PIECE = 12


def forms(name: str, secret: str) -> dict[str, str]:
    """A secret as it may be written: its pieces, so that a part of it is found, too; base64; hex; percent-encoded."""
    data = secret.encode()
    found = {f"{name}, characters {at}-": secret[at : at + PIECE] for at in range(0, len(secret) - PIECE + 1, PIECE)}
    found[f"{name}, hex"] = data.hex()
    found[f"{name}, HEX"] = data.hex().upper()
    found[f"{name}, percent-encoded"] = "".join(f"%{byte:02X}" for byte in data)
    found[f"{name}, percent-encoded in lower case"] = "".join(f"%{byte:02x}" for byte in data)
    for kind, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
        for before in range(3):
            # Without the characters that depend on what stands before and after it.
            end = (before + len(data)) // 3 * 4
            start = (0, 2, 3)[before]
            found[f"{name}, {kind} after {before}"] = encode(b"\0" * before + data).decode()[start:end]
    return found


def scram_forms(name: str, password: str, verifier: str) -> dict[str, str]:
    """What SCRAM makes of a password on its way to the verifier, and with which one could log in, too (RFC 5802, 3)."""
    iterations, salt = verifier.split("$")[1].split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client).digest()).decode()
    assert stored in verifier, "these are not the keys of that verifier"
    found = {}
    for what, key in (("SaltedPassword", salted), ("ClientKey", client)):
        found[f"{name}, {what}"] = base64.b64encode(key).decode().rstrip("=")
        found[f"{name}, {what} in hex"] = key.hex()
    return found


@dataclass
class Seen:
    """What the scan found (sources and forms, never a secret), and the words that show that it looked."""

    found: list[str] = field(default_factory=list)
    witnessed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    turns: int = 0


class Watch:
    """Ask it once, when the operation has ended."""

    def __init__(self, droplet: Droplet, holders: Sequence[str], witnesses: dict[str, str]) -> None:
        self._droplet, self._holders, self._witnesses = droplet, holders, witnesses
        self._stack: contextlib.ExitStack = contextlib.ExitStack()

    def __enter__(self) -> Watch:
        code = (HERE / "leak_watch.py").read_text(encoding="utf-8")
        self._droplet.sh(f"cat > /run/leak_watch.py <<'END'\n{code}END")
        self._process = self._stack.enter_context(self._droplet.background("exec python3 /run/leak_watch.py"))
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "READY"
        return self

    def seen(self, wanted: dict[str, str], streams: dict[str, str] | None = None) -> Seen:
        """End the watch and search for these forms; for those in ``streams`` not in the files on disk."""
        real = self._droplet.sh(f"readlink -f {ENV_FILE}").strip()
        asked = {
            "forms": wanted,
            "streams": streams or {},
            "holders": self._holders,
            "witnesses": self._witnesses,
            "files": [real],
        }
        answer, _errors = self._process.communicate(json.dumps(asked) + "\n")
        return Seen(**json.loads(answer))

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()
        self._droplet.sh("rm -f /run/leak_watch.py")


@contextlib.contextmanager
def talkative(droplet: Droplet) -> Iterator[None]:
    """The database logs every statement meanwhile."""

    def tell(*statements: str) -> None:
        lines = ";\n".join([*statements, "SELECT pg_reload_conf();"])
        droplet.sh(f"docker exec -i titan-postgres psql -X -q -U titan -d titan_brain <<'END'\n{lines}\nEND")

    tell(
        "ALTER SYSTEM SET log_statement = 'all'",
        "ALTER SYSTEM SET log_min_duration_statement = 0",
        "ALTER SYSTEM SET log_duration = on",
        "ALTER SYSTEM SET log_connections = on",
    )
    try:
        yield
    finally:
        tell("ALTER SYSTEM RESET ALL")


def in_text(text: str, wanted: dict[str, str]) -> list[str]:
    """The forms that stand in a text."""
    return [name for name, form in wanted.items() if form in text]
