# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of what goes off-site, and the files with its secrets."""

from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import InvalidInput
from ..core.files import read_regular
from ..core.redact import Redactor
from .naming import check_database
from .options import directory_of
from .restic import Repository
from .retention import Policy

__all__ = ["LOCK", "OffsiteOptions", "action_spec", "offsite_spec"]

# In the state directory. A copy may take hours, and a rotation of secrets must not wait for it; nor need it, for a copy
# only reads files that are finished. So it has a lock of its own, which keeps two of its kind apart.
LOCK = "offsite.lock"
_SCHEMES = ("sftp", "s3", "rest", "b2", "azure", "gs", "swift", "rclone")
_SUBSET = re.compile(r"|\d{1,3}(\.\d+)?%|\d+/\d+|\d+[KMGT]?")
_SFTP = re.compile(r"sftp:(?://(?P<login>[^/]+?)(?::(?P<port>\d+))?/.+|(?P<short>[^/:]+):.+)")
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def offsite_spec() -> dict[str, Any]:
    """The argument specification of the documentation fragment titan.ops.offsite."""
    return {
        "repository": {"type": "str", "required": True},
        "password_file": {"type": "path", "required": True, "no_log": False},
        "environment_file": {"type": "path"},
        "ssh_key": {"type": "path", "no_log": False},
        "known_hosts": {"type": "path"},
        "restic_options": {"type": "list", "elements": "str", "default": []},
        "hostname": {"type": "str"},
        "database": {"type": "str", "default": "titan_brain"},
        "directory": {"type": "path", "default": "backups/db"},
        "connect_timeout": {"type": "float", "default": 60.0},
        "timeout": {"type": "float", "default": 21600.0},
    }


def action_spec() -> dict[str, Any]:
    """The argument specification of db_offsite, without the common options."""
    return {
        **offsite_spec(),
        "action": {"type": "str", "choices": ["copy", "forget", "check", "fetch"], "default": "copy"},
        "init": {"type": "bool", "default": False},
        "name": {"type": "str", "default": "latest"},
        "keep_daily": {"type": "int", "default": 7},
        "keep_weekly": {"type": "int", "default": 4},
        "keep_monthly": {"type": "int", "default": 12},
        "prune": {"type": "bool", "default": False},
        "read_data_subset": {"type": "str", "default": ""},
        "limit_upload": {"type": "int", "default": 0},
    }


@dataclass(frozen=True)
class OffsiteOptions:
    """What goes where; times in seconds; described in the documentation fragment and the module.

    ``hostname_given``: somebody has said whose backups they are; it is not just this host's name.
    """

    repository: Repository
    hostname: str
    database: str
    directory: str
    timeout: float = 21600
    keep: Policy = field(default_factory=Policy)
    prune: bool = False
    read_data_subset: str = ""
    hostname_given: bool = False

    @classmethod
    def from_params(cls, params: Mapping[str, Any], project_src: str, redact: Redactor) -> OffsiteOptions:
        """Read and check a module's options and the files that they name; their secrets are redacted from now on.

        Raises:
            InvalidInput: one cannot be, or a file with a secret is readable for others.
        """
        address = params["repository"]
        _check_address(address)
        check_database(params["database"])
        password = _secret_file(params["password_file"], "password file").strip()
        if not password:
            raise InvalidInput(f"The password file {params['password_file']} is empty")
        redact.add(password)
        environment = _environment(params.get("environment_file"))
        if address.startswith("s3:") and not all(environment.get(name) for name in _S3_KEYS):
            raise InvalidInput(
                f"An S3 repository wants {' and '.join(_S3_KEYS)}", hint="Set them in the file environment_file names."
            )
        for name in ("connect_timeout", "timeout"):
            if not 1 <= params[name] <= 604800:
                raise InvalidInput(f"{name} must be from 1 to 604800 seconds, not {params[name]:g}")
        keep = Policy(*(params.get(f"keep_{name}", fallback) for name, fallback in _KEEP))
        if min(keep.daily, keep.weekly, keep.monthly) < 0:
            raise InvalidInput("keep_daily, keep_weekly and keep_monthly must be 0 or more")
        limit = params.get("limit_upload") or 0
        if limit < 0:
            raise InvalidInput(f"limit_upload must be 0 or more, not {limit}")
        subset = params.get("read_data_subset") or ""
        if not _SUBSET.fullmatch(subset):
            raise InvalidInput(f"read_data_subset cannot be {subset!r}", hint="Write it like 5%, 1/12 or 500M.")
        return cls(
            repository=Repository(
                address,
                params["password_file"],
                environment,
                (*_ssh(address, params), *params["restic_options"]),
                limit,
                params["connect_timeout"],
            ),
            hostname=params.get("hostname") or socket.gethostname(),
            database=params["database"],
            directory=directory_of(project_src, params["directory"]),
            timeout=params["timeout"],
            keep=keep,
            prune=bool(params.get("prune")),
            read_data_subset=subset,
            hostname_given=bool(params.get("hostname")),
        )


_KEEP = (("daily", 7), ("weekly", 4), ("monthly", 12))


def _check_address(address: str) -> None:
    scheme = address.partition(":")[0] if not address.startswith("/") else ""
    if scheme and (scheme not in _SCHEMES or ":" not in address):
        raise InvalidInput(
            f"The repository {address!r} is nowhere",
            hint="Write it as restic does, e.g. sftp:user@host:/path or s3:https://host/bucket.",
        )
    if scheme == "sftp" and not _SFTP.fullmatch(address):
        raise InvalidInput(
            f"The repository {address!r} has no host or no path",
            hint="Write sftp:user@host:/path, or sftp://user@host:port//path.",
        )
    if re.search(r"://[^/@]*:[^/@]*@", address):
        raise InvalidInput(
            "The repository's address has a password in it, which logs would show",
            hint="Put the credentials into the file that environment_file names.",
        )


def _ssh(address: str, params: Mapping[str, Any]) -> list[str]:
    """restic's option for ssh (``sftp.args`` is newer than Debian 12): nothing is asked, and no host key accepted."""
    found = _SFTP.fullmatch(address)
    if not found or any(option.startswith("sftp.") for option in params["restic_options"]):
        return []
    command = ["ssh", found["login"] or found["short"]]
    if found["port"]:
        command += ["-p", found["port"]]
    if params["ssh_key"]:
        command += ["-i", _secret_place(params["ssh_key"]), "-o", "IdentitiesOnly=yes"]
    if params["known_hosts"]:
        read_regular(params["known_hosts"], what="known_hosts file")
        command += ["-o", f"UserKnownHostsFile={params['known_hosts']}", "-o", "GlobalKnownHostsFile=/dev/null"]
    seconds = max(1, round(params["connect_timeout"] / 2))
    settings = ["StrictHostKeyChecking=yes", "BatchMode=yes", f"ConnectTimeout={seconds}", "LogLevel=ERROR"]
    # A server that is gone without a word is found out within two minutes.
    settings += ["ServerAliveInterval=30", "ServerAliveCountMax=4"]
    command += [word for setting in settings for word in ("-o", setting)]
    return [f"sftp.command={' '.join(shlex.quote(word) for word in [*command, '-s', 'sftp'])}"]


def _secret_place(path: str) -> str:
    _secret_file(path, "SSH key")
    return path


def _secret_file(path: str, what: str) -> str:
    """The text of a file that nobody but its owner may read.

    Raises:
        InvalidInput: it is missing, or others may read it.
    """
    found = read_regular(path, what=what)
    if found.mode & 0o077 or found.uid not in (0, os.geteuid()):
        raise InvalidInput(
            f"Others may read the {what} {path}: it has mode {found.mode:04o} and belongs to user id {found.uid}",
            hint=f"chown root {path} && chmod 0600 {path}",
        )
    return found.data.decode("utf-8", "surrogateescape")


def _environment(path: str | None) -> dict[str, str]:
    """The variables of a file of lines NAME=value, as systemd's EnvironmentFile has them.

    Raises:
        InvalidInput: a line is no assignment, or sets what has an option of its own.
    """
    if not path:
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(_secret_file(path, "environment file").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(text)
        if not match:
            raise InvalidInput(f"Line {number} of the environment file {path} is not NAME=value")
        name, value = match[1], match[2].strip()
        if name.startswith(("RESTIC_PASSWORD", "RESTIC_REPOSITORY")):
            raise InvalidInput(
                f"The environment file {path} sets {name}", hint="Use the options repository and password_file."
            )
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
        found[name] = value[1:-1] if quoted else value
    return found
