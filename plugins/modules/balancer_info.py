#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: balancer_info
short_description: Ask a balancer's agent what it knows
version_added: 0.2.0
description:
  - Tells the pools and replicas of this balancer, who is in rotation and why, and how the balancer itself stands.
  - Fails when no agent answers, or one whose API is another than that of this collection.
options:
  replica:
    description: Id of one replica, of which everything is wanted; its last numbers, its history, its incident.
    type: str
  socket:
    description: Control socket of the agent.
    type: path
    default: /run/llm-agent/control.sock
extends_documentation_fragment:
  - llmops.vllm.attributes.info
seealso:
  - module: llmops.vllm.balancer_replica
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Ask a balancer
  llmops.vllm.balancer_info:
  register: balancer

- name: Ask why a replica is out
  llmops.vllm.balancer_info:
    replica: gpu1/r0
  register: why
"""

RETURN = r"""
status:
  description:
    - What C(llm-balancer status --json) prints, with C(agent), C(balancer), C(engine), C(peers), C(generation),
      C(membership), C(pools), C(replicas).
  returned: without O(replica)
  type: dict
replica:
  description:
    - What C(llm-balancer explain --json) prints; a row of RV(status) with C(numbers), C(history) and C(incident).
  returned: with O(replica)
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import Control
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

SPEC = {
    "replica": {"type": "str"},
    "socket": {"type": "path", "default": "/run/llm-agent/control.sock"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    agent = Control(module.params["socket"])
    try:
        if module.params["replica"] is None:
            module.exit_json(changed=False, status=agent.status())
        module.exit_json(changed=False, replica=agent.explain(module.params["replica"]))
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
