# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and addresses as NGINX's configuration holds them."""

from __future__ import annotations

import re


def upstream_name(pool: str) -> str:
    """Return the name of a pool's upstream group in NGINX."""
    return "llm_" + re.sub(r"[^A-Za-z0-9_.-]", "_", pool)


def exact_pattern(text: str) -> str:
    """Return the regular expression that matches exactly this key or name.

    Plain strings in a ``map`` ignore case, and words like "default" mean something else there.
    """
    return re.sub(r"([.+])", r"[\1]", text)


def server_address(address: str, port: int) -> str:
    """Return ``address:port``, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
