# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a database holds what a manifest says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from ..core.errors import Damaged, OpsError
from ..database.login import Connection, connect
from .manifest import Manifest
from .patience import Patience, attended
from .session import UNLIMITED, Way, counts, objects, own_counts
from .tools import Cancelled

__all__ = ["compare", "contents", "counted", "differing", "own_rows"]

_MOST_TOLD = 5
T = TypeVar("T")


def compare(way: Way, made: Manifest, patience: Patience | None = None) -> None:
    """Compare the rows of every table and the number of all objects.

    Raises:
        Damaged: something differs.
        OpsError: the server does not let us.
    """
    rows, kinds = contents(way, patience)
    found = [*differing("rows of ", rows, made.rows), *differing("", kinds, made.objects)]
    if found:
        more = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
        raise Damaged(f"What {made.name} restores is not what its manifest says: {'; '.join(found[:_MOST_TOLD])}{more}")


def contents(way: Way, patience: Patience | None = None) -> tuple[dict[str, int], dict[str, int]]:
    """The rows of every table, and how many objects of each kind there are.

    Raises:
        Cancelled: the run was asked to end.
        OpsError: the server does not let us.
    """
    with _looking(way) as session:
        return _counted(session, lambda: (counts(session), objects(session)), patience)


def own_rows(way: Way, patience: Patience | None = None) -> dict[str, int]:
    """The rows of the tables that others inherit from, without those.

    Raises:
        Cancelled: the run was asked to end.
        OpsError: the server does not let us.
    """
    with _looking(way) as session:
        return _counted(session, lambda: own_counts(session), patience)


def _counted(session: Connection, work: Callable[[], T], patience: Patience | None) -> T:
    return work() if patience is None else attended(session, work, patience, "Counting the rows")


@contextlib.contextmanager
def _looking(way: Way) -> Iterator[Connection]:
    session = connect(way.endpoint, way.password or "")
    try:
        session.run([UNLIMITED, "SET statement_timeout = 0", "SET lock_timeout = '60s'", "SET row_security = off"])
        yield session
    finally:
        session.close()


def counted(way: Way, warnings: list[str], patience: Patience) -> dict[str, int] | None:
    """The rows of every table; None and a warning where they cannot be counted, in a damaged database, say.

    Raises:
        Cancelled: the run was asked to end.
    """
    try:
        return contents(way, patience)[0]
    except Cancelled:
        raise
    except OpsError as exc:
        warnings.append(f"The rows of {way.endpoint.database} cannot be counted: {exc.msg}")
        return None


def differing(what: str, found: Mapping[str, int], wanted: Mapping[str, int]) -> list[str]:
    """One clause for each number that is not as it should be."""
    names = sorted(set(found) | set(wanted))
    return [
        f"{found.get(name, 0)} {what}{name}, not {wanted.get(name, 0)}"
        for name in names
        if found.get(name, 0) != wanted.get(name, 0)
    ]
