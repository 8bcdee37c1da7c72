# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Off-site: options and secrets, restic's words of several versions, and what no real server can be made to do."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.titan.ops.plugins.module_utils.backup import offsite, restic
from ansible_collections.titan.ops.plugins.module_utils.backup.fetch import fetch
from ansible_collections.titan.ops.plugins.module_utils.backup.offsite_options import OffsiteOptions, action_spec
from ansible_collections.titan.ops.plugins.module_utils.backup.offsite_run import perform
from ansible_collections.titan.ops.plugins.module_utils.backup.restic import Restic, ResticEffects, ResticFailed
from ansible_collections.titan.ops.plugins.module_utils.core.clock import Clock
from ansible_collections.titan.ops.plugins.module_utils.core.errors import InvalidInput, Mistaken, OpsError
from ansible_collections.titan.ops.plugins.module_utils.core.history import conclude
from ansible_collections.titan.ops.plugins.module_utils.core.progress import Progress
from ansible_collections.titan.ops.plugins.module_utils.core.redact import Redactor
from ansible_collections.titan.ops.tests.unit.test_backup_files import backup

# Answers each command by a script of its own; writes down what it was asked.
FAKE = """\
#!{python}
import json, os, pathlib, sys
here = pathlib.Path({here!r})
words = [word for word in sys.argv[1:] if word != "--no-cache"]
while words[0] == "-o":
    words = words[2:]
asked = {{"argv": sys.argv[1:], "words": words, "env": dict(os.environ), "cwd": os.getcwd()}}
with open(here / "asked", "a") as stream:
    stream.write(json.dumps(asked) + "\\n")
script = here / f"{{words[0]}}.py"
if script.exists():
    exec(script.read_text())
"""
SUMMARY = 'print(json.dumps({{"message_type": "summary", "snapshot_id": "ab12", "total_bytes_processed": {} }}))'


class Host:
    """A directory of backups, the files with secrets, and a restic that does what it is told."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.backups = home / "backups" / "db"
        self.backups.mkdir(parents=True)
        self.fake = home / "fake"
        self.fake.mkdir()
        command = self.fake / "restic"
        command.write_text(FAKE.format(python=sys.executable, here=str(self.fake)))
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.fake}:{os.environ['PATH']}")
        self.says("snapshots", "print('[]')")
        self.params: dict[str, Any] = {name: item.get("default") for name, item in action_spec().items()}
        self.params.update(repository="sftp:me@there:/titan", password_file=self.secret("password", "hunter22hunter22"))
        monkeypatch.setattr("socket.gethostname", lambda: "droplet")

    def secret(self, name: str, text: str, mode: int = 0o600) -> str:
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def says(self, command: str, script: str) -> None:
        (self.fake / f"{command}.py").write_text(script)

    def asked(self, command: str) -> list[dict[str, Any]]:
        file = self.fake / "asked"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [item for item in lines if item["words"][0] == command]

    def options(self, **changes: Any) -> OffsiteOptions:
        return OffsiteOptions.from_params({**self.params, **changes}, str(self.home), Redactor())

    def restic(self, cancelled: bool = False, **changes: Any) -> Restic:
        return Restic(self.options(**changes).repository, ResticEffects(Clock(), lambda: cancelled))

    def copy(self, **changes: Any) -> dict[str, Any]:
        return offsite.copy(self.options(**changes), self.restic(**changes), init=False, check_mode=False)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def whole(host: Host, name: str) -> int:
    """The bytes that restic reads of a backup and its manifest."""
    return sum((host.backups / entry).stat().st_size for entry in (name, f"{name}.manifest.json"))


# Options


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"repository": "ftp:somewhere"}, "is nowhere"),
        ({"repository": "titan"}, "is nowhere"),
        ({"repository": "sftp:me@there"}, "no host or no path"),
        ({"repository": "rest:https://me:secret@there/"}, "has a password in it"),
        ({"repository": "s3:https://there/bucket"}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"read_data_subset": "much"}, "read_data_subset cannot be"),
        ({"keep_daily": -1}, "0 or more"),
        ({"limit_upload": -1}, "0 or more"),
        ({"timeout": 0.0}, "from 1 to"),
        ({"connect_timeout": float("nan")}, "from 1 to"),
        ({"database": "a/b"}, "cannot be part of a file name"),
        ({"password_file": "/nowhere"}, "/nowhere does not exist"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(host: Host, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        host.options(**change)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
@pytest.mark.parametrize("option", ["password_file", "environment_file", "ssh_key"])
def test_a_secret_that_others_may_read_is_refused(host: Host, option: str, mode: int) -> None:
    with pytest.raises(InvalidInput, match=f"it has mode {mode:04o}"):
        host.options(**{option: host.secret("lax", "A=b", mode)})


def test_an_environment_file_is_read_as_people_write_it(host: Host) -> None:
    text = "# keys\n\nAWS_ACCESS_KEY_ID=AKIA123\nexport AWS_SECRET_ACCESS_KEY=\"a b=c'#\"\r\nB='x'\n"
    found = host.options(environment_file=host.secret("env", text)).repository.environment
    assert found == {"AWS_ACCESS_KEY_ID": "AKIA123", "AWS_SECRET_ACCESS_KEY": "a b=c'#", "B": "x"}
    with pytest.raises(InvalidInput, match="Line 2 of the environment file"):
        host.options(environment_file=host.secret("env", "A=b\nnonsense\n"))
    with pytest.raises(InvalidInput, match="sets RESTIC_PASSWORD"):
        host.options(environment_file=host.secret("env", "RESTIC_PASSWORD=x\n"))


@pytest.mark.parametrize(
    ("address", "begins"),
    [("sftp:me@there:/x", "ssh me@there "), ("sftp://me@there:2200//x", "ssh me@there -p 2200 ")],
)
def test_ssh_asks_nothing_and_accepts_no_new_host_key(host: Host, address: str, begins: str) -> None:
    known = host.secret("known hosts", "")
    (option,) = host.options(repository=address, known_hosts=known).repository.options
    assert option.startswith(f"sftp.command={begins}") and option.endswith(" -s sftp")
    assert "-o StrictHostKeyChecking=yes" in option and "-o BatchMode=yes" in option
    assert f"'UserKnownHostsFile={known}'" in option
    own = ["sftp.command=ssh me@there -s sftp"]
    assert host.options(repository=address, restic_options=own).repository.options == tuple(own)


def test_secrets_are_in_restics_environment_and_in_no_argument(host: Host) -> None:
    keys = host.secret("env", "AWS_ACCESS_KEY_ID=AKIAEXAMPLE\nAWS_SECRET_ACCESS_KEY=s3cr3ts3cr3t\n")
    assert host.restic(repository="s3:https://there/b", environment_file=keys).exists()
    (asked,) = host.asked("cat")
    assert asked["env"]["AWS_SECRET_ACCESS_KEY"] == "s3cr3ts3cr3t"
    assert asked["env"]["RESTIC_PASSWORD_FILE"] == host.params["password_file"] and asked["env"]["TZ"] == "UTC"
    assert not [word for word in asked["argv"] if "s3cr3t" in word or "AKIA" in word or "hunter" in word]


def test_what_restic_says_is_told_without_the_secrets(host: Host) -> None:
    keys = host.secret("env", "AWS_ACCESS_KEY_ID=AKIAEXAMPLE\nAWS_SECRET_ACCESS_KEY=s3cr3ts3cr3t\n")
    host.says("cat", "sys.exit('Fatal: strange words s3cr3ts3cr3t and AKIAEXAMPLE')")
    with pytest.raises(ResticFailed, match="strange words") as failed:
        host.restic(repository="s3:https://there/b", environment_file=keys).exists()
    assert "s3cr3t" not in str(failed.value) and "AKIA" not in str(failed.value)


# What restic says, as it was said


@pytest.mark.parametrize(
    ("code", "words", "cause"),
    [
        # 0.14.0
        (1, "Fatal: unable to open config file: Lstat: file does not exist\nIs there a repository at the", "absent"),
        (1, "Fatal: unable to open config file: Stat: The specified bucket does not exist\nIs there", "absent"),
        (
            1,
            'Fatal: unable to open config file: Stat: Get "http://s:9001/titan/?location=": dial tcp 10.2.1.3:9001:'
            " connect: connection refused\nIs there a repository at the following location?\ns3:http://s:9001/titan",
            "unreachable",
        ),
        (1, "Fatal: wrong password or no key found", "password"),
        (
            1,
            "subprocess ssh: No ED25519 host key is known for s and you have requested strict checking.\n"
            "subprocess ssh: Host key verification failed.\nFatal: unable to open repository at sftp:a@s:/x: unable to"
            " start the sftp session, error: EOF",
            "host_key",
        ),
        (
            1,
            "subprocess ssh: store@s: Permission denied (publickey).\nFatal: unable to open repository at sftp:a@s:/x:"
            " unable to start the sftp session, error: EOF",
            "refused",
        ),
        (1, 'Save(<data/bf>) returned error, retrying after 1s: Write: sftp: "Failure" (SSH_FX_FAILURE)', "full"),
        # 0.18.0
        (10, "Fatal: repository does not exist: unable to open config file: Lstat /s: file does not exist", "absent"),
        (12, "Fatal: wrong password or no key found", "password"),
        (1, "Save(<data/9f>) failed: sftp: no space left on device", "full"),
        (
            1,
            "subprocess ssh: Connection to s closed by remote host.\nssh command exited: exit status 255",
            "unreachable",
        ),
        (
            1,
            "Remove(<lock/c2>) failed: ssh command exited: 255\nunable to create lock in backend: ssh command exited",
            "unreachable",
        ),
        (11, "unable to create lock in backend: repository is already locked by PID 7 on h by root", "locked"),
        (1, "Fatal: client.BucketExists: Access Denied.", "refused"),
        (1, "pack 9fc0: does not match id\nFatal: repository contains errors", "damaged"),
        # a version to come
        (10, "Fatal: other words", "absent"),
        (77, "Fatal: other words", ""),
    ],
)
def test_restics_words_have_a_cause(host: Host, code: int, words: str, cause: str) -> None:
    host.says("snapshots", f"print({words!r}, file=sys.stderr); sys.exit({code})")
    with pytest.raises(ResticFailed) as failed:
        host.restic().snapshots(20)
    assert failed.value.cause == cause


@pytest.mark.parametrize("handed_on", ["", "subprocess ssh: @@@@@@@@@@@\n"])
def test_ssh_is_asked_when_restic_has_not_handed_its_words_on(host: Host, handed_on: str) -> None:
    """On a busy host restic ends first; without ssh's words every fault would be the same."""
    words = (
        f"{handed_on}Fatal: unable to open repository at sftp:me@there:/x: unable to start the sftp session, error: EOF"
    )
    host.says("cat", f"sys.exit({words!r})")
    ssh = host.fake / "ssh"
    ssh.write_text("#!/bin/sh\necho 'Host key verification failed.' >&2\nexit 255\n")
    ssh.chmod(0o755)
    with pytest.raises(ResticFailed, match="host key of the server is unknown"):
        host.restic().exists()


def test_an_excerpt_of_restics_words_ends_and_begins_with_whole_ones(host: Host) -> None:
    """Whole lines where they fit, else whole words; the dots say that there was more."""

    def told(words: str) -> str:
        host.says("cat", f"sys.exit({words!r})")
        with pytest.raises(ResticFailed) as failed:
            host.restic().exists()
        return str(failed.value).partition("exit code 1: ")[2]

    assert told("strange\n[0:05] 45.00%  9 / 20 packs\nwords") == "strange | words."
    line = " ".join(f"word{number}" for number in range(30))
    assert told("\n".join([line, line, "Fatal: the reason"])) == f"... | {line} | Fatal: the reason."
    said = told(f"{line} {line} {line}: the reason")
    assert said.startswith("... word") and said.endswith(" word28 word29: the reason.") and len(said) <= 405
    assert set(said[4:].rstrip(".").split()) <= {*line.split(), "word29:", "the", "reason"}
    assert len(told("x" * 1000)) == 405


def test_words_in_the_name_of_a_file_are_no_cause(host: Host) -> None:
    """Its lines of progress name the files that it reads; a label may be any word."""
    name = "titan_brain_2026-02-06T020000Z_EOF.sql"
    backup(host.backups, name)
    status = json.dumps({"message_type": "status", "percent_done": 0, "current_files": [f"/{name}"]})
    error = '{"message_type":"exit_error","code":1,"message":"Fatal: strange words"}'
    host.says("backup", f"print({status!r}, flush=True); sys.exit({error!r})")
    with pytest.raises(OpsError, match="failed with exit code 1: Fatal: strange words") as failed:
        host.copy()
    assert failed.value.facts["cause"] == ""


def test_a_password_is_not_an_absent_repository(host: Host) -> None:
    host.says("cat", "print('Fatal: wrong password or no key found', file=sys.stderr); sys.exit(1)")
    with pytest.raises(ResticFailed, match="the password is not the repository's"):
        host.copy()
    assert not host.asked("init")


def test_what_restic_would_repeat_for_a_quarter_of_an_hour_ends_at_once(host: Host) -> None:
    """Had it been left alone, it would have said something else in the end."""
    words = "Stat(<config/>) returned error, retrying after 1s: Stat: The specified bucket does not exist"
    later = "time.sleep(20); sys.stderr.truncate(0); sys.exit('Fatal: wrong password or no key found')"
    host.says("cat", f"import time; print({words!r}, file=sys.stderr, flush=True); {later}")
    assert not host.restic(connect_timeout=600.0).exists()


def test_a_server_that_does_not_answer_is_told_after_the_time_given(host: Host) -> None:
    host.says("cat", "import time; time.sleep(600)")
    with pytest.raises(ResticFailed, match="did not end within 1 seconds"):
        host.restic(connect_timeout=1.0).exists()


def test_a_request_to_end_ends_restic_with_the_signal_that_lets_it_unlock(host: Host) -> None:
    host.says(
        "check",
        "import signal, time\n"
        "def ended(*_): (here / 'ended').touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, ended); (here / 'began').touch(); time.sleep(600)",
    )

    class Asked:
        def __call__(self) -> bool:
            return (host.fake / "began").exists()

    with pytest.raises(restic.Cancelled):
        Restic(host.options().repository, ResticEffects(Clock(), Asked())).check("", 600)
    assert (host.fake / "ended").exists()


@pytest.mark.parametrize("verb", ["prune", "backup"])
def test_only_a_stale_lock_is_removed_and_the_command_tried_once_more(host: Host, verb: str) -> None:
    def call() -> None:
        if verb == "prune":
            host.restic().prune(20)
        else:
            host.restic().backup("/", ["etc"], host="h", time="2026-02-06 02:00:00", tags={}, timeout=20)

    locked = "print('Fatal: repository is already locked by PID 7', file=sys.stderr); sys.exit(1)"
    host.says(verb, f"if not (here / 'free').exists():\n    {locked}")
    host.says("unlock", "(here / 'free').touch()")
    call()
    assert [item["words"] for item in host.asked("unlock")] == [["unlock"]]
    (host.fake / "free").unlink()
    host.says("unlock", "")
    with pytest.raises(ResticFailed, match="another process has locked"):
        call()
    assert len(host.asked(verb)) == 4


def test_a_host_without_restic_is_told_how_to_get_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InvalidInput, match="restic is not installed"):
        host.restic().exists()


def test_a_full_tmp_is_an_error_in_words(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OpsError, match="copy off-site could not go on: No space left on device"):
        perform({**host.params, "action": "copy"}, str(host.home), ResticEffects(Clock()), check_mode=False)


# Copying


def test_a_backup_travels_with_its_manifest_and_says_what_it_is(host: Host) -> None:
    backup(host.backups, "titan_brain_2026-02-06.sql", verified="2026-02-07T00:00:00Z")
    host.says("backup", SUMMARY.format(whole(host, "titan_brain_2026-02-06.sql")))
    told = host.copy(limit_upload=50)
    assert told["copied"] == ["titan_brain_2026-02-06.sql"] and told["present"] == 1
    (asked,) = host.asked("backup")
    words = asked["words"]
    assert words[words.index("--") + 1 :] == ["titan_brain_2026-02-06.sql", "titan_brain_2026-02-06.sql.manifest.json"]
    assert asked["cwd"] == str(host.backups)
    tags = {words[index + 1] for index, word in enumerate(words) if word == "--tag"}
    assert {"titan.ops", "database=titan_brain", "backup=titan_brain_2026-02-06.sql", "verified"} <= tags
    assert words[words.index("--time") + 1] == "2026-02-06 02:00:00" and "--limit-upload=50" in words


@pytest.mark.parametrize("read", [0, 4])
def test_a_snapshot_that_lacks_a_part_is_forgotten_and_no_success(host: Host, read: int) -> None:
    """restic leaves out a file that it does not find, and ends with 0."""
    backup(host.backups, "titan_brain_2026-02-06.sql")
    host.says("backup", SUMMARY.format(read))
    with pytest.raises(OpsError, match=f"restic has read {read} bytes of it instead of") as failed:
        host.copy()
    assert failed.value.facts["missing"] == ["titan_brain_2026-02-06.sql"]
    assert [item["words"] for item in host.asked("forget")] == [["forget", "--", "ab12"]]


@pytest.mark.parametrize("gone", [False, True])
def test_a_snapshot_of_what_could_not_be_read_is_forgotten(host: Host, gone: bool) -> None:
    """restic ends with 3, and keeps it. A backup that the retention has taken meanwhile is no failure; others go on."""
    path = backup(host.backups, "titan_brain_2026-02-06.sql")
    other = backup(host.backups, "titan_brain_2026-02-05.sql", started="2026-02-05T02:00:00Z")
    unreadable = f"os.remove({str(path)!r})" if gone else "pass"
    host.says(
        "backup",
        f"bad = {path.name!r} in words\n{SUMMARY.format(whole(host, other.name))}\nif bad:\n    {unreadable}\n"
        "    sys.exit(print('Warning: at least one source file could not be read', file=sys.stderr) or 3)",
    )
    if gone:
        told = host.copy()
        assert told["copied"] == [other.name] and "was removed by the retention" in told["warnings"][0]
    else:
        with pytest.raises(offsite.Unfit, match="at least one source file could not be read") as failed:
            host.copy()
        assert failed.value.facts["copied"] == [other.name] and failed.value.facts["missing"] == [path.name]
    assert [item["words"] for item in host.asked("forget")] == [["forget", "--", "ab12"]]


def test_a_drill_that_marks_the_manifest_meanwhile_is_no_failure(host: Host) -> None:
    path = backup(host.backups, "titan_brain_2026-02-06.sql")
    file = f"{path}.manifest.json"
    host.says(
        "backup",
        f"with open({file!r}, 'a') as stream: stream.write(' ' * 18)\n" + SUMMARY.format(whole(host, path.name) + 18),
    )
    assert host.copy()["copied"] == [path.name] and not host.asked("forget")


def test_a_backup_that_the_retention_takes_meanwhile_is_no_failure(host: Host) -> None:
    path = backup(host.backups, "titan_brain_2026-02-06.sql")
    host.says("backup", f"os.remove({str(path)!r})\n" + SUMMARY.format(10))
    told = host.copy()
    assert told["copied"] == [] and "was removed by the retention" in told["warnings"][0]
    assert host.asked("forget")


def test_what_the_policy_would_forget_at_once_is_not_sent(host: Host) -> None:
    for day in (1, 2, 3):
        backup(host.backups, f"titan_brain_2026-02-0{day}.sql", started=f"2026-02-0{day}T02:00:00Z")
    policy = {"keep_daily": 2, "keep_weekly": 0, "keep_monthly": 0}
    options = host.options(**policy)
    told = offsite.copy(options, host.restic(**policy), init=False, check_mode=True)
    assert told["copied"] == ["titan_brain_2026-02-03.sql", "titan_brain_2026-02-02.sql"]


def test_another_host_having_a_backup_of_this_name_does_not_count(host: Host) -> None:
    path = backup(host.backups, "titan_brain_2026-02-06.sql")
    sha = json.loads(path.with_name(f"{path.name}.manifest.json").read_text())["sha256"]
    tags = ["titan.ops", "database=titan_brain", f"backup={path.name}", f"sha256={sha}"]
    found = {"id": "ab12", "hostname": "another", "time": "2026-02-06T02:00:00Z", "tags": tags}
    for hostname, missing in (("another", [path.name]), ("droplet", [])):
        host.says("snapshots", f"print(json.dumps([{dict(found, hostname=hostname)!r}]))")
        told = offsite.copy(host.options(), host.restic(), init=False, check_mode=True)
        assert told["copied"] == missing, hostname


def listed(
    backup_name: str, sha256: str, *, host: str = "droplet", ident: str = "ab12cd34", day: int = 6
) -> dict[str, Any]:
    """A snapshot of ours, as restic lists it."""
    tags = ["titan.ops", "database=titan_brain", f"backup={backup_name}", f"sha256={sha256}"]
    return {"id": ident, "hostname": host, "time": f"2026-02-{day:02}T02:00:00Z", "tags": tags}


def test_a_list_tells_how_old_each_is_and_its_time_in_utc_whatever_restic_says(host: Host) -> None:
    found = dict(listed("titan_brain_2026-02-06.sql", "0"), time="2026-02-06T03:00:00.25+01:00")
    host.says("snapshots", f"print(json.dumps([{found!r}]))")
    mine = offsite.of_database(host.restic().snapshots(9), "titan_brain")
    (told,) = offsite.listed(mine, 1770386592.0)
    assert (told["time"], told["age_seconds"]) == ("2026-02-06T02:00:00Z", 43392)


@pytest.mark.parametrize("there", [True, False])
def test_a_damaged_backup_of_which_the_repository_has_a_good_copy_can_be_got_back(host: Host, there: bool) -> None:
    path = backup(host.backups, "titan_brain_2026-02-06.sql")
    sha = json.loads(path.with_name(f"{path.name}.manifest.json").read_text())["sha256"]
    path.write_bytes(b"dum")
    found = listed(path.name, sha if there else "0" * 64)
    host.says("snapshots", f"print(json.dumps([{found!r}]))")
    (warning,) = host.copy()["warnings"]
    assert f"{path.name} is damaged" in warning and "it has 3 bytes" in warning
    assert ("The repository has a good copy" in warning) == there
    assert (f"state=absent name={path.name}" in warning) == there
    assert (f"fetch_backup.yml -e backup={path.name}" in warning) == there
    assert ("stays out of the repository" in warning) != there


def test_of_a_copy_of_one_that_a_drill_proved_bad_nobody_says_that_it_is_good(host: Host) -> None:
    path = backup(host.backups, "titan_brain_2026-02-06.sql", damaged="2026-02-07T00:00:00Z")
    sha = json.loads(path.with_name(f"{path.name}.manifest.json").read_text())["sha256"]
    host.says("snapshots", f"print(json.dumps([{listed(path.name, sha)!r}]))")
    (warning,) = host.copy()["warnings"]
    assert "a drill proved it bad at 2026-02-07T00:00:00Z" in warning and "may be so, too" in warning
    assert "good copy" not in warning


@pytest.mark.parametrize(("made", "good", "changed"), [(False, 0, False), (False, 1, True), (True, 0, True)])
def test_a_copy_that_fails_says_what_it_has_changed(host: Host, made: bool, good: int, changed: bool) -> None:
    rotten = backup(host.backups, "titan_brain_2026-02-06.sql")
    rotten.write_bytes(b"dumq")
    for _number in range(good):
        name = backup(host.backups, "titan_brain_2026-02-05.sql", started="2026-02-05T02:00:00Z").name
        host.says("backup", SUMMARY.format(whole(host, name)))
    if made:
        host.says("cat", "print('Fatal: unable to open config file: Lstat: file does not exist'); sys.exit(1)")
    with pytest.raises(OpsError, match="the file is damaged") as failed:
        offsite.copy(host.options(), host.restic(), init=made, check_mode=False)
    assert bool(host.asked("init")) == made and len(failed.value.facts["copied"]) == good
    assert failed.value.facts.get("changed", False) == changed
    assert "as they were" in str(failed.value) and "whole" not in str(failed.value)


def three(host: Host) -> tuple[str, str, str]:
    """A good backup between two that are damaged, newest first; restic copies what it gets."""
    names = [
        backup(host.backups, f"titan_brain_2026-02-0{day}.sql", started=f"2026-02-0{day}T02:00:00Z").name
        for day in (3, 2, 1)
    ]
    host.says("backup", SUMMARY.format(whole(host, names[1])))
    for name in (names[0], names[2]):
        (host.backups / name).write_bytes(b"dumq")
    return names[0], names[1], names[2]


def test_a_damaged_backup_keeps_no_other_one_back_and_all_of_them_are_named(host: Host) -> None:
    new, good, old = three(host)
    with pytest.raises(offsite.Unfit) as failed:
        host.copy()
    assert failed.value.facts["copied"] == [good] and failed.value.facts["missing"] == [new, old]
    assert failed.value.facts["cause"] == "backup"
    ended = conclude("backup_offsite", failed.value, started=0, seconds=0, who={})
    assert ended.result == "failed" and ended.counts and ended.error
    assert ended.error.startswith("2 backups were not copied off-site") and new in ended.error and old in ended.error
    said = str(failed.value)
    assert f"state=absent name={new}" in said and f"state=absent name={old}" in said
    assert "The next run copies" not in said, "it never will"


def test_a_repository_that_fails_is_the_reason_whatever_was_damaged_before(host: Host) -> None:
    new, good, old = three(host)
    host.says("backup", "sys.exit('ssh command exited: exit status 255')")
    with pytest.raises(
        OpsError, match=f"2 backups were not copied off-site: {good} .*the connection broke.*, {new}"
    ) as failed:
        host.copy()
    assert not isinstance(failed.value, offsite.Unfit) and failed.value.facts["cause"] == "unreachable"
    assert failed.value.facts["missing"] == [new, good, old] and "The next run copies" in str(failed.value)


def test_a_request_to_end_is_no_fault_of_the_backup_that_is_being_read(host: Host) -> None:
    """Nothing else is begun then."""
    backup(host.backups, "titan_brain_2026-02-06.sql")
    progress = Progress()
    effects = ResticEffects(Clock(), lambda: "computing the sha256" in progress.line(), progress=progress)
    with pytest.raises(OpsError, match="was asked to end") as failed:
        offsite.copy(host.options(), Restic(host.options().repository, effects), init=False, check_mode=False)
    assert not isinstance(failed.value, offsite.Unfit) and not host.asked("backup")


# Bringing back


def test_no_name_at_all_is_not_taken_for_the_newest(host: Host) -> None:
    host.says("snapshots", f"print(json.dumps([{listed('titan_brain_2026-02-06.sql', '0')!r}]))")
    for name in ("", " "):
        with pytest.raises(InvalidInput, match="No backup was named") as refused:
            fetch(host.options(), host.restic(), name=name)
        assert "latest" in str(refused.value)
    assert fetch(host.options(), host.restic(), name="latest", check_mode=True)["changed"]


@pytest.mark.parametrize(
    ("there", "name", "slip"),
    [
        (True, "titan_brain_2026-02-07.sql", True),
        (True, "99998888", True),
        (True, " ", True),
        (False, "titan_brain_2026-02-07.sql", True),
        (False, "latest", False),
    ],
)
def test_a_name_of_what_is_not_there_is_a_slip_and_no_failure_in_the_metrics(
    host: Host, there: bool, name: str, slip: bool
) -> None:
    """That there is nothing at all to bring back is no slip of whoever asks for the newest."""
    found = [listed("titan_brain_2026-02-06.sql", "0")] * there
    host.says("snapshots", f"print(json.dumps({found!r}))")
    with pytest.raises(InvalidInput) as refused:
        fetch(host.options(), host.restic(), name=name)
    assert isinstance(refused.value, Mistaken) == slip
    ended = conclude("backup_offsite_fetch", refused.value, started=0, seconds=0, who={})
    assert (ended.result, ended.counts) == ("failed", not slip)


def test_a_hostname_that_was_given_is_never_exchanged_for_another(host: Host) -> None:
    """By default it is: after a disaster the host may bear another name."""
    name = "titan_brain_2026-02-06.sql"
    found = [listed(name, "0", host=other, ident=f"{other}-abcdef") for other in ("one", "two")]
    host.says("snapshots", f"print(json.dumps({found!r}))")
    for wanted in ("latest", name):
        with pytest.raises(InvalidInput, match="no backup of titan_brain of the host newhost") as refused:
            fetch(host.options(hostname="newhost"), host.restic(), name=wanted, check_mode=True)
        assert "one, two" in str(refused.value)
        assert fetch(host.options(hostname="two"), host.restic(), name=wanted, check_mode=True)["hostname"] == "two"
    # An id says whose it is.
    told = fetch(host.options(hostname="newhost"), host.restic(), name="one-abcd", check_mode=True)
    assert told["hostname"] == "one"
    with pytest.raises(
        InvalidInput, match=r"There is no backup 'titan_brain_2026-02-07\.sql' of titan_brain of the host two"
    ):
        fetch(host.options(hostname="two"), host.restic(), name="titan_brain_2026-02-07.sql", check_mode=True)
    host.says("snapshots", f"print(json.dumps({found[:1]!r}))")
    for default in (None, ""):
        told = fetch(host.options(hostname=default), host.restic(), check_mode=True)
        assert told["hostname"] == "one"


def test_a_name_that_several_different_backups_bear_is_not_enough(host: Host) -> None:
    name = "titan_brain_2026-02-06.sql"

    def look(*found: dict[str, Any], wanted: str = name) -> str:
        host.says("snapshots", f"print(json.dumps({list(found)!r}))")
        return str(fetch(host.options(), host.restic(), name=wanted, check_mode=True)["snapshot"])

    old, new = listed(name, "0", ident="11112222aa", day=6), listed(name, "1", ident="33334444bb", day=7)
    for host_of in ("droplet", "old-droplet"):
        both = [dict(item, hostname=host_of) for item in (old, new)]
        with pytest.raises(InvalidInput, match="different backups") as refused:
            look(*both)
        for part in ("11112222", "33334444", "2026-02-06T02:00:00Z", "2026-02-07T02:00:00Z", host_of):
            assert part in str(refused.value)
        assert look(*both, wanted="11112222") == "11112222aa" and look(*both, wanted="33334444") == "33334444bb"
        assert look(*both, wanted="latest") == "33334444bb"
    # This host's own goes before another's, and the same one twice is one.
    assert look(old, dict(new, hostname="another")) == "11112222aa"
    assert look(old, listed(name, "0", ident="33334444bb", day=7)) == "33334444bb"


def test_names_that_are_paths_are_refused(host: Host) -> None:
    tags = ["titan.ops", "database=titan_brain", "backup=../../etc/x.sql", "sha256=0"]
    found = {"id": "ab12cd34", "hostname": "droplet", "time": "2026-02-06T02:00:00Z", "tags": tags}
    host.says("snapshots", f"print(json.dumps([{found!r}]))")
    with pytest.raises(InvalidInput, match="impossible name"):
        fetch(host.options(), host.restic())
    assert not host.asked("restore")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: backups are root's")
@pytest.mark.parametrize("name", ["titan_brain_2026-02-06.sql", "titan_brain_2026-02-06.dir"])
def test_what_comes_back_is_the_backup_or_nothing(host: Host, name: str) -> None:
    path = backup(host.backups, name)
    sha = json.loads(path.with_name(f"{name}.manifest.json").read_text())["sha256"]
    away = host.home / "away"
    away.mkdir()
    for entry in (name, f"{name}.manifest.json"):
        (host.backups / entry).rename(away / entry)
    tags = ["titan.ops", "database=titan_brain", f"backup={name}", f"sha256={sha}"]
    found = {"id": "ab12cd34", "hostname": "old-droplet", "time": "2026-02-06T02:00:00Z", "tags": tags}
    host.says("snapshots", f"print(json.dumps([{found!r}]))")
    restore = f"import shutil; shutil.copytree({str(away)!r}, words[words.index('--target') + 1], dirs_exist_ok=True)"
    file = "toc.dat" if name.endswith(".dir") else ""
    spoil = f"\nf = pathlib.Path(words[words.index('--target') + 1]) / {name!r} / {file!r}; f.write_bytes(b'dumq')"
    host.says("restore", restore + spoil)
    with pytest.raises(OpsError, match="is not the backup"):
        fetch(host.options(), host.restic())
    assert list(host.backups.iterdir()) == []
    host.says("restore", restore)
    told = fetch(host.options(), host.restic(), name="ab12cd34")
    assert told["changed"] and told["hostname"] == "old-droplet" and path.exists()
    assert sorted(entry.name for entry in host.backups.iterdir()) == [name, f"{name}.manifest.json"]
    assert not fetch(host.options(), host.restic())["changed"]
