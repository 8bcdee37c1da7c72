# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a new database holds what it was restored from."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.errors import OpsError
from .compare import contents, differing, own_rows
from .patience import Patience
from .restore_plan import RestorePlan
from .session import Way
from .source import Source

__all__ = ["compare_restored"]

_MOST_TOLD = 5


def compare_restored(
    planned: RestorePlan, source: Source, way: Way, proved: list[str], patience: Patience
) -> dict[str, int]:
    """The rows of a new database, which must be those of its manifest, or else what the dump tells of itself.

    Args:
        planned: the restore.
        source: what was loaded.
        way: into the new database.
        proved: is told what was proved.
        patience: with the counting.

    Raises:
        Cancelled: the run was asked to end.
        OpsError: it is not what it must be, or the server does not let us look.
    """
    rows, kinds = contents(way, patience)
    name, made = source.backup.name, source.made
    wrong: list[str] = []
    if not source.foreign:
        wrong = [*differing("rows of ", rows, made.rows), *differing("", kinds, made.objects)]
        proved.append(f"{sum(rows.values())} rows of {len(rows)} tables, and every object, as the manifest says")
    elif source.rows is not None:
        # a table that the dump makes and has no data for is empty, and that is no difference
        own = {**rows, **own_rows(way, patience)}
        found = {item: own.get(item, 0) for item in source.rows}
        wrong = differing("rows of ", found, source.rows)
        told = f"{sum(found.values())} rows of {len(found)} tables"
        proved.append(f"{told}, as many as the file holds; it has no manifest")
    else:
        who = (
            "psql has run the file, whose INSERTs nobody counts,"
            if made.format == "plain"
            else "pg_restore has read the archive"
        )
        proved.append(f"{who} to its end: {sum(rows.values())} rows of {len(rows)} tables")
    if wrong:
        more = f" and {len(wrong) - _MOST_TOLD} more" if len(wrong) > _MOST_TOLD else ""
        of = "its manifest says" if not source.foreign else "the file holds"
        raise OpsError(
            f"What {name} restores is not what {of}: {'; '.join(wrong[:_MOST_TOLD])}{more}",
            hint="Do not rely on this backup: restore an older one.",
        )
    if source.foreign and not planned.options.partial:
        _refuse_partial(planned, source, rows)
    return rows


def _refuse_partial(planned: RestorePlan, source: Source, rows: Mapping[str, int]) -> None:
    """Refuse a dump that lacks tables, or has no data for some: pg_dump writes a COPY for an empty table, too."""
    today, name = planned.today_rows or {}, source.backup.name
    missing = sorted(set(today) - set(rows))
    empty = sorted(
        item for item, number in today.items() if number and rows.get(item) == 0 and item not in (source.rows or {})
    )
    for tables, lacks, has in (
        (missing, f"lacks {len(missing)} of the tables", "has now"),
        (empty, f"has no data for {len(empty)} tables", "has rows of now"),
    ):
        if tables:
            told = ", ".join(tables[:_MOST_TOLD])
            told += f" and {len(tables) - _MOST_TOLD} more" * (len(tables) > _MOST_TOLD)
            raise OpsError(
                f"{name} {lacks} that {planned.database} {has}: {told}",
                hint="titan-brain empties a database that is not whole. If this is what you want, say partial=true.",
            )
