# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How backups, drills and restores are begun, and what they have said in a few words."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from backup_matrix import DRILLS
from link import Agent, Playbook, Running, Said, Script, Trouble, run

FORMATS = {
    "plain": ("plain", "none"),
    "gzip": ("plain", "gzip"),
    "custom": ("custom", "none"),
    "directory": ("directory", "gzip"),
}
PLAYBOOKS = {"backup": "backup", "restore": "restore", "undo": "restore", "drill": "verify_backup"}
SCRIPTS = ("script", "script-drill")
# How the history calls them.
TOLD = {"backup": "backup", "script": "backup", "drill": "verify_backup", "script-drill": "verify_backup"}
# With these a new nightly backup lets the one before go.
KEEP = {"backup_keep_daily": 0, "backup_keep_weekly": 0, "backup_keep_monthly": 0}
# On the 30th of February cron does not come between.
NEVER = "0 0 30 2 *"
_NAME = re.compile(r"\btitan_brain_\d[\w-]*\.(?:sql\.gz|sql|dump|dir)\b")
# Seconds that an operation waits for the host's lock, where it is to wait.
PATIENCE = 300


class Runs:
    """Begins operations.

    Attributes:
        agent: on the Droplet.
        seeds: a backup of each form, to be restored.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.seeds: dict[str, str] = {}

    def begin(self, operation: str, form: str, patience: float | None = None) -> Running:
        """Begin one.

        Args:
            operation: as a case has it.
            form: of the dump; backup_db.sh makes a plain one.
            patience: seconds that it waits for the host's lock; by default what is usual.
        """
        if operation in SCRIPTS:
            self.agent("patience", seconds=PATIENCE if patience is None else patience)
            return Script(*(["--verify", self.seeds[form]] if operation in DRILLS else []))
        return Playbook(PLAYBOOKS[operation], *self._arguments(operation, form, patience))

    def run(self, operation: str, form: str) -> Said:
        """Run one to its end."""
        return self.begin(operation, form).wait(300)

    def seed(self, forms: Collection[str]) -> None:
        """One backup of each form to restore, and one that the next nightly lets go.

        Raises:
            Trouble: there is none.
        """
        self.seeds = {form: self._made(form, f"chaos_{form}") for form in sorted(forms)}
        self._made("plain", None)

    def install(self) -> None:
        """Have backup_db.sh there, with the settings that the playbooks get here.

        Raises:
            Trouble: it cannot be installed.
        """
        self.agent("keep_schedule")
        variables = {**KEEP, "backup_schedule": NEVER, "backup_lock_timeout": PATIENCE}
        said = run("schedule_backups", "-e", json.dumps(variables))
        if said.code != 0:
            raise Trouble(f"backup_db.sh cannot be installed: {said.words()}")

    def _made(self, form: str, label: str | None) -> str:
        said = run("backup", *self._arguments("backup", form), *(["-e", f"label={label}"] if label else []))
        names = [item["name"] for item in said.results if "sha256" in item]
        if said.code != 0 or not names:
            raise Trouble(f"no backup to begin with: {said.output[-800:]}")
        return str(names[0])

    def _arguments(self, operation: str, form: str, patience: float | None = None) -> list[str]:
        """Of the playbook."""
        variables: dict[str, Any] = {"backup_health_timeout": 60}
        if operation == "backup":
            kind, compression = FORMATS[form]
            variables.update(KEEP, backup_format=kind, backup_compression=compression)
        elif operation == "restore":
            variables.update(backup=self.seeds[form], confirm="titan_brain")
        elif operation == "undo":
            variables.update(undo=True, confirm="titan_brain")
        elif operation == "drill":
            variables.update(backup=self.seeds[form])
        if patience is not None:
            variables["titan_stack"] = {"lock_timeout": patience}
        return ["-e", json.dumps(variables)]


def recovered(said: Said) -> list[str]:
    """What recover.yml has done with an interrupted restore."""
    found = [item["recovered"] for item in said.results if isinstance(item.get("recovered"), dict)]
    return [how for item in found for how in item.values()]


def short(said: Said) -> str:
    """A run in a few words."""
    failure = said.failure
    if said.code == 0:
        for item in said.results:
            if isinstance(item.get("recovered"), dict):
                return ", ".join(recovered(said)) or "nothing to do"
            if "confirmed" in item:
                first = f"{item['recovered']}, " if item.get("recovered") else ""
                return first + ("restored" if item.get("steps") else "nothing more")
            if "sha256" in item:
                return "made"
            if "restore_seconds" in item:
                return "restores"
        return "ended well"
    if not failure:
        return "ended without a word"
    reason = _NAME.sub("the backup", str(failure["reason"]).replace("/opt/titan/backups/db/", ""))
    if failure.get("rolled_back") is not None:
        _verb, _at, at = reason.partition("failed at ")
        return f"{'undone' if failure['rolled_back'] else 'not undone yet'}: {at or reason}"
    return reason
