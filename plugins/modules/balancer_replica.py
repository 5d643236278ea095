#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: balancer_replica
short_description: Drain replicas at a balancer, or put them back
version_added: 0.2.0
description:
  - Asks the agent of this balancer to give replicas no new requests, or to give them requests again. Requests that run
    go on in any case.
  - Returns when the engine has confirmed it. The agents of other balancers take it over within seconds. Run it on every
    balancer nevertheless, as the playbook C(drain.yml) does, to know that it is so.
  - Is refused when a pool would fall below its minimum of replicas in rotation, unless O(force=true), and while
    somebody else holds the lease of the pool.
options:
  replicas:
    description: Ids of the replicas, C(<host>/<name>).
    type: list
    elements: str
    required: true
  state:
    description: What the replicas are to be.
    type: str
    choices: [active, drained]
    required: true
  wait:
    description:
      - Wait until no request is in flight from this balancer to the replicas. Has no effect with O(state=active).
      - If the time runs out the module fails, and the replicas stay drained.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait. The longest answer that clients ask for decides.
    type: float
    default: 600
  force:
    description: Go below the minimum of the pool. A lease is never passed.
    type: bool
    default: false
  reason:
    description: Why, in one line; shown to whoever looks.
    type: str
    default: ""
  by:
    description: Who does it. The holder of a lease of the pool must give the name under which it was taken.
    type: str
    default: ansible
  socket:
    description: Control socket of the agent.
    type: path
    default: /run/llm-agent/control.sock
extends_documentation_fragment:
  - llmops.vllm.attributes
attributes:
  check_mode:
    support: full
    description: Tells what would change, and fails where the agent would refuse. Does not wait.
seealso:
  - module: llmops.vllm.balancer_info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Drain a replica and wait until it is idle
  llmops.vllm.balancer_replica:
    replicas: [gpu1/r0]
    state: drained
    wait: true
    reason: new kernel on gpu1

- name: Put it back
  llmops.vllm.balancer_replica:
    replicas: [gpu1/r0]
    state: active
"""

RETURN = r"""
before:
  description: Administrative state of each replica before.
  returned: always
  type: dict
  sample: {gpu1/r0: active}
after:
  description: Administrative state of each replica now.
  returned: always
  type: dict
  sample: {gpu1/r0: drained}
inflight:
  description: Requests in flight from this balancer to each replica, as last seen. Null when not known.
  returned: always
  type: dict
  sample: {gpu1/r0: 0}
taken:
  description:
    - Replicas that a rollout had left drained, and that O(by) has drained from now on. The next rollout leaves them
      alone.
  returned: always
  type: list
  elements: str
elapsed:
  description: Seconds waited.
  returned: always
  type: float
generation:
  description: The generation of the administrative state that the agent knows.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import Control
from ansible_collections.llmops.vllm.plugins.module_utils._balancer.replica import NotIdle, Wish, ensure
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

SPEC = {
    "replicas": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["active", "drained"], "required": True},
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "float", "default": 600.0},
    "force": {"type": "bool", "default": False},
    "reason": {"type": "str", "default": ""},
    "by": {"type": "str", "default": "ansible"},
    "socket": {"type": "path", "default": "/run/llm-agent/control.sock"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    options = {name: module.params[name] for name in SPEC if name not in ("socket", "replicas")}
    wish = Wish(tuple(dict.fromkeys(module.params["replicas"])), **options)
    try:
        module.exit_json(**ensure(Control(module.params["socket"]), wish, module.check_mode).result())
    except NotIdle as problem:
        module.fail_json(msg=str(problem), **problem.outcome.result())
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
