#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_unit
short_description: Stop or start the systemd unit of a replica during a rollout
version_added: 0.2.0
description:
  - Stops the unit of a replica and waits until nothing of it is left, or starts it and returns once systemd has done
    so. Whether it serves then is asked by M(llmops.vllm.vllm_wait).
  - A stopped replica may leave processes that do not end, a socket that still listens, or memory of a GPU, all of which
    a new start would stumble over. They are waited for, and told with what ends them.
  - While it stops, vLLM refuses new requests and cuts those that outlast its C(shutdown-timeout). Drain the replica
    before, and wait for it with M(llmops.vllm.vllm_drain).
options:
  name:
    description: Name of the unit, such as V(vllm@r0.service).
    type: str
    required: true
  state:
    description:
      - V(stopped) stops it, also when systemd is about to start it again, or a start waits for the end of another.
      - V(started) lets systemd read its unit files again and forget earlier starts, then starts it. A start that fails
        at once fails with the end of the unit's journal. A unit that runs is left alone, whatever it was started from.
    type: str
    choices: [started, stopped]
    required: true
  timeout:
    description:
      - Seconds that a stop may take, counted from its begin, also when an earlier call began it. For O(state=started),
        those that a stop may take for which the start has to wait.
      - V(0) is the C(TimeoutStopSec) of the unit, at which systemd kills what is left, and 15 s.
    type: float
    default: 0
  hard_after:
    description:
      - Seconds from the begin of the stop after which all processes of the unit are killed with SIGKILL; V(0) is never.
      - For a replica that has nothing to finish, such as one that never became ready. vLLM ends late, or not at all,
        when it is stopped while it starts.
    type: float
    default: 0
  port:
    description: TCP port that nobody may listen at after the stop; V(0) is none.
    type: int
    default: 0
  address:
    description: The IP address of O(port). Empty is any.
    type: str
    default: ""
  gpus:
    description:
      - Indices or UUIDs of the GPUs of which ended processes may hold no memory after the stop. A process of somebody
        else that holds some is told in RV(notes).
      - Asked is C(nvidia-smi). Without it RV(notes) says that it was not looked.
    type: list
    elements: str
    default: []
  leftover_timeout:
    description: Seconds after the end of the unit within which the last process, socket and memory must be gone.
    type: float
    default: 30
  return_after:
    description:
      - Seconds after which this call returns with RV(done=false), without failure; V(0) is no limit. The stop goes on.
        A further call with the same options waits on, and all limits count from the begin of the stop.
      - For whoever must do something meanwhile, such as renewing a lease.
    type: float
    default: 0
  interval:
    description: Seconds between two looks.
    type: float
    default: 0.5
extends_documentation_fragment:
  - llmops.vllm.attributes
attributes:
  check_mode:
    support: full
    description: Tells whether the unit would be stopped or started, also where it is not there yet.
seealso:
  - module: llmops.vllm.vllm_drain
  - module: llmops.vllm.vllm_release
  - module: llmops.vllm.vllm_wait
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Stop a drained replica
  llmops.vllm.vllm_unit:
    name: vllm@r0.service
    state: stopped
    port: 8000
    gpus: [0, 1]

- name: Stop one that never became ready, and look every minute
  llmops.vllm.vllm_unit:
    name: vllm@r0.service
    state: stopped
    hard_after: 10
    return_after: 60
  register: stopped
  until: stopped.done
  retries: 10
  delay: 0

- name: Start it
  llmops.vllm.vllm_unit:
    name: vllm@r0.service
    state: started
"""

RETURN = r"""
done:
  description: Whether the unit is stopped and nothing of it is left, or is started. Otherwise call again.
  returned: when systemd was asked
  type: bool
before:
  description: The unit's C(ActiveState) and C(SubState) when it was first looked at.
  returned: when systemd was asked
  type: str
  sample: active/running
after:
  description: The same at the end; in check mode, as foreseen.
  returned: when systemd was asked
  type: str
  sample: inactive/dead
seconds:
  description: Seconds that this call took.
  returned: when systemd was asked
  type: float
hard:
  description: Whether the unit's process was killed, here after O(hard_after) or by systemd at the end of its time.
  returned: when systemd was asked
  type: bool
restarts:
  description: Restarts by systemd that the unit has had, for the option of the same name of M(llmops.vllm.vllm_wait).
  returned: when systemd was asked
  type: int
notes:
  description: What one should know besides, such as that GPUs were not looked at.
  returned: when systemd was asked
  type: list
  elements: str
msg:
  description: How it ended in words.
  returned: always
  type: str
  sample: "vllm@r0.service is inactive/dead, its process exited with code 0, and nothing of it is left"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.leftovers import Leftovers
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.unit import Change, NotDone, Wish

SPEC = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "stopped"], "required": True},
    "timeout": {"type": "float", "default": 0.0},
    "hard_after": {"type": "float", "default": 0.0},
    "port": {"type": "int", "default": 0},
    "address": {"type": "str", "default": ""},
    "gpus": {"type": "list", "elements": "str", "default": []},
    "leftover_timeout": {"type": "float", "default": 30.0},
    "return_after": {"type": "float", "default": 0.0},
    "interval": {"type": "float", "default": 0.5},
}
LEFTOVERS = ("port", "address", "gpus")


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    p = module.params
    try:
        wish = Wish(**{name: p[name] for name in SPEC if name not in LEFTOVERS})
        change = Change(wish, Leftovers(**{name: p[name] for name in LEFTOVERS}))
        outcome = change.foresee() if module.check_mode else change.bring_about()
        module.exit_json(**outcome.result())
    except NotDone as problem:
        module.fail_json(**problem.outcome.result())
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
