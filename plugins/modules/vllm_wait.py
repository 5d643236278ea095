#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_wait
short_description: Wait until a vLLM replica really generates
version_added: 0.1.0
description:
  - Waits until the replica lists the expected model and revision and has answered real completions.
  - Ends at once, with the last lines of the journal, when the watched unit's process exits, and when waiting cannot
    help, because the key is not accepted or another model is served. A refused connection is a replica that starts.
options:
  url:
    description: Address of the replica, such as V(http://192.0.2.21:8000).
    type: str
    required: true
  api_key:
    description: A key that the replica accepts.
    type: str
    default: ""
  model:
    description: The served name that must be listed and answers the completions.
    type: str
    required: true
  revision:
    description: Revision of the model; the alias C(<model>@<first 12 characters>) must be listed too.
    type: str
    default: ""
  unit:
    description: systemd unit on this host whose process is watched. Empty watches none.
    type: str
    default: ""
  completions:
    description: Number of real completions that must succeed.
    type: int
    default: 1
  prompt:
    description: The prompt of the completions.
    type: str
    default: "Say one word:"
  restarts:
    description:
      - The RV(restarts) of an earlier call, or of M(llmops.vllm.vllm_unit) that started the unit, so that this one
        notices that the process ended in between. V(-1) counts from now on.
    type: int
    default: -1
  timeout:
    description:
      - Seconds until the wait is given up.
      - A number below 0 counts as 0, with which it is looked, and not waited.
    type: float
    default: 600
  return_after:
    description:
      - Seconds after which this call returns although the replica is not ready, without failure; V(0) is no limit. A
        completion that has begun is finished first, which may take O(request_timeout).
      - A further call is given the rest of O(timeout), which is that without RV(elapsed), and RV(restarts). It asks for
        all O(completions) again.
      - For whoever must do something meanwhile, such as renewing a lease.
    type: float
    default: 0
  request_timeout:
    description: Seconds that one completion may take.
    type: int
    default: 60
  interval:
    description: Seconds between two looks.
    type: float
    default: 1.0
  journal_lines:
    description: Lines of the unit's journal that a failure shows.
    type: int
    default: 30
  state:
    description: What is waited for.
    type: str
    choices: [ready]
    default: ready
extends_documentation_fragment:
  - llmops.vllm.attributes.info
attributes:
  check_mode:
    support: full
    description: Does not wait. Looks once, asks for no completion, and is skipped when the replica is not there.
seealso:
  - module: llmops.vllm.vllm_info
  - module: llmops.vllm.vllm_unit
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Wait until the replica generates
  llmops.vllm.vllm_wait:
    url: http://192.0.2.21:8000
    api_key: "{{ llmops_backend_keys | first }}"
    model: llama-70b
    revision: 6f6073b423013f6a7d4d9f39144961bfbfbc386b
    unit: vllm@r0.service
    completions: 3

- name: Look for a minute, to go on later
  llmops.vllm.vllm_wait:
    url: http://192.0.2.21:8000
    api_key: "{{ llmops_backend_keys | first }}"
    model: llama-70b
    unit: vllm@r0.service
    restarts: "{{ earlier.restarts }}"
    timeout: "{{ 1800 - earlier.elapsed }}"
    return_after: 60
"""

RETURN = r"""
ready:
  description: Whether the replica was ready.
  returned: always
  type: bool
done:
  description: The same, under the name that it has in M(llmops.vllm.vllm_unit).
  returned: always
  type: bool
elapsed:
  description: Seconds that this call waited.
  returned: always
  type: float
attempts:
  description: How often the replica was looked at.
  returned: always
  type: int
restarts:
  description:
    - The restarts by systemd that the unit had when it was first looked at, O(restarts) if given. V(-1) where no unit
      was looked at.
  returned: always
  type: int
last:
  description: What the replica answered last, in words.
  returned: always
  type: str
models:
  description: The names that the replica listed last.
  returned: always
  type: list
  elements: str
completions:
  description: The real completions, each with C(seconds), C(tokens) and C(text).
  returned: always
  type: list
  elements: dict
"""

import contextlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import Replica
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.wait import Ready, Wish, look_once, wait

SPEC = {
    "url": {"type": "str", "required": True},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "model": {"type": "str", "required": True},
    "revision": {"type": "str", "default": ""},
    "unit": {"type": "str", "default": ""},
    "completions": {"type": "int", "default": 1},
    "prompt": {"type": "str", "default": "Say one word:"},
    "restarts": {"type": "int", "default": -1},
    "timeout": {"type": "float", "default": 600.0},
    "return_after": {"type": "float", "default": 0.0},
    "request_timeout": {"type": "int", "default": 60},
    "interval": {"type": "float", "default": 1.0},
    "journal_lines": {"type": "int", "default": 30},
    "state": {"type": "str", "choices": ["ready"], "default": "ready"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    wish = Wish(**{name: module.params[name] for name in SPEC if name not in ("url", "api_key", "state")})
    replica = Replica(module.params["url"], module.params["api_key"])
    try:
        if module.check_mode:
            seen = Ready()
            # what runs now may be an older release with other keys: whatever it answers is no failure here
            with contextlib.suppress(LlmopsError):
                seen.ready = look_once(replica, wish, seen)
            module.exit_json(changed=False, skipped=not seen.ready, msg=seen.last, **seen.result())
        module.exit_json(changed=False, **wait(replica, wish).result())
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
