#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lease
short_description: Hold the leases of pools at a balancer while they are changed
version_added: 0.2.0
description:
  - Takes the leases of pools at the agent of this balancer, prolongs them, or gives them back. While somebody holds the
    lease of a pool, nobody else drains its replicas or puts them back, and no watchdog restarts them.
  - A lease ends by itself after O(seconds), so that a run that dies locks nobody out. Whoever works longer calls again
    before that. Run it on every balancer.
options:
  pools:
    description: Names of the pools.
    type: list
    elements: str
    required: true
  holder:
    description:
      - The name under which the leases are held, unique for each run. M(llmops.vllm.balancer_replica) must be given the
        same name as C(by).
    type: str
    required: true
  state:
    description:
      - V(held) takes or prolongs the leases of all pools, or of none. When another holder has one, those that this call
        took are given back and the module fails.
      - V(released) gives back those that O(holder) has. One of another holder is left alone, and RV(notes) says so.
    type: str
    choices: [held, released]
    default: held
  seconds:
    description: Seconds for which the leases are held, from now on; 3600 at most. Has no effect with O(state=released).
    type: float
    default: 120
  takeover:
    description:
      - Holders of whom it is known that they are dead, because their process is gone. Their leases are taken over
        instead of waited for.
      - Has no effect with O(state=released).
    type: list
    elements: str
    default: []
  socket:
    description: Control socket of the agent.
    type: path
    default: /run/llm-agent/control.sock
extends_documentation_fragment:
  - llmops.vllm.attributes
attributes:
  check_mode:
    support: full
    description: Tells what would change, and fails where another holder has a lease.
  idempotent:
    support: full
    description: Prolonging a lease is no change.
seealso:
  - module: llmops.vllm.balancer_replica
  - module: llmops.vllm.balancer_info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Take the leases, or prolong them
  llmops.vllm.rollout_lease:
    pools: [chat-h100, short-a100]
    holder: rollout-20270131T030000-ops1-4711

- name: Drain a replica of a pool that this run has leased
  llmops.vllm.balancer_replica:
    replicas: [gpu1/r0]
    state: drained
    by: rollout-20270131T030000-ops1-4711

- name: Give them back
  llmops.vllm.rollout_lease:
    pools: [chat-h100, short-a100]
    holder: rollout-20270131T030000-ops1-4711
    state: released
"""

RETURN = r"""
before:
  description: The lease of each pool before, with C(holder) and C(expires_in) in seconds. Null where there was none.
  returned: when the agent answered
  type: dict
  sample: {chat-h100: null}
leases:
  description: The same now, also when the module fails because a lease is held.
  returned: when the agent answered
  type: dict
  sample: {chat-h100: {holder: rollout-20270131T030000-ops1-4711, expires_in: 120.0}}
notes:
  description: What one should know besides, such as whose lease was taken over or left alone.
  returned: when the agent answered
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import Control
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.lease import NotHeld, Wish, hold, release

SPEC = {
    "pools": {"type": "list", "elements": "str", "required": True},
    "holder": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
    "seconds": {"type": "float", "default": 120.0},
    "takeover": {"type": "list", "elements": "str", "default": []},
    "socket": {"type": "path", "default": "/run/llm-agent/control.sock"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    p = module.params
    bring_about = hold if p["state"] == "held" else release
    try:
        wish = Wish(tuple(dict.fromkeys(p["pools"])), p["holder"], p["seconds"], tuple(p["takeover"]))
        module.exit_json(**bring_about(Control(p["socket"]), wish, module.check_mode).result())
    except NotHeld as problem:
        module.fail_json(msg=str(problem), **problem.outcome.result())
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
