# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection to the Docker Engine where there is none."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest

from ansible_collections.titan.ops.plugins.module_utils.compose.engine import IMPORT_ERROR, connect
from ansible_collections.titan.ops.plugins.module_utils.core.errors import OpsError


@pytest.mark.skipif(IMPORT_ERROR is not None, reason="needs the Docker SDK for Python")
@pytest.mark.parametrize("left_behind", [False, True], ids=["no socket", "a socket that nobody answers at"])
def test_no_engine_is_said_plainly_and_leaves_no_socket_open(tmp_path: Path, left_behind: bool) -> None:
    path = tmp_path / "docker.sock"
    if left_behind:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    with pytest.raises(OpsError) as failed:
        connect(f"unix://{path}")
    assert f"does not answer at unix://{path}: " in failed.value.msg
    assert failed.value.hint and "systemctl start docker" in failed.value.hint
    del failed
    gc.collect()  # an open socket would be told of here, and is an error
