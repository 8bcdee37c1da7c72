# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine as one file that the system's Python runs: a zip archive with a __main__ (Python manual, zipapp)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import marshal
import sys
import zipfile
from collections.abc import Mapping

from ..core.errors import OpsError

__all__ = ["MAIN", "build", "sources"]

PACKAGE = "titan_ops"
MAIN = f"""\
import sys

from {PACKAGE}.backup.cli import main

sys.exit(main(sys.argv[1:]))
"""
# The same bytes from the same sources, whenever they are packed.
_DATE = (1980, 1, 1, 0, 0, 0)
# Before 3.11 the same source may give other bytes in each process, and the archive would change for nothing.
_COMPILES_ALIKE = sys.version_info >= (3, 11)
_UNCHECKED = 1  # PEP 552: valid by the hash of its source, which need not be compared: both are in one archive
# It knows Ansible, which a host need not have.
_LEFT_OUT = ("bridge",)


def sources(root: str) -> dict[str, str]:
    """The sources of every imported module below a package, by file name in the archive.

    Args:
        root: the package, e.g. ansible_collections.titan.ops.plugins.module_utils. Ansible has brought exactly those
            modules to the host that the present one needs.

    Raises:
        OpsError: the source of one is not to be had.
    """
    found: dict[str, str] = {}
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(f"{root}."):
            continue
        parts = name[len(root) + 1 :].split(".")
        if parts[0] in _LEFT_OUT:
            continue
        spec = module.__spec__
        loader = getattr(spec, "loader", None)
        get_source = getattr(loader, "get_source", None)
        text = get_source(name) if get_source else None
        if text is None:
            raise OpsError(f"The source of {name} is not to be had")
        package = spec is not None and spec.submodule_search_locations is not None
        found["/".join([*parts, "__init__.py"] if package else [*parts[:-1], f"{parts[-1]}.py"])] = text
    return found


def build(files: Mapping[str, str]) -> bytes:
    """The archive; compiled as well, so that no run spends its first tenths of a second on that.

    Another Python than this one takes the sources.
    """
    content = {f"{PACKAGE}/{name}": text for name, text in files.items()}
    content[f"{PACKAGE}/__init__.py"] = ""
    content["__main__.py"] = MAIN
    packed = {name: text.encode() for name, text in content.items()}
    if _COMPILES_ALIKE:
        # From 3.14 on some code has constants that marshal's old version cannot hold: then without.
        with contextlib.suppress(ValueError):
            packed.update({f"{name}c": _compiled(name, text) for name, text in content.items()})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(packed.items()):
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return buffer.getvalue()


def _compiled(name: str, text: str) -> bytes:
    """As a .pyc has it (PEP 552). Marshal's version 2 knows no references, which depend on who else uses an object."""
    code = compile(text, name, "exec", dont_inherit=True)
    source_hash = importlib.util.source_hash(text.encode())
    return importlib.util.MAGIC_NUMBER + _UNCHECKED.to_bytes(4, "little") + source_hash + marshal.dumps(code, 2)
