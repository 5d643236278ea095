# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that every module of the collection documents in the same words."""

from __future__ import annotations


class ModuleDocFragment:
    """``llmops.vllm.attributes`` and its variants."""

    # Modules that change hosts.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
  diff_mode:
    support: full
    description: Returns details on what has changed, or would change in C(check_mode), in diff mode.
  idempotent:
    support: full
    description: When run twice in a row with the same arguments, the second run changes nothing.
  action_group:
    description: Use C(group/llmops.vllm.vllm) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - llmops.vllm.vllm
"""

    # Modules that only look.
    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: This module does not modify the target, so check mode changes nothing.
  diff_mode:
    support: N/A
    description: This module does not modify the target.
  idempotent:
    support: full
    description: This module does not modify the target.
  action_group:
    description: Use C(group/llmops.vllm.vllm) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - llmops.vllm.vllm
"""
