# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says about the releases of a replica."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._release.home import VERIFIED, Home, Owner
from ansible_collections.llmops.vllm.plugins.module_utils._release.marks import marks_of
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import differences
from ansible_collections.llmops.vllm.plugins.module_utils._release.running import running_release


def releases_of(root: str, replica: str) -> dict[str, Any]:
    """The ids of a replica's releases, each empty when there is none, and what is known about each.

    ``release`` is in force, ``pending`` is staged and waits for a rollout, ``running_release`` is what the process was
    started with: it differs from ``release`` between a switch and the restart.
    """
    home = Home(root, replica, Owner("root", "root"))
    current, previous, staged = home.pointer("current"), home.previous(), home.pointer("staged")
    pending = staged if staged != current else ""
    named = {"current": current, "pending": pending, "previous": previous}
    return {
        "release": current,
        "previous": previous,
        "pending": pending,
        "running_release": running_release(f"vllm@{replica}.service"),
        "verified": current != "" and home.pointer(VERIFIED) == current,
        "releases": {name: _about(home, release, current) if release else None for name, release in named.items()},
    }


def _about(home: Home, release: str, current: str) -> dict[str, Any]:
    document, problem = home.document(release), home.problem(release)
    texts = {name: document.get(name, "") for name in ("version", "model_revision", "env")}
    return {
        "id": release,
        **texts,
        "model": document.get("model_name", ""),
        "model_path": document.get("model", ""),
        **marks_of(home, release),
        "usable": not problem,
        "problem": problem,
        "differences": differences(home.view(current), home.view(release)) if document else [],
    }
