# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a transaction did, and how long the services were out for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..compose.container import Container

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """What a transaction did; times in seconds."""

    interruption: dict[str, dict[str, float]] = field(default_factory=dict)
    skew_seconds: float | None = None
    carried: dict[str, list[str]] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def measure(self, services: Sequence[str], wells: Mapping[str, Container], stopping: Mapping[str, float]) -> None:
        """Interruptions: from the request to stop to the start and the first passed health check, by Docker's clock.

        Args:
            services: those that were switched together.
            wells: their containers, as they were when they were first seen well.
            stopping: when each was asked to stop, seconds since the epoch.
        """
        started = []
        for name in services:
            container = wells.get(name)
            if container is None or container.started_at is None:
                continue
            started.append(container.started_at)
            if name in stopping:
                well = container.healthy_at or container.started_at
                self.interruption[name] = {
                    "until_started_seconds": round(container.started_at - stopping[name], 3),
                    "until_healthy_seconds": round(well - stopping[name], 3),
                }
        if started:
            self.skew_seconds = round(max(started) - min(started), 3)
