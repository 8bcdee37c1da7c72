# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that show their progress (their specification is progress_spec)."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment titan.ops.progress."""

    DOCUMENTATION = r"""
options:
  progress:
    description:
      - Print a line every few seconds that says how far it is, from the first O(progress_interval) on.
      - The lines come from a second connection, which looks at a file in C(/run/titan-ops) on the managed host. The
        module and its result are the same with and without it. Nothing is printed in check mode, with C(async) or
        C(no_log), or where the host cannot be asked.
      - While it is on, Ctrl-C ends the run on the managed host as well; it then tidies up as after any failure.
    type: bool
    default: true
  progress_interval:
    description: Seconds between two lines, at least 1. Each costs the host one login with C(sudo).
    type: float
    default: 5.0
"""
