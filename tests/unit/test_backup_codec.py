# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compression of plain dumps: read again by other programs, and damage is found."""

from __future__ import annotations

import gzip
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup.codec import decoded, encoder
from ansible_collections.titan.ops.plugins.module_utils.backup.pump import Rereader
from ansible_collections.titan.ops.plugins.module_utils.backup.tools import Effects, drive
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError
from ansible_collections.titan.ops.tests.unit.fakes import FakeClock, FakeEngine

KINDS = ["gzip", "zstd"]


def text(size: int) -> bytes:
    """Something between noise and nothing."""
    words = [f"{number}\tBUY\t{number * 7 % 1000}\n".encode() for number in range(5000)]
    found = b"".join(random.Random(5).choices(words, k=size // 14 + 1))
    return found[:size]


def packed(path: Path, compression: str, data: bytes, *, threads: int = 2, level: int | None = None) -> Path:
    tool = encoder(compression, level, threads)
    parts = [tool.encode(data[start : start + 100_001]) for start in range(0, len(data), 100_001)]
    path.write_bytes(b"".join([*parts, tool.end()]))
    tool.close()
    return path


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [0, 1, 10_000_000], ids=["nothing", "a byte", "several members"])
@pytest.mark.parametrize("compression", KINDS)
def test_what_goes_in_comes_out(tmp_path: Path, compression: str, size: int, threads: int) -> None:
    data = text(size)
    path = packed(tmp_path / "x", compression, data, threads=threads)
    assert b"".join(decoded(str(path), compression)) == data
    assert size < 2 or path.stat().st_size < size / 2


def test_gzip_is_read_by_gzip_itself(tmp_path: Path) -> None:
    data = text(9_000_000)
    path = packed(tmp_path / "x.gz", "gzip", data)
    assert subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout == data
    assert gzip.decompress(path.read_bytes()) == data


@pytest.mark.parametrize("padding", [1, 100, 1 << 19])
def test_zeros_after_the_last_member_are_no_damage_and_anything_else_is(tmp_path: Path, padding: int) -> None:
    """As gzip -d takes them: a file is padded to the size of a tape's block, say. A member may follow."""
    whole = gzip.compress(b"abc") + bytes(padding)
    path = tmp_path / "x.gz"
    path.write_bytes(whole)
    assert b"".join(decoded(str(path), "gzip")) == b"abc"
    path.write_bytes(whole + gzip.compress(b"def"))
    assert b"".join(decoded(str(path), "gzip")) == b"abcdef"
    for end, match in ((b"x", "gzip: "), (gzip.compress(b"def")[:-1], "end too early")):
        path.write_bytes(whole + end)
        with pytest.raises(OpsError, match=match):
            list(decoded(str(path), "gzip"))


def test_the_level_counts(tmp_path: Path) -> None:
    data = text(2_000_000)
    for compression, low, high in (("gzip", 1, 9), ("zstd", 1, 15)):
        sizes = [packed(tmp_path / "x", compression, data, level=level).stat().st_size for level in (low, high)]
        assert sizes[0] > sizes[1]


@pytest.mark.parametrize("compression", KINDS)
def test_a_truncated_stream_is_refused(tmp_path: Path, compression: str) -> None:
    path = packed(tmp_path / "x", compression, text(200_000))
    whole = path.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(OpsError, match=r"end too early|zstd|gzip"):
            list(decoded(str(path), compression))


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 40 << 20])
@pytest.mark.parametrize("compression", KINDS)
def test_few_bytes_that_stand_for_many_come_a_part_at_a_time(tmp_path: Path, compression: str, size: int) -> None:
    """In one member or frame, as other programs write them; nothing is held back at the end, either."""
    path = tmp_path / "x"
    if compression == "gzip":
        path.write_bytes(gzip.compress(bytes(size), 9))
    else:
        packed(path, compression, bytes(size), threads=1)
    parts = [len(part) for part in decoded(str(path), compression)]
    assert sum(parts) == size and max(parts) <= 1 << 20


@pytest.mark.parametrize("compression", KINDS)
def test_one_flipped_bit_is_refused(tmp_path: Path, compression: str) -> None:
    """Whatever bit of the data: their checksum stands at the end."""
    path = packed(tmp_path / "x", compression, text(200_000))
    whole = path.read_bytes()
    for place in range(20, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(OpsError):
            list(decoded(str(path), compression))


@pytest.mark.parametrize("compression", KINDS)
def test_what_is_no_such_data_is_refused(tmp_path: Path, compression: str) -> None:
    (tmp_path / "x").write_bytes(b"-- PostgreSQL database dump\n")
    with pytest.raises(OpsError):
        list(decoded(str(tmp_path / "x"), compression))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("compression", KINDS)
def test_a_dump_is_read_again_right_behind_its_writer(tmp_path: Path, compression: str) -> None:
    data = text(5_000_000)
    whole = packed(tmp_path / "whole", compression, data).read_bytes()
    path = tmp_path / "x"
    path.touch()
    reread = Rereader(str(path), compression)
    try:
        with path.open("ab", buffering=0) as stream:
            stream.write(whole[: len(whole) // 2])
            until(lambda: reread.bytes > len(data) // 4)
            stream.write(whole[len(whole) // 2 :])
        until(lambda: reread.ended(0.1))
        assert (reread.bytes, reread.tail) == (len(data), data[-4096:])
    finally:
        reread.close()


@pytest.mark.parametrize("compression", KINDS)
def test_what_was_written_badly_is_found_when_read_again(tmp_path: Path, compression: str) -> None:
    whole = packed(tmp_path / "x", compression, text(200_000)).read_bytes()
    for damaged in (whole[:-1], whole[:100] + bytes([whole[100] ^ 4]) + whole[101:]):
        (tmp_path / "x").write_bytes(damaged)
        reread = Rereader(str(tmp_path / "x"), compression)
        with pytest.raises(OpsError, match=r"end too early|zstd|gzip"):
            until(lambda: reread.ended(0.1))  # noqa: B023 - it is called in this turn
        reread.close()


def test_reading_again_can_be_given_up(tmp_path: Path) -> None:
    path = packed(tmp_path / "x", "zstd", text(200_000))
    path.write_bytes(path.read_bytes()[:1000])
    Rereader(str(path), "zstd").close()  # or this test would not end


def test_the_engine_is_not_asked_all_the_time(tmp_path: Path) -> None:
    """Every question costs the cores that pg_dump wants; what ends soon is still noticed soon."""

    class Program:
        def __init__(self, seconds: float) -> None:
            self.until, self.asked = clock.monotonic() + seconds, 0

        def ended(self) -> int | None:
            self.asked += 1
            return 0 if clock.monotonic() >= self.until else None

        def said(self) -> str:
            return ""

        def taken(self) -> int:
            return 0

    clock = FakeClock()
    for seconds, most, late in ((60.0, 400, 0.25), (0.5, 30, 0.05)):
        program, began = Program(seconds), clock.monotonic()
        drive(program, Effects(FakeEngine(), "", clock), what="pg_dump", timeout=100)
        assert program.asked <= most
        assert clock.monotonic() - began <= seconds + late

    def flow() -> bool:
        clock.sleep(0.01)
        return clock.monotonic() < program.until

    program = Program(60.0)
    drive(program, Effects(FakeEngine(), "", clock), what="pg_dump", timeout=100, step=flow)
    # no more bytes: it is asked at once, and not a fifth of a second later
    assert program.asked <= 400 and clock.monotonic() - program.until <= 0.1
