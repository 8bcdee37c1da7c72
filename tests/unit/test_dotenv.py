# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Env files, case by case. That Compose agrees with the readings is shown case by case as well, in one call."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.dotenv import (
    EnvFile,
    Quoting,
    literal,
    parse,
    references,
    set_values,
    survives,
)
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput
from ansible_collections.titan.ops.tests.unit import real_compose

ENVIRONMENT = {"OUTER": "outer", "EMPTY": ""}

READINGS: dict[str, tuple[bytes, dict[str, str]]] = {
    "plain": (b"A=1\nB=two words\n", {"A": "1", "B": "two words"}),
    "empty file": (b"", {}),
    "only comments and blanks": (b"# A=1\n\n  # B=2\n \t\n", {}),
    "missing last newline": (b"A=1\nB=2", {"A": "1", "B": "2"}),
    "CRLF": (b"A=1\r\nB='2'\r\nC=\r\n\r\nD=4", {"A": "1", "B": "2", "C": "", "D": "4"}),
    "byte order mark": (b"\xef\xbb\xbfA=1\n", {"A": "1"}),
    "export": (b"export A=1\nexport\tB=2\nexport  C\n", {"A": "1", "B": "2"}),
    "export alone": (b"export\nexport \t\nA=1\n", {"A": "1"}),
    "export as a name": (b"export=1\n", {"export": "1"}),
    "blanks around the separator": (b"A = 1\nB= 2\nC =3\n\t D=4 \t\n", {"A": "1", "B": "2", "C": "3", "D": "4"}),
    "YAML's separator": (b"A: 1\nB:2\nC: x=y\n", {"A": "1", "B": "2", "C": "x=y"}),
    "empty values": (b"A=\nB=''\nC=\"\"\nD= \n", {"A": "", "B": "", "C": "", "D": ""}),
    "the last of several wins": (b"A=1\nA=2\n", {"A": "2"}),
    "name alone is inherited": (b"OUTER\nNOWHERE\nEMPTY\n", {"OUTER": "outer", "EMPTY": ""}),
    "inline comment needs a space": (b"A=1 # c\nB=1#c\nC=1\t#c\n", {"A": "1", "B": "1#c", "C": "1\t#c"}),
    "comment in place of a value is the value": (b"A= # c\nB=#c\n", {"A": "# c", "B": "#c"}),
    "comment after quotes": (b"A='1' # c\nB=\"2\"#c\n", {"A": "1", "B": "2"}),
    "hash in quotes": (b"A='1 # c'\nB=\"2 # c\"\n", {"A": "1 # c", "B": "2 # c"}),
    "single quotes are literal": (rb"A='$B ${C} $$ \n \\'" + b"\n", {"A": r"$B ${C} $$ \n " + "\\\\"}),
    "single quote in single quotes": (rb"A='it\'s'" + b"\n", {"A": "it's"}),
    "escapes in double quotes": (rb'A="a\nb\tc\"d\\e"' + b"\n", {"A": 'a\nb\tc"d\\e'}),
    "unknown escapes stay": (rb'A="\x41 \e \c"' + b"\n", {"A": r"\x41 \e \c"}),
    "octal escapes": (rb'A="\0101 \012 \0400"' + b"\n", {"A": r"A \12 \400"}),
    "no escapes without quotes": (rb"A=a\nb\"c" + b"\n", {"A": r"a\nb\"c"}),
    "many lines in quotes": (b"A='1\n2'\nB=\"3\r\n\n4\"\nC=5\n", {"A": "1\n2", "B": "3\r\n\n4", "C": "5"}),
    "quotes inside are literal": (b"A=a\"b\"'c'\n", {"A": "a\"b\"'c'"}),
    "two on a line": (b"A='1' B=2\nC=\"3\"D=4\n", {"A": "1", "B": "2", "C": "3", "D": "4"}),
    "references": (b'A=1\nB=$A\nC=${A}x\nD="$A${B}"\n', {"A": "1", "B": "1", "C": "1x", "D": "11"}),
    "references look outside first": (b"OUTER=in\nA=$OUTER\n", {"OUTER": "in", "A": "outer"}),
    "references to what follows are empty": (b"A=$B\nB=1\n", {"A": "", "B": "1"}),
    "references take the last before": (b"A=1\nB=$A\nA=2\nC=$A\n", {"A": "2", "B": "1", "C": "2"}),
    "the field notes' example": (b"PASSWORD=ab$cd\n", {"PASSWORD": "ab"}),
    "defaults": (
        b"A=${NO:-a}\nB=${NO-b}\nC=${EMPTY:-c}\nD=${EMPTY-d}\nE=${OUTER:-e}\n",
        {"A": "a", "B": "b", "C": "c", "D": "", "E": "outer"},
    ),
    "alternatives": (
        b"A=${NO:+a}\nB=${NO+b}\nC=${EMPTY:+c}\nD=${EMPTY+d}\nE=${OUTER:+e}\n",
        {"A": "", "B": "", "C": "", "D": "d", "E": "e"},
    ),
    "nested defaults": (b"A=1\nB=${NO:-${A}2}3 ${A}\n", {"A": "1", "B": "123 1"}),
    "required and there": (b"A=${OUTER:?m}\nB=${EMPTY?m}\n", {"A": "outer", "B": ""}),
    "dollars that stand for themselves": (
        b'A=$$B\nB=a$\nC=$1\nD="\\$x"\nE=$$$$\n',
        {"A": "$B", "B": "a$", "C": "$1", "D": "$x", "E": "$$"},
    ),
    "dots, dashes, brackets, digits and letters in names": (
        "A.B=1\nC-D=2\nE[0]=3\n4=5\nß=6\n".encode(),
        {"A.B": "1", "C-D": "2", "E[0]": "3", "4": "5", "ß": "6"},
    ),
    "bytes that are not UTF-8 until they meet": (b"A=\xe2$NO\x82\x85\n", {"A": "\u2085"}),
    "all kinds of white space are trimmed": ("A=\xa01\u2003\n\u3000B=2\x85\n".encode(), {"A": "1", "B": "2"}),
}

# Every text after an = is SECRET, so that it can be looked for in the messages.
REFUSALS: dict[str, tuple[bytes, int, str]] = {
    "single quote never closed": (b"A=1\nB='SECRET\nC=1\n", 2, "never closed"),
    "double quote never closed": (b'\n# c\nB="SECRET\\"\n', 3, "never closed"),
    "quote closed too early": (b"A='1'\nB='SECRET'SECRET'\n", 2, "cannot be part of a variable name"),
    "odd character in a name": (b"A=1\r\nB!=SECRET\r\n", 2, "character 2 of it"),
    "bytes that are not UTF-8 in a name": (b"A\xff=SECRET\n", 1, "character 2 of it"),
    "space in a name": (b"A B=SECRET\n", 1, "space inside the variable name"),
    "a sentence": (b"A=1\nthis is SECRET\n", 2, "space inside the variable name"),
    "export alone at the end": (b"A=1\nexport ", 2, "ends right after a name"),
    "brace never closed": (b"A=1\n\nB=SECRET${C\n", 3, "invalid ${...}"),
    "braces with nothing in them": (b"B=SECRET${}\n", 1, "invalid ${...}"),
    "unknown operator": (b'B="\nSECRET${C:x}"\n', 1, "invalid ${...}"),
    "invalid inside a default": (b"B=${C:-SECRET${}\n", 1, "invalid ${...}"),
    "required and missing": (b"A=1\nB=${C:?SECRET}\n", 2, "requires the variable C, which is not set or is empty"),
    "required and empty": (b"B=SECRET${EMPTY:?}\n", 1, "requires the variable EMPTY, which is not set or is empty"),
    "required and unset": (b"B=${C?SECRET}\n", 1, "requires the variable C, which is not set"),
}

# Of these, Compose's parser makes a variable that no container can be given.
IMPOSSIBLE: dict[str, tuple[bytes, int, str]] = {
    "no name": (b"A=1\n=SECRET\n", 2, "no variable name"),
    "a name alone at the end": (b"A=1\nSECRET", 2, "ends right after a name"),
    "NUL": (b"A=1\nB=SECRET\0\n", 2, "NUL"),
}


def resolved(data: bytes) -> dict[str, str]:
    return parse(data).resolve(ENVIRONMENT)


@pytest.mark.parametrize(("data", "values"), READINGS.values(), ids=READINGS.keys())
def test_a_file_reads_as(data: bytes, values: dict[str, str]) -> None:
    assert resolved(data) == values
    assert parse(data).data == data


def test_compose_reads_every_one_of_these_files_in_the_same_way(tmp_path: Path) -> None:
    services = {}
    for number, (data, _values) in enumerate(READINGS.values()):
        (tmp_path / f"{number}.env").write_bytes(data)
        services[f"s{number}"] = {"image": "none", "env_file": [f"{number}.env"]}
    theirs = real_compose.config(tmp_path, services, ENVIRONMENT)
    assert theirs is not None, "Compose refuses one of them"
    assert {name: theirs[f"s{number}"] for number, name in enumerate(READINGS)} == {
        name: values for name, (_data, values) in READINGS.items()
    }


@pytest.mark.parametrize(
    ("data", "line", "reason"), [*REFUSALS.values(), *IMPOSSIBLE.values()], ids=[*REFUSALS, *IMPOSSIBLE]
)
def test_a_file_is_refused_by_line_and_reason_without_its_values(data: bytes, line: int, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolved(data)
    assert reason in str(caught.value)
    assert f"ine {line} of the env file" in str(caught.value)
    assert caught.value.facts["line"] == line
    assert "Nothing was changed." in str(caught.value)
    assert "SECRET" not in str(caught.value) + repr(caught.value) + repr(caught.value.facts)


@pytest.mark.parametrize(
    "name", [name for name in [*REFUSALS, *IMPOSSIBLE] if not name.startswith(("required", "NUL"))]
)
def test_what_no_environment_can_mend_is_refused_at_once(name: str) -> None:
    data, _line, _reason = {**REFUSALS, **IMPOSSIBLE}[name]
    with pytest.raises(InvalidInput):
        parse(data)
    with pytest.raises(InvalidInput):
        set_values(b"K=1\n" + data, {"K": "2"})


def test_a_line_that_says_nothing_gives_no_entry() -> None:
    assert parse(b"export\n# c\n\n").entries == ()


@pytest.mark.parametrize("data", [data for data, _line, _reason in REFUSALS.values()], ids=REFUSALS.keys())
def test_compose_refuses_it_as_well(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "prod.env").write_bytes(data)
    assert real_compose.config(tmp_path, {"s": {"image": "none"}}, ENVIRONMENT, tmp_path / "prod.env") is None


@pytest.mark.parametrize("data", [data for data, _line, _reason in IMPOSSIBLE.values()], ids=IMPOSSIBLE.keys())
def test_compose_makes_an_impossible_variable_of_it(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "prod.env").write_bytes(data)
    theirs = real_compose.config(tmp_path, {"s": {"image": "none", "env_file": ["prod.env"]}}, ENVIRONMENT)
    assert theirs is not None
    assert "" in theirs["s"] or "\0" in str(theirs["s"]["B"])


def test_what_is_printed_of_a_file_holds_no_value() -> None:
    file = parse(b"A=SECRET\nB='SECRET'\n")
    assert "SECRET" not in repr(file) + str(file) + repr(file.entries)


def test_an_entry_tells_where_and_how_it_stands() -> None:
    data = b"# c\n\nexport A = 'x\ny' # c\nB=1 C\nD=\"2\" E\nF=${A:-${B}}$B$$G '$H'\nI='$J'\n"
    file = parse(data)
    assert [(entry.key, entry.line, entry.quoting, entry.inherited, entry.raw_value) for entry in file.entries] == [
        ("A", 3, Quoting.SINGLE, False, "'x\ny'"),
        ("B", 5, Quoting.NONE, False, "1 C"),
        ("D", 6, Quoting.DOUBLE, False, '"2"'),
        ("E", 6, Quoting.NONE, True, ""),
        ("F", 7, Quoting.NONE, False, "${A:-${B}}$B$$G '$H'"),
        ("I", 8, Quoting.SINGLE, False, "'$J'"),
    ]
    assert all(file.text[entry.start : entry.end] == entry.raw_value for entry in file.entries)
    assert [references(entry) for entry in file.entries] == [(), (), (), (), ("A", "B", "H"), ()]
    assert [literal(entry) for entry in file.entries] == ["x\ny", "1 C", "2", None, None, "$J"]


def test_the_lines_of_a_variable_are_told() -> None:
    file = parse(b"A=1\nB='\n'\nA=2\n")
    assert (file.lines_of("A"), file.lines_of("B"), file.lines_of("C")) == ([1, 4], [2], [])
    assert file.keys == ["A", "B"]


@pytest.mark.parametrize(
    ("data", "crlf", "newline", "complete"),
    [
        (b"", False, "\n", True),
        (b"\xef\xbb\xbf", False, "\n", True),
        (b"A=1", False, "\n", False),
        (b"A=1\n", False, "\n", True),
        (b"A=1\r\nB=2", True, "\r\n", False),
        (b"A=1\r\nB=2\n", True, "\n", True),
    ],
)
def test_the_conventions_of_line_ends_are_told(data: bytes, crlf: bool, newline: str, complete: bool) -> None:
    file = parse(data)
    assert (file.has_crlf, file.newline, file.ends_with_newline) == (crlf, newline, complete)


def test_whose_values_follow_a_variable_is_told_through_other_variables_too() -> None:
    file = parse(b"OPS=${KEY}\nKEY=1\nURL=x://$OPS/\nCOPY='$KEY'\nE=${NO:-$KEY}\nF=$KEYS\nG=$$KEY\nKEY\n")
    assert file.referencing("KEY") == ["OPS", "URL", "E"]
    assert file.referencing("OPS") == ["URL"]
    assert file.referencing("F") == []


def test_references_in_a_circle_are_no_trouble() -> None:
    file = parse(b"A=$B\nB=$A\nC=$C\n")
    assert (file.referencing("A"), file.referencing("B"), file.referencing("C")) == (["B"], ["A"], [])


HEX = "0f" * 32

SETTINGS: dict[str, tuple[bytes, str, bytes]] = {
    "plain": (b"A=1\nK=old\nB=2\n", "new", b"A=1\nK=new\nB=2\n"),
    "the same": (b'K="new"\n', "new", b'K="new"\n'),
    "the same, in another way": (rb'K="n\145w$$"' + b"\n", "n\\145w$", rb'K="n\145w$$"' + b"\n"),
    "missing last newline": (b"K=old", "new", b"K=new"),
    "CRLF": (b"A=1\r\nK=old\r\nB=2\r\n", "new", b"A=1\r\nK=new\r\nB=2\r\n"),
    "CRLF, empty": (b"K=\r\nB=2\r\n", "new", b"K=new\r\nB=2\r\n"),
    "CRLF, empty with blanks": (b"K = \t\r\nB=2\r\n", "new", b"K = \tnew\r\nB=2\r\n"),
    "byte order mark": (b"\xef\xbb\xbfK=old\n", "new", b"\xef\xbb\xbfK=new\n"),
    "export and blanks": (b"  export\tK = old \t\n", "new", b"  export\tK = new \t\n"),
    "YAML's separator": (b"K: old\n", "new", b"K: new\n"),
    "inline comment": (b"K=old   # K=old\n", "new", b"K=new   # K=old\n"),
    "single quotes": (b"K='old' # c\n", "new", b"K='new' # c\n"),
    "double quotes": (b'K="old"# c\n', "new", b'K="new"# c\n'),
    "to empty": (b"K=old\n", "", b"K=\n"),
    "to empty before a comment": (b"K=old # c\n", "", b"K='' # c\n"),
    "from empty quotes": (b"K=''\n", HEX, b"K='" + HEX.encode() + b"'\n"),
    "many lines to one": (b"K='1\n2\n3'\nB=2\n", HEX, b"K='" + HEX.encode() + b"'\nB=2\n"),
    "comments and other values that look alike": (
        b"# K=old\nKK=old\nK_=old\nB=old\nK=old\nC='\nK=old\n'\n",
        "new",
        b"# K=old\nKK=old\nK_=old\nB=old\nK=new\nC='\nK=old\n'\n",
    ),
    "bytes that are not UTF-8 elsewhere": (
        b"# \xff\xfe\nA=\xe2\x82\nK=old\n",
        "new",
        b"# \xff\xfe\nA=\xe2\x82\nK=new\n",
    ),
    "a NUL elsewhere": (b"A=\0\nK=old\n", "new", b"A=\0\nK=new\n"),
    "something on the same line": (b"A='1' K='old' B=2\n", "new", b"A='1' K='new' B=2\n"),
    "a reference": (b"K=${OTHER:-x}\n", "new", b"K=new\n"),
    "dollar in plain": (b"K=old # c\n", "a$b", b"K='a$b' # c\n"),
    "dollar in single quotes": (b"K='old'\n", "a$b", b"K='a$b'\n"),
    "dollar in double quotes": (b'K="old"\n', "a$b", b"K='a$b'\n"),
    "space and hash": (b"K=old\n", "a #b", b"K='a #b'\n"),
    "quote at the start": (b"K=old\n", "'a", b'K="\'a"\n'),
    "single quote in single quotes": (b"K='old'\n", "it's", b'K="it\'s"\n'),
    "both quotes, dollar and backslash": (b"K=old\n", "'\"$\\", b'K="\'\\"\\$\\\\"\n'),
    "backslash at the end": (b"K='old'\n", "a\\", b'K="a\\\\"\n'),
    "backslash inside": (b"K=old\n", "a\\nb", b"K='a\\nb'\n"),
    "line end in the value": (b"K=old\r\n", "a\r\nb", b'K="a\\r\\nb"\r\n'),
    "letters beyond ASCII": (b"K=old\n", "pä", "K='pä'\n".encode()),
}


@pytest.mark.parametrize(("before", "value", "after"), SETTINGS.values(), ids=SETTINGS.keys())
def test_a_value_is_set_and_every_other_byte_is_kept(before: bytes, value: str, after: bytes) -> None:
    assert set_values(before, {"K": value}) == after
    [entry] = parse(after).of("K")
    assert literal(entry) == value


def test_several_values_are_set_at_once() -> None:
    data = b'A=1 # a\nB="2"\nC=3'
    assert set_values(data, {"C": "three", "A": "x y"}) == b"A='x y' # a\nB=\"2\"\nC=three"
    assert set_values(data, {}) == data


@pytest.mark.parametrize(
    ("data", "updates", "said"),
    [
        (b"A=1\nK=1\nB=2\nK=2\n", {"K": "x"}, "K stands more than once in the env file (lines 2, 4)"),
        (b"A=1\n", {"K": "x"}, "K is not in the env file"),
        (b"# K=1\nKK=1\n", {"K": "x"}, "K is not in the env file"),
        (b"A=1\nK\n", {"K": "x"}, "Line 2 of the env file only names K"),
        (b"K=1\n", {"K": "a\0b"}, "The new value of K contains a NUL character"),
        (b"K=1\n", {"K": "a\udcffb"}, "The new value of K contains bytes that are not UTF-8"),
        (b"K=1\nB='\n", {"K": "x"}, "line 2 of the env file"),
        (b"A=1\n", {"A": "2", "K": "x"}, "K is not in the env file"),
    ],
)
def test_what_cannot_be_set_is_refused(data: bytes, updates: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput, match="Nothing was changed") as caught:
        set_values(data, updates)
    assert said in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"K=new\n"),
        (b"\xef\xbb\xbf", b"\xef\xbb\xbfK=new\n"),
        (b"A=1\n", b"A=1\nK=new\n"),
        (b"A=1", b"A=1\nK=new"),
        (b"A=1\r\n# c\r\n", b"A=1\r\n# c\r\nK=new\r\n"),
        (b"A=1\r\nB='2'", b"A=1\r\nB='2'\r\nK=new"),
        (b"# a comment to the end", b"# a comment to the end\nK=new"),
        (b"A=${NO:?m}\n", b"A=${NO:?m}\nK=new\n"),
        (b"K=old # c\n", b"K=new # c\n"),
    ],
)
def test_a_variable_that_is_absent_can_be_added(before: bytes, after: bytes) -> None:
    assert set_values(before, {"K": "new"}, append=True) == after


def test_several_variables_are_added_in_order() -> None:
    added = {"AI_PROVIDER": "kimi-local", "KIMI_LOCAL_ENDPOINT": "http://10.0.0.5:8000/v1", "NOTE": "a 'b' $c"}
    assert set_values(b"A=1\r\nB=2", added, append=True) == (
        b"A=1\r\nB=2\r\nAI_PROVIDER=kimi-local\r\nKIMI_LOCAL_ENDPOINT=http://10.0.0.5:8000/v1\r\nNOTE=\"a 'b' \\$c\""
    )


@pytest.mark.parametrize("name", ["", "A B", "1A", "A=B", "A-B", "A\n", "export A", "#A"])
def test_a_new_variable_needs_a_name_that_every_reader_takes(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be added"):
        set_values(b"A=1\n", {name: "x"}, append=True)


@pytest.mark.parametrize(
    ("value", "ways"),
    [
        (HEX, "none single double"),
        ("", "none single double"),
        ("a b", "none single double"),
        ("ab$cd", "single double"),
        ("a$$b", "single double"),
        ("a$", "none single double"),
        ("a #b", "single double"),
        ("a#b", "none single double"),
        (" a", "single double"),
        ("a\t", "single double"),
        ("a\nb", "single double"),
        ("'a", "single double"),
        ('"a"', "single double"),
        ("it's", "none single double"),
        ("a\\", "none double"),
        ("a\\'b", "none double"),
        ("a\\\\'b", "none single double"),
        ("a\0", ""),
        ("a\udcff", ""),
    ],
)
def test_whether_a_value_survives_is_told_for_each_quoting(value: str, ways: str) -> None:
    assert [quoting.value for quoting in Quoting if survives(value, quoting)] == ways.split()


def test_a_file_of_real_size_is_no_trouble() -> None:
    lines = [
        f"# comment {number}\nKEY_{number}='value {number}' # c\nREF_{number}=${{KEY_{number}}}"
        for number in range(3000)
    ]
    data = "\n".join(lines).encode()
    file: EnvFile = parse(data)
    assert len(file.entries) == 6000
    assert file.entries[-1].line == 9000
    assert set_values(data, {"KEY_2999": "x"}) == data.replace(b"'value 2999'", b"'x'")
