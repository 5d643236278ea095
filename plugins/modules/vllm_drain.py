#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_drain
short_description: Wait until drained replicas are idle
version_added: 0.2.0
description:
  - Waits, at one balancer, until nobody uses replicas that were drained. Drains nothing itself; that is done by
    M(llmops.vllm.balancer_replica).
  - A replica is idle when no request is in flight to it from the engine of this balancer, and its own C(/metrics) say
    that no request runs or waits in any of its engines, both in O(scrapes) looks in a row. Requests that came through
    another balancer, or past all of them, are therefore waited for, too.
  - A replica that refuses connections is idle when nothing is in flight to it, because its process is not there.
    One that times out or answers with an error is not known to be idle, and is waited for.
  - The module fails at once when a replica is put back meanwhile, or leaves the balancer.
options:
  replicas:
    description: The drained replicas.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: Id of the replica, C(<host>/<name>).
        type: str
        required: true
      url:
        description: Address of the replica, such as V(http://192.0.2.21:8000).
        type: str
        required: true
  timeout:
    description:
      - Seconds to wait. The longest answer that clients ask for decides.
      - A number below 0 counts as 0, with which it is looked, and not waited.
    type: float
    default: 600
  fail_on_timeout:
    description:
      - Fail when O(timeout) is over. With V(false), RV(timed_out) says so, and RV(left) what would be cut.
    type: bool
    default: true
  return_after:
    description:
      - Seconds after which this call returns although requests run, without failure; V(0) is no limit. A further call
        is given the rest of O(timeout), which is that without RV(elapsed).
      - For whoever must do something meanwhile, such as renewing a lease, or wants to show how far it is.
    type: float
    default: 0
  scrapes:
    description:
      - Looks in a row in which all replicas must be idle. They are finished once they have begun, even beyond
        O(timeout) and O(return_after), for as long as all are idle.
    type: int
    default: 2
  interval:
    description: Seconds between two looks.
    type: float
    default: 1
  api_key:
    description: A key that the replicas accept.
    type: str
    default: ""
  request_timeout:
    description: Seconds that each request to a replica may take.
    type: float
    default: 5
  socket:
    description: Control socket of the agent.
    type: path
    default: /run/llm-agent/control.sock
extends_documentation_fragment:
  - llmops.vllm.attributes.info
attributes:
  check_mode:
    support: full
    description: Does not wait. Looks once, whether or not the replicas are drained, and is skipped.
seealso:
  - module: llmops.vllm.balancer_replica
  - module: llmops.vllm.rollout_lease
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Drain a replica
  llmops.vllm.balancer_replica:
    replicas: [gpu1/r0]
    state: drained

- name: Wait until nobody uses it, for as long as the longest answer may take
  llmops.vllm.vllm_drain:
    api_key: "{{ llmops_backend_keys | first }}"
    replicas:
      - id: gpu1/r0
        url: http://192.0.2.21:8000
    timeout: 900
"""

RETURN = r"""
idle:
  description: Whether all replicas were idle.
  returned: when a balancer was asked
  type: bool
timed_out:
  description: Whether O(timeout) is over and one is not idle.
  returned: when a balancer was asked
  type: bool
msg:
  description: How it ended in one line, with every replica that is not idle.
  returned: always
  type: str
  sample: "not idle yet after 60 s: gpu1/r0 3 in flight, 3 running, 0 waiting"
inflight:
  description: Requests in flight from this balancer to each replica, as last seen. Null when not known.
  returned: when a balancer was asked
  type: dict
  sample: {gpu1/r0: 3}
running:
  description: Requests that run by the metrics of each replica, as last seen. Null when not known.
  returned: when a balancer was asked
  type: dict
  sample: {gpu1/r0: 3}
waiting:
  description: Requests that wait in the queue of each replica, as last seen. Null when not known.
  returned: when a balancer was asked
  type: dict
  sample: {gpu1/r0: 0}
left:
  description:
    - Requests that would be cut at each replica if it were stopped now, as far as seen from here; the higher one of
      RV(inflight), and RV(running) and RV(waiting) together. Null when none of them is known.
  returned: when a balancer was asked
  type: dict
  sample: {gpu1/r0: 3}
elapsed:
  description: Seconds that this call waited.
  returned: when a balancer was asked
  type: float
progress:
  description: What was waited for, a line every 10 s.
  returned: when a balancer was asked
  type: list
  elements: str
  sample: ["12 s: gpu1/r0 3 in flight, 3 running, 0 waiting"]
notes:
  description: What one should know besides, such as a replica that is idle because nobody listens at its address.
  returned: when a balancer was asked
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import SILENCE, Control
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.drain import Drain, NotIdle, Wish, watched

SPEC = {
    "replicas": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {"id": {"type": "str", "required": True}, "url": {"type": "str", "required": True}},
    },
    "timeout": {"type": "float", "default": 600.0},
    "fail_on_timeout": {"type": "bool", "default": True},
    "return_after": {"type": "float", "default": 0.0},
    "scrapes": {"type": "int", "default": 2},
    "interval": {"type": "float", "default": 1.0},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "request_timeout": {"type": "float", "default": 5.0},
    "socket": {"type": "path", "default": "/run/llm-agent/control.sock"},
}
WISH = ("timeout", "fail_on_timeout", "return_after", "scrapes", "interval")


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    p = module.params
    try:
        wish = Wish(**{name: p[name] for name in WISH})
        # no longer than the silence of an agent is borne: who has a lease to renew must get this call back
        drain = Drain(Control(p["socket"], SILENCE), watched(p["replicas"], p["api_key"], p["request_timeout"]), wish)
        if module.check_mode:
            module.exit_json(changed=False, skipped=True, **drain.glance().result())
        module.exit_json(changed=False, **drain.wait().result())
    except NotIdle as problem:
        module.fail_json(**problem.outcome.result())
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
