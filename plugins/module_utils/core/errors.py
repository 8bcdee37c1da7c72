# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one family of errors that the engine raises.

Every error answers the operator's three questions: what happened, what state the host is in now, what to do next.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "NOTHING_CHANGED",
    "CommandFailed",
    "Damaged",
    "InvalidInput",
    "LockHeld",
    "Mistaken",
    "OpsError",
    "Refused",
    "Unhealthy",
]

NOTHING_CHANGED = "Nothing was changed."


class OpsError(Exception):
    """An operation could not do what was asked.

    Args:
        msg: what happened, one sentence.
        state: what state the host is in now.
        hint: what to do next.
        facts: structured details for the caller; never a secret.
    """

    def __init__(
        self, msg: str, *, state: str | None = None, hint: str | None = None, facts: dict[str, Any] | None = None
    ) -> None:
        super().__init__(msg)
        self.msg = msg
        self.state = state
        self.hint = hint
        self.facts: dict[str, Any] = dict(facts or {})

    def __str__(self) -> str:
        return " ".join(_sentence(part) for part in (self.msg, self.state, self.hint) if part)


class InvalidInput(OpsError):
    """What was asked cannot be done as it stands; nothing was changed."""

    def __init__(
        self,
        msg: str,
        *,
        state: str | None = NOTHING_CHANGED,
        hint: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(msg, state=state, hint=hint, facts=facts)


class Mistaken(InvalidInput):
    """A slip of who asked: a word that cannot be, a name of what is not there. It says nothing about the host.

    It is told to who asked, and nobody is paged for it. What may stand in the settings of a scheduled run is none.
    """


class Refused(InvalidInput):
    """A guard forbids the operation in the host's present condition; nothing was changed."""


class LockHeld(InvalidInput):
    """Another operation holds the host's lock; nothing was changed."""


class CommandFailed(OpsError):
    """A command ended with a non-zero exit code, could not be started, or ran out of time."""


class Damaged(OpsError):
    """Data are proved not to be what they were: whoever tries again finds the same."""


class Unhealthy(OpsError):
    """A service did not become or stay healthy in the time given."""


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", ":")) else text + "."
