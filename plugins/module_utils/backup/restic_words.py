# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restic says: why it failed, the part of it that is told, and how far it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator

from ..core.progress import Progress

__all__ = ["CAUSES", "CODES", "HOPELESS", "Shown", "excerpt", "sentences"]

# restic repeats these for a quarter of an hour, and nothing will change meanwhile.
HOPELESS = re.compile(
    r"The specified bucket does not exist|no space left on device|[Qq]uota exceeded|Access Denied"
    r"|InvalidAccessKeyId|SignatureDoesNotMatch|request signature we calculated"
)
# What restic, ssh and the stores say (restic 0.14 to 0.18, OpenSSH 9 and 10), in the order in which it counts.
CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        "damaged",
        r"repository contains errors|ciphertext verification failed|does not match id|invalid data returned",
        "the repository is damaged",
        "Make another one and copy into it (it takes all that is here), then look into this one.",
    ),
    (
        "host_key",
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed",
        "the SSH host key of the server is not the one in known_hosts",
        "Somebody may be in between. Ask whoever runs the server for its new key before you replace the line.",
    ),
    (
        "host_key",
        r"Host key verification failed|No \S+ host key is known",
        "the SSH host key of the server is unknown",
        "Put the server's host key, got from whoever runs it, into the known_hosts file (ssh-keyscan prints it).",
    ),
    (
        "refused",
        r"Permission denied \([a-z,-]+\)|Load key .*: ",
        "the server refuses the SSH key",
        "Install the public key on the server, or name another one with ssh_key.",
    ),
    (
        "refused",
        r"Access Denied|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|signature we calculated",
        "the store refuses the access key",
        "Correct it in the environment file.",
    ),
    (
        "password",
        r"wrong password or no key found",
        "the password is not the repository's",
        "Correct the password file.",
    ),
    (
        "locked",
        r"already locked",
        "another process has locked the repository",
        "Run again when it has ended. A lock whose process is gone is removed by itself.",
    ),
    (
        "full",
        r"no space left on device|[Qq]uota exceeded|SSH_FX_FAILURE|QuotaExceeded|EntityTooLarge",
        "the store is full, or refuses to write",
        "Make room there, or keep fewer backups.",
    ),
    (
        "absent",
        r"repository does not exist|unable to open config file: L?[Ss]tat[^\n]*(?:does not exist|no such file)"
        r"|The specified (?:bucket|key) does not exist",
        "there is no repository",
        "Is the address right? To make a new one there: backup_offsite.yml -e init=true.",
    ),
    (
        "unreachable",
        r"[Cc]onnection (?:refused|timed out|reset|lost)|[Ii]/[Oo] timeout|No route to host|no such host|EOF"
        r"|Could not resolve hostname|[Nn]etwork is unreachable|Connection closed|broken pipe|ssh command exited",
        "the server does not answer, or the connection broke",
        "Run again when it does.",
    ),
)
# 0.17 and later say these by their exit codes, too.
CODES = {10: "absent", 11: "locked", 12: "password"}
# A line of the progress of what has no JSON.
_COUNTER = re.compile(r"\[\d+:\d\d(?::\d\d)?\]\s")
_MOST = 400
# A line of progress has about 300 characters; it names the files that are being read.
_TAIL = 1 << 16


class Shown:
    """Shows the bytes that restic says are done, from its first word of them on.

    0.14 has none for a restore, and its files have their full size from the beginning: then only the time is told.

    Args:
        progress: where it is shown.
        what: what restic does.
        total: how many bytes that is, if it is known.
        fd: what restic writes its JSON to.
    """

    def __init__(self, progress: Progress, what: str, total: int | None, fd: int) -> None:
        self._progress, self._what, self._total, self._fd = progress, what, total, fd
        self._size = 0
        self._done: int | None = None
        progress.phase(what)

    def look(self) -> None:
        """Read what is new."""
        size = os.fstat(self._fd).st_size
        if size == self._size:
            return
        self._size = size
        done = _bytes_done(os.pread(self._fd, _TAIL, max(0, size - _TAIL)))
        if done is None:
            return
        first = self._done is None
        self._done = done
        if first:
            self._progress.phase(self._what, self._total, done=lambda: self._done or 0)


def _bytes_done(text: bytes) -> int | None:
    """What the last whole line of progress says; None without one."""
    for line in reversed(text.split(b"\n")[:-1]):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and found.get("message_type") == "status":
                # What is 0 it leaves out.
                return int(found.get("bytes_done") or found.get("bytes_restored") or 0)
    return None


def sentences(words: str) -> Iterator[str]:
    """What restic says to people: its lines of JSON are of progress, but for the last words of newer versions."""
    for line in filter(None, (line.strip() for line in words.splitlines())):
        if not line.startswith("{"):
            if not _COUNTER.match(line):
                yield line
            continue
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if found.get("message_type") in ("exit_error", "error"):
                error = found.get("error")
                yield str(found.get("message") or (error.get("message") or error if isinstance(error, dict) else error))


def excerpt(words: str) -> str:
    """The last of what restic says to people, whole lines as far as they fit; dots say that there was more."""
    lines = list(sentences(words))
    kept: list[str] = []
    while lines and sum(map(len, kept)) + len(lines[-1]) <= _MOST:
        kept.insert(0, lines.pop())
    if not lines:
        return " | ".join(kept)
    if kept:
        return " | ".join(["...", *kept])
    # Go puts the reason last.
    end = lines[-1][-_MOST:]
    return f"... {end.partition(' ')[2] or end}"
