# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Words for whoever listens; that nobody can be reached must not end the work that they are about."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO

__all__ = ["say"]


def say(stream: TextIO, text: str) -> None:
    """Write at once. Where that fails (a full disk, a lost terminal), the stream is mute from then on.

    It leads to /dev/null then. Else what it still holds would fail once more when Python ends, and the exit code would
    be 120.
    """
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # closed, or no file at all: nothing is flushed later, then
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.dup2(null, stream.fileno())
            finally:
                os.close(null)
