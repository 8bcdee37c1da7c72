# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory that somebody has made with pg_dump: a file that was cut, which pg_restore takes, is found."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup.dumpdir import check_directory
from ansible_collections.titan.ops.plugins.module_utils.backup.source import find_source
from ansible_collections.titan.ops.plugins.module_utils.backup.tools import Cancelled
from ansible_collections.titan.ops.plugins.module_utils.core.errors import Damaged, InvalidInput
from ansible_collections.titan.ops.tests.unit.test_backup_sqlscan import zstd

COPIED = b"1\tx\n2\ty\n\\.\n\n\n"
INSERTED = b"INSERT INTO public.a VALUES (1);\n\n\n"


def lz4(data: bytes, *, sums: bool = False) -> bytes:
    """A frame of two blocks that are not compressed; with checksums of each and of all (nobody looks at them)."""
    extra = b"\1\2\3\4" if sums else b""
    head = b"\x04\x22\x4d\x18" + (b"\x74" if sums else b"\x60") + b"\x40\xff"
    half = len(data) // 2
    blocks = b"".join((len(part) | 1 << 31).to_bytes(4, "little") + part + extra for part in (data[:half], data[half:]))
    return head + blocks + bytes(4) + extra


def check(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    (tmp_path / "toc.dat").write_bytes(b"PGDMP")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    check_directory(str(tmp_path), cancelled=lambda: False)


WHOLE: dict[str, dict[str, bytes]] = {
    "no data": {},
    "rows": {"1.dat": COPIED, "2.dat": b"\\.\n\n\n"},
    "INSERTs": {"1.dat": INSERTED, "2.dat": b"\n\n"},
    "packed": {"1.dat.gz": gzip.compress(COPIED), "2.dat.zst": zstd(COPIED), "3.dat.lz4": lz4(COPIED)},
    "lz4 with checksums": {"1.dat.lz4": lz4(COPIED, sums=True)},
    "large objects": {
        "1.dat": COPIED,
        "blob_7.dat": b"abc",
        "blob_8.dat.gz": gzip.compress(b""),
        "blob_9.dat.lz4": b"",
    },
    "another file": {"1.dat": COPIED, "README": b"x"},
}
CUT: dict[str, dict[str, bytes]] = {
    "rows at a line": {"1.dat": COPIED[:4], "2.dat": COPIED},
    "rows of the only table": {"1.dat": COPIED[:4]},
    "last line": {"1.dat": COPIED[:-1]},
    "all": {"1.dat": b"", "2.dat": COPIED},
    "rows that look like an end of INSERTs": {"1.dat": b"a;\n\n\n", "2.dat": COPIED},
    "rows that look like no INSERT": {"1.dat": b"\n\n", "2.dat": COPIED},
    "INSERTs at a line": {"1.dat": INSERTED[:-2], "2.dat": INSERTED},
    "gzip": {"1.dat.gz": gzip.compress(COPIED)[:-3]},
    "what gzip packed": {"1.dat.gz": gzip.compress(COPIED[:4])},
    "what zstd packed": {"1.dat.zst": zstd(COPIED[:4])},
    "lz4": {"1.dat.lz4": lz4(COPIED)[:-4]},
    "lz4 in a block": {"1.dat.lz4": lz4(COPIED)[:-9]},
    "lz4 with checksums": {"1.dat.lz4": lz4(COPIED, sums=True)[:-4]},
    "lz4, all": {"1.dat.lz4": b""},
    "large object": {"1.dat": COPIED, "blob_7.dat.gz": gzip.compress(b"abc" * 99)[:-9]},
}


@pytest.mark.parametrize("case", WHOLE)
def test_whole_files_pass(tmp_path: Path, case: str) -> None:
    check(tmp_path, WHOLE[case])


@pytest.mark.parametrize("case", CUT)
def test_a_file_that_was_cut_is_found(tmp_path: Path, case: str) -> None:
    with pytest.raises(Damaged, match=r"its file \S+ (ends too early|is damaged \((gzip|lz4): )"):
        check(tmp_path, CUT[case])


def test_who_restores_is_told_which_file_and_a_request_to_end_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "by hand"
    path.mkdir()
    for name, data in (("toc.dat", b"PGDMP"), ("7.dat", COPIED[:4])):
        (path / name).write_bytes(data)
    with pytest.raises(
        InvalidInput, match=r"^by hand cannot be restored: its file 7\.dat ends too early\. Nothing was"
    ):
        find_source(str(tmp_path), str(path), cancelled=lambda: False)
    (path / "7.dat").unlink()
    (path / "7.dat.gz").write_bytes(gzip.compress(COPIED))
    with pytest.raises(Cancelled):
        find_source(str(tmp_path), str(path), cancelled=lambda: True)
