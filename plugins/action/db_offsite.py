# Copyright: (c) 2026, Titan Ops
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows the module's progress."""

from __future__ import annotations

from ansible_collections.titan.ops.plugins.plugin_utils.progress import WatchedAction


class ActionModule(WatchedAction):
    """The module of the same name."""
