# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""bootstrap.yml on a host that has nothing yet: the check is true, one run is enough, a second finds nothing to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from droplet import ENV_FILE, Droplet, changes, words

PACKAGES = ["python3-apt", "python3-docker", "python3-psycopg2", "python3-requests"]


def state(droplet: Droplet) -> list[str]:
    """The packages that are installed; owner and mode of the directories and the env file."""
    query = f"dpkg-query --show --showformat '${{Package}} ${{db:Status-Status}}\\n' {' '.join(PACKAGES)}"
    places = f"/opt/titan/* /opt/titan/*/ops /opt/titan/backups/db {ENV_FILE}"
    return droplet.sh(f"{query} | grep ' installed$' || true; stat -c '%n %U %G %a' {places} || true").splitlines()


@pytest.fixture
def prepared(droplet: Droplet) -> Iterator[None]:
    """Whatever becomes of the test, the other tests find a host that is prepared."""
    yield
    droplet.sh("chmod 700 /opt/titan/state")
    if droplet.host.run(f"dpkg --status {' '.join(PACKAGES)}").rc != 0:
        changes(droplet.playbook("bootstrap"))


def test_it_prepares_a_bare_host_once_as_its_check_said(droplet: Droplet, prepared: None) -> None:
    containers = droplet.containers()
    droplet.sh(
        # even without what Ansible's own apt module needs
        f"apt-get remove --yes --quiet {' '.join(PACKAGES)} && rm -rf /opt/titan/logs /opt/titan/scripts"
        " && chmod 755 /opt/titan/backups/db && chmod 777 /opt/titan/state"
        f" && chown deploy:deploy {ENV_FILE} && chmod 644 {ENV_FILE}"
    )
    bare = state(droplet)
    assert not [line for line in bare if line.endswith(" installed")]

    check = droplet.playbook("bootstrap", "--check", "--diff")
    # packages, directories, env file
    assert changes(check) == 3, check.stdout
    for name in [*PACKAGES, "/opt/titan/logs", "/opt/titan/scripts/ops", "/opt/titan/backups/db"]:
        assert name in words(check)
    assert state(droplet) == bare, "bootstrap --check has changed something"

    done = droplet.playbook("bootstrap")
    assert changes(done) == 3, done.stdout
    ready = state(droplet)
    for line in [
        *(f"{name} installed" for name in PACKAGES),
        "/opt/titan/logs root root 755",
        "/opt/titan/scripts/ops root root 755",
        "/opt/titan/backups/db root root 700",
        # a directory with the deployments' lock: only what is dangerous is taken from it
        "/opt/titan/state root root 755",
        f"{ENV_FILE} root root 600",
    ]:
        assert line in ready

    again = droplet.playbook("bootstrap")
    assert changes(again) == 0, again.stdout
    assert state(droplet) == ready
    assert droplet.containers() == containers


def test_a_host_that_it_does_not_know_how_to_prepare_is_refused(droplet: Droplet, unchanged: None) -> None:
    for setting, reason in (
        ("host_project_src=/opt/nowhere", "There is no directory /opt/nowhere on this host. Nothing was changed."),
        ("host_compose_minimum=99", "Docker Compose 99 or later is needed on this host; `docker compose version` says"),
    ):
        done = droplet.playbook("bootstrap", "-e", setting)
        assert done.returncode == 2
        assert reason in words(done)
