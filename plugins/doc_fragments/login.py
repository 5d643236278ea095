# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of modules that ask a service of monitoring; specification: ``LOGIN_SPEC`` of ``_monitoring.json_api``."""

from __future__ import annotations


class ModuleDocFragment:
    """``llmops.vllm.login``."""

    DOCUMENTATION = r"""
options:
  username:
    description: User name, where the service asks for one.
    type: str
    default: ""
  password:
    description: Its password.
    type: str
    default: ""
  ca_path:
    description:
      - File with the certificate of the authority that signed the service's. Without it the authorities that the system
        trusts.
    type: path
"""
