"""Stands in for get-pip.py, which ansible-test would download: runs pip from the wheel that lies beside this file.

A copy of this file named get_pip_25_2.py finds pip-25.2-py3-none-any.whl; `scripts/sanity` puts both there.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

here = Path(__file__).resolve()
version = here.stem.removeprefix("get_pip_").replace("_", ".")
sys.path.insert(0, str(here.with_name(f"pip-{version}-py3-none-any.whl")))
# These two are get-pip's own; a virtual environment made without pip has neither package anyway.
arguments = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.argv = ["pip", "install", *arguments]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
