# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups off-site on real servers: what lies there is proved by restic's own command, without any of our code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from droplet import Droplet, changes, words
from storage import (
    DIRECTORY,
    METRICS,
    NAME,
    OPTIONS,
    S3,
    SCRIPT,
    SECRETS,
    SFTP,
    backups,
    history,
    metric,
    restic,
    slow_copy,
    snapshots,
    storage,
    stored,
    wait_gone,
)

SUCCESS = "titan_backup_offsite_last_success_timestamp_seconds"
CHECKED = "titan_backup_offsite_last_checked_timestamp_seconds"


@pytest.fixture(scope="session")
def droplet() -> Droplet:
    return Droplet("molecule/offsite/inventory")


@pytest.fixture(scope="module", autouse=True)
def scheduled(droplet: Droplet) -> None:
    """backup_db.sh knows the repository."""
    changes(droplet.playbook("schedule_backups"))


@pytest.fixture(autouse=True)
def tidy(droplet: Droplet) -> Iterator[None]:
    """No test leaves a process, a file that is half a backup, a cache, or a lock in the repository."""
    yield
    wait_gone(droplet, "restic --no-cache")
    assert not [name for name in backups(droplet) if name.startswith(".")]
    assert droplet.sh("ls -d /root/.cache/restic /tmp/restic* 2>/dev/null || true") == ""
    assert restic(droplet, "list", "locks") == ""


def assert_same(droplet: Droplet, repository: str = SFTP) -> None:
    """restic's own restore of every snapshot gives the very bytes that its tags, its manifest and the host have."""
    for item in snapshots(droplet, "--tag", "titan.ops", repository=repository):
        tags = dict(tag.partition("=")[::2] for tag in item["tags"])
        droplet.sh("rm -rf /root/aside")
        restic(droplet, "restore", item["id"], "--target", "/root/aside", repository=repository)
        sha = droplet.sh(f"sha256sum /root/aside/{tags['backup']}").split()[0]
        record = json.loads(droplet.sh(f"cat /root/aside/{tags['backup']}.manifest.json"))
        assert sha == tags["sha256"] == record["sha256"] and record["name"] == tags["backup"]
        assert droplet.sh("ls -A /root/aside | wc -l").strip() == "2"
        if tags["backup"] in backups(droplet):
            droplet.sh(f"cmp /root/aside/{tags['backup']} {DIRECTORY}/{tags['backup']}; rm -rf /root/aside")
    droplet.sh("rm -rf /root/aside")


# What is promised


def test_what_was_there_before_the_repository_lies_in_it(droplet: Droplet) -> None:
    """converge has made the repository and copied."""
    assert stored(droplet) == backups(droplet) != set()
    assert_same(droplet)


def test_a_backup_is_copied_at_once_by_the_playbook_and_by_the_command(droplet: Droplet) -> None:
    assert changes(droplet.playbook("backup", "-e", "label=before_release")) == 2
    said = droplet.sh(f"{SCRIPT} by_hand")
    (name,) = [item for item in backups(droplet) if item.endswith("by_hand.sql")]
    assert f"copied off-site: {name}" in said
    assert stored(droplet) == backups(droplet)
    assert_same(droplet)
    assert (history(droplet)["operation"], history(droplet)["copied"]) == ("backup_offsite", 1)
    assert abs(metric(droplet, SUCCESS) - float(droplet.sh("date +%s"))) < 60


def test_a_second_run_sends_nothing_and_says_so(droplet: Droplet) -> None:
    before = snapshots(droplet)
    told = droplet.module("db_offsite", **OPTIONS)
    assert (told["failed"], told["changed"], told["copied"], told["added_bytes"]) == (False, False, [], 0)
    assert snapshots(droplet) == before


def test_only_what_is_whole_and_ours_is_copied(droplet: Droplet) -> None:
    """A file made by hand stays out; a damaged one stays out, is named, and keeps nothing else from being done."""
    droplet.sh(f"echo SELECT 1 > {DIRECTORY}/by_hand.sql")
    made = [droplet.module("db_backup", label=label)["name"] for label in ("good", "rotten")]
    droplet.sh(f"printf X | dd of={DIRECTORY}/{made[1]} bs=1 seek=1000 conv=notrunc status=none")
    told = droplet.module("db_offsite", **OPTIONS)
    lines = int(droplet.sh("wc -l < /opt/titan/logs/ops.jsonl"))
    begun = float(droplet.sh("date +%s"))
    played = droplet.playbook("backup_offsite")
    checked = metric(droplet, CHECKED, f"{METRICS[:-5]}_check.prom")
    run = droplet.host.run(f"{SCRIPT} --offsite")
    added = [json.loads(line) for line in droplet.sh(f"tail -n +{lines + 1} /opt/titan/logs/ops.jsonl").splitlines()]
    droplet.sh(f"rm {DIRECTORY}/by_hand.sql {DIRECTORY}/{made[1]}*")
    for text in (words(played), run.stdout + run.stderr):
        assert f"{made[1]} was not copied off-site" in text, text
    assert played.returncode == 2 and "The repository was checked and is whole" in words(played), words(played)
    assert checked >= begun
    assert run.rc == 3 and "checked off-site: the repository is whole" in run.stdout, run.stderr
    failures = [(line["operation"], line["result"]) for line in added if line["operation"] == "backup_offsite"]
    assert failures == [("backup_offsite", "failed")] * 2
    assert metric(droplet, "titan_operation_last_success") == 0
    assert told["failed"] and f"{made[1]} was not copied off-site" in told["msg"] and "damaged" in told["msg"]
    assert (told["copied"], told["missing"]) == ([made[0]], [made[1]])
    assert made[0] in stored(droplet) and not {made[1], "by_hand.sql"} & stored(droplet)


def test_a_backup_comes_back_after_the_host_has_lost_it(droplet: Droplet, unchanged: None) -> None:
    """The playbook brings the newest one, the very bytes, with its manifest, for root alone."""
    newest = snapshots(droplet, "--tag", "titan.ops")[-1]
    name = next(tag for tag in newest["tags"] if tag.startswith("backup="))[7:]
    droplet.sh(f"mkdir /root/lost; cp -p {DIRECTORY}/{name}* /root/lost; rm {DIRECTORY}/{name}*")
    assert changes(droplet.playbook("fetch_backup", "--check")) == 1
    assert name not in backups(droplet)
    done = droplet.playbook("fetch_backup")
    assert changes(done) == 1 and f"{name} was brought and is what its manifest says" in words(done)
    droplet.sh(f"cmp /root/lost/{name} {DIRECTORY}/{name}; cmp /root/lost/{name}.* {DIRECTORY}/{name}.manifest.json")
    assert droplet.sh(f"stat -c '%U %a' {DIRECTORY}/{name}*").split() == ["root", "600"] * 2
    assert changes(droplet.playbook("fetch_backup", "-e", f"backup={name}")) == 0
    droplet.sh("rm -rf /root/lost")
    (seen,) = [item for item in droplet.module("db_backup_info", checksums=True)["backups"] if item["name"] == name]
    assert seen["state"] == "good"


def test_the_list_shows_what_is_there_and_fails_where_it_cannot_be_seen(droplet: Droplet, unchanged: None) -> None:
    done = droplet.playbook("list_backups")
    assert changes(done) == 0
    here, there = done.stdout.split(f"Off-site, {SFTP}")
    for name in stored(droplet):
        assert name in there
    for name in backups(droplet):
        assert name in here
    for item in snapshots(droplet, "--tag", "titan.ops"):
        assert item["id"][:8] in there
    done = droplet.playbook("list_backups", "-e", "backup_offsite_ssh_key=/etc/titan-ops/nowhere.key")
    said = words(done)
    assert done.returncode != 0 and "NOT READ: " in said and "What is off-site could not be listed. " in said, said
    assert all(name in said for name in backups(droplet))


def test_a_restore_takes_one_straight_from_there(droplet: Droplet) -> None:
    """Without a confirmation it is brought and shown only; with one it takes the database's place."""
    newest = snapshots(droplet, "--tag", "titan.ops")[-1]
    name = next(tag for tag in newest["tags"] if tag.startswith("backup="))[7:]
    ident = (
        'docker exec titan-postgres psql -XAtU titan -d titan_brain -c "SELECT oid FROM pg_database WHERE datname = '
    )
    ident += "'titan_brain'\""
    before = droplet.sh(ident)
    droplet.sh(f"rm {DIRECTORY}/{name}*")
    asked = ("-e", "backup=offsite:latest")
    assert changes(droplet.playbook("restore", "--check", *asked, "-e", "confirm=titan_brain")) == 1
    assert name not in backups(droplet)
    refused = droplet.playbook("restore", *asked, "-e", "confirm=another")
    assert refused.returncode != 0 and "confirm names another" in words(refused) and name not in backups(droplet)
    shown = droplet.playbook("restore", *asked)
    assert shown.returncode != 0 and "run it again with -e confirm=titan_brain" in words(shown)
    assert "The backup was brought, and the database was not changed" in words(shown)
    assert name in backups(droplet) and droplet.sh(ident) == before
    done = droplet.playbook("restore", *asked, "-e", "confirm=titan_brain")
    assert done.returncode == 0 and f"titan_brain was restored from {DIRECTORY}/{name}" in words(done), words(done)
    assert droplet.sh(ident) != before
    droplet.wait_healthy()
    kept = droplet.sh(
        "docker exec titan-postgres psql -XAtU titan -d postgres -c '\\l' | grep -o '^titan_brain__before_[0-9]*'"
    )
    droplet.sh(f"docker exec titan-postgres dropdb -U titan {kept.strip()}")


def test_the_policy_forgets_what_it_says_and_nothing_of_anybody_else(droplet: Droplet) -> None:
    """Old days, one verified, one with a label, and snapshots of others: restic's own list, before and after."""
    droplet.sh("mkdir -p /root/old; echo x > /root/old/file")
    sha = "0" * 64

    def add(day: int, *tags: str, host: str = "titan-droplet") -> str:
        marks = [word for tag in tags for word in ("--tag", tag)]
        moment = f"2026-01-{day:02} 02:00:00"
        said = restic(droplet, "backup", "--json", "--host", host, "--time", moment, *marks, "/root/old/file")
        return str(json.loads(said.strip().splitlines()[-1])["snapshot_id"])

    def ours(day: int, *more: str, database: str = "titan_brain", host: str = "titan-droplet") -> str:
        name = f"backup={database}_2026-01-{day:02}.sql"
        return add(day, "titan.ops", f"database={database}", name, f"sha256={sha}", *more, host=host)

    old = {day: ours(day) for day in range(10, 16)}
    kept = {ours(8, "verified"), ours(9, "label=release")}
    foreign = {add(1), add(2, "somebody"), ours(3, host="another-host"), ours(4, database="other")}
    before = {item["id"] for item in snapshots(droplet)}
    # The newest of each of two days: the one of today (there are others with a label), and of the 15th.
    policy = {"keep_daily": 2, "keep_weekly": 0, "keep_monthly": 0, "action": "forget"}
    told = droplet.module("db_offsite", "--check", **OPTIONS, **policy)
    assert {item["id"] for item in snapshots(droplet)} == before, "check mode has changed something"
    done = droplet.module("db_offsite", **OPTIONS, **policy)
    assert told["forgotten"] == done["forgotten"] == [f"titan_brain_2026-01-{day}.sql" for day in range(10, 15)]
    after = {item["id"] for item in snapshots(droplet)}
    assert before - after == {old[day] for day in range(10, 15)}
    assert kept | foreign | {old[15]} <= after
    restic(droplet, "forget", *(kept | foreign | {old[15]}))
    droplet.sh("rm -rf /root/old")


def test_the_repository_is_checked_and_pruned_without_ansible(droplet: Droplet) -> None:
    lines = droplet.sh("grep -v '^#' /etc/cron.d/titan-backup-offsite").splitlines()
    assert lines == [f"30 4 * * 0 root {SCRIPT} --offsite > /var/log/titan-backup-offsite.log 2>&1"]
    assert "checked off-site: the repository is whole" in droplet.sh(f"{SCRIPT} --offsite")
    assert "titan_backup_offsite_last_checked_timestamp_seconds" in droplet.sh(f"cat {METRICS[:-5]}_check.prom")
    restic(droplet, "check", "--read-data")


def test_s3_does_the_same(droplet: Droplet) -> None:
    """backup_db.sh into a bucket and back; the access key is in no process's arguments and in no output."""
    storage("exec", "-d", "NAME", "moto_server", "-H", "0.0.0.0", "-p", "9000")
    droplet.sh(f"for i in $(seq 100); do curl -so /dev/null http://{NAME}:9000/ && exit 0; sleep 0.1; done; exit 1")
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    watch = f"while :; do {look}; sleep 0.02; done >/root/argv & read -r _; kill $!"
    with droplet.background(watch) as watching:
        more = ["-e", f"backup_offsite_repository={S3}", "-e", "init=true", "-vvvv"]
        done = droplet.playbook("backup_offsite", *more)
        assert watching.stdin
        watching.stdin.write("\n")
        watching.stdin.flush()
        watching.wait(20)
    assert changes(done) == 1 and stored(droplet, S3) == backups(droplet)
    assert_same(droplet, S3)
    seen = droplet.sh("cat /root/argv; rm /root/argv")
    assert "restic --no-cache" in seen, "the watch has seen nothing"
    for secret in droplet.sh(f"cat {SECRETS}.password; sed -n 's/.*=//p' {SECRETS}.environment | tr -d '\"'").split():
        assert len(secret) >= 20 and secret not in seen + done.stdout + done.stderr
    restic(droplet, "check", "--read-data", repository=S3)
    name = sorted(backups(droplet))[0]
    droplet.sh(f"mkdir /root/lost; mv {DIRECTORY}/{name}* /root/lost")
    told = droplet.module("db_offsite", **{**OPTIONS, "repository": S3, "action": "fetch", "name": name})
    assert not told["failed"] and told["changed"], told
    droplet.sh(f"cmp /root/lost/{name} {DIRECTORY}/{name}; rm -rf /root/lost")


# What goes wrong

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "password": ({"password_file": "/root/fault/password"}, "the password is not the repository's"),
    "lax password file": ({"password_file": "/root/fault/lax"}, "Others may read the password file"),
    "lax environment file": ({"environment_file": "/root/fault/lax"}, "Others may read the environment file"),
    "changed host key": ({"known_hosts": "/root/fault/changed"}, "is not the one in known_hosts"),
    "unknown host key": ({"known_hosts": "/root/fault/unknown"}, "the SSH host key of the server is unknown"),
    "refused SSH key": ({"ssh_key": "/root/fault/key"}, "the server refuses the SSH key"),
    "closed port": ({"repository": f"sftp://store@{NAME}:2200//store/titan"}, "the server does not answer"),
    "unknown host": ({"repository": "sftp:store@nowhere.invalid:/x"}, "the server does not answer"),
    "other path": ({"repository": f"sftp:store@{NAME}:/store/none"}, "There is no repository"),
    "full": ({"repository": f"sftp:store@{NAME}:/full/titan", "init": True}, "the store is full"),
    "S3 closed": ({"repository": f"s3:http://{NAME}:9001/bucket", "connect_timeout": 4}, "the server does not answer"),
    "no bucket": ({"repository": f"s3:http://{NAME}:9000/none"}, "There is no repository"),
    # Nobody takes a wrong password or the server's silence for a repository that is to be made.
    "init, password": ({"init": True, "password_file": "/root/fault/password"}, "the password is not the repository's"),
    "init, closed": (
        {"init": True, "repository": f"sftp://store@{NAME}:2200//store/new"},
        "the server does not answer",
    ),
}


@pytest.fixture(scope="module")
def faulty(droplet: Droplet) -> Iterator[object]:
    """Files that are wrong; gives the host and the repository as they were before they are used."""
    droplet.sh(
        "umask 077; mkdir /root/fault; cd /root/fault; echo wrong > password; : > unknown;"
        " echo x > lax; chmod 0644 lax; ssh-keygen -q -t ed25519 -N '' -f key;"
        f" echo {NAME} $(cut -d' ' -f1,2 key.pub) > changed"
    )
    before = droplet.fingerprint(), snapshots(droplet)
    yield before
    droplet.sh("rm -r /root/fault")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(droplet: Droplet, faulty: object, fault: str) -> None:
    options, sentence = FAULTS[fault]
    moment = metric(droplet, SUCCESS)
    settings = json.loads(droplet.sh("cat /opt/titan/scripts/ops/backup_db.json"))
    settings["offsite"].update(options)
    droplet.sh(f"umask 077; cat >/root/fault/settings <<'END'\n{json.dumps(settings)}\nEND")
    done = droplet.host.run("python3 -I /opt/titan/lib/titan-ops.pyz --config /root/fault/settings --offsite")
    assert done.rc == 3 and done.stdout == "", done
    assert "FAILED OFF-SITE (copy)" in done.stderr and sentence in done.stderr
    assert (history(droplet)["operation"], history(droplet)["result"]) == ("backup_offsite", "failed")
    assert metric(droplet, SUCCESS) == moment and metric(droplet, "titan_operation_last_success") == 0


def test_none_of_these_faults_has_changed_anything(droplet: Droplet, faulty: object) -> None:
    assert (droplet.fingerprint(), snapshots(droplet)) == faulty


def test_a_copy_that_fails_is_loud_the_backup_stays_and_the_next_run_copies_it(droplet: Droplet) -> None:
    droplet.sh(f"mv {SECRETS}.key {SECRETS}.away")
    done = droplet.host.run(f"{SCRIPT} while_away")
    droplet.sh(f"mv {SECRETS}.away {SECRETS}.key")
    (name,) = [item for item in backups(droplet) if item.endswith("while_away.sql")]
    assert done.rc == 3 and f"{DIRECTORY}/{name}: " in done.stdout
    assert "backup_db.sh: FAILED OFF-SITE (copy): The SSH key" in done.stderr
    assert history(droplet)["result"] == "failed" and name not in stored(droplet)
    assert f"copied off-site: {name}" in droplet.sh(SCRIPT)
    assert stored(droplet) >= backups(droplet)


def test_the_server_going_away_in_the_middle_is_told_and_made_good(droplet: Droplet) -> None:
    """Meanwhile nothing else on the host has to wait: the host's own lock is free."""
    with slow_copy(droplet) as copying:
        droplet.sh("flock --nonblock /opt/titan/state/deploy.lock true")
        storage("kill", "NAME")
        assert copying.stdout
        said = copying.stdout.read()
    storage("start", "NAME")
    assert "FAILED OFF-SITE (copy)" in said and "the connection broke" in said and "rc=3" in said, said
    assert "the repository lacks 1 of them" in said
    answers = f"ssh-keyscan {NAME} 2>/dev/null | grep -q ."
    droplet.sh(f"for i in $(seq 100); do {answers} && exit 0; sleep 0.1; done; exit 1")
    droplet.sh(f"{SCRIPT} --offsite")
    assert backups(droplet) <= stored(droplet)
    restic(droplet, "check", "--read-data")


@pytest.mark.parametrize("how", ["KILL", "TERM", "restic KILL"])
def test_a_copy_that_is_killed_leaves_no_process_and_the_next_one_goes_on(droplet: Droplet, how: str) -> None:
    with slow_copy(droplet) as copying:
        ours = """kill -{} $(sed 's/.*"pid": \\([0-9]*\\).*/\\1/' /opt/titan/state/offsite.lock)"""
        droplet.sh("pkill -KILL -x restic" if how.startswith("restic") else ours.format(how))
        assert copying.stdout
        said = copying.stdout.read()
    wait_gone(droplet, "restic --no-cache")
    wait_gone(droplet, f"ssh store@{NAME}")
    assert {"KILL": "rc=137", "TERM": "rc=3", "restic KILL": "rc=3"}[how] in said, said
    assert ("The run was asked to end" in said) == (how == "TERM")
    droplet.sh(f"{SCRIPT} --offsite")
    assert backups(droplet) <= stored(droplet)


def test_a_snapshot_that_is_not_what_it_says_never_becomes_a_backup(droplet: Droplet, unchanged: None) -> None:
    name = sorted(backups(droplet))[0]
    record = json.loads(droplet.sh(f"cat {DIRECTORY}/{name}.manifest.json"))
    lie = "titan_brain_2026-01-01.sql"
    droplet.sh(f"mkdir /root/lie; cp {DIRECTORY}/{name} /root/lie/{lie}; printf X >> /root/lie/{lie}")
    # without its own checksum, as those of earlier versions: it is the dump that is not what it says
    change = f"s/{name}/{lie}/; /manifest_sha256/d"
    droplet.sh(f"sed '{change}' {DIRECTORY}/{name}.manifest.json > /root/lie/{lie}.manifest.json")
    tags = ["titan.ops", "database=titan_brain", f"backup={lie}", f"sha256={record['sha256']}"]
    marks = [word for tag in tags for word in ("--tag", tag)]
    restic(droplet, "backup", "--host", "titan-droplet", *marks, "/root/lie")
    told = droplet.module("db_offsite", **OPTIONS, action="fetch", name=lie)
    assert told["failed"] and "is not in the snapshot as a plain file" in told["msg"], told["msg"]
    (wrong,) = [item["id"] for item in snapshots(droplet, "--tag", f"backup={lie}")]
    restic(droplet, "forget", wrong)
    names = [lie, f"{lie}.manifest.json"]
    restic(droplet, "backup", "--host", "titan-droplet", *marks, *names, cwd="/root/lie")
    told = droplet.module("db_offsite", **OPTIONS, action="fetch", name=lie)
    assert told["failed"] and "is not the backup" in told["msg"], told["msg"]
    restic(droplet, "forget", *[item["id"] for item in snapshots(droplet, "--tag", f"backup={lie}")])
    droplet.sh("rm -r /root/lie")


def test_a_damaged_repository_is_found_by_the_check(droplet: Droplet) -> None:
    """The last one: one byte of a data file is another."""
    restic(droplet, "init", repository=f"sftp:store@{NAME}:/store/rotten")
    options = {**OPTIONS, "repository": f"sftp:store@{NAME}:/store/rotten"}
    assert not droplet.module("db_offsite", **options)["failed"]
    flip = "f=$(find /store/rotten/data -type f -size +100k | head -n 1); chmod u+w $f"
    storage("exec", "NAME", "sh", "-ec", f"{flip}; printf X | dd of=$f bs=1 seek=5000 conv=notrunc")
    told = droplet.module("db_offsite", **options, action="check", read_data_subset="100%")
    assert told["failed"] and told["cause"] == "damaged" and "the repository is damaged" in told["msg"], told["msg"]
    storage("exec", "NAME", "rm", "-rf", "/store/rotten")
