#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_model_peer
short_description: Serve models of this host to its peers for a while
version_added: 0.2.0
description:
  - Starts a process that serves revisions which M(llmops.vllm.llm_model) has staged, read-only, over HTTP, to whoever
    knows the token. With it ten hosts bring a model from its source once, and not ten times.
  - What is taken from it is known by RV(models[].sums_sha256), which travels by Ansible and not over that connection.
  - The process runs as O(reader) and ends when it is told to, when nobody has asked for O(idle) seconds, and after
    O(timeout) seconds in any case.
options:
  state:
    description: Whether to start such a process, or to end the one at O(url).
    type: str
    choices: [started, stopped]
    default: started
  root:
    description: Directory below which models lie.
    type: path
    default: /srv/llm-models
  models:
    description: Revisions to serve. Required with O(state=started).
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the model.
        type: str
        required: true
      revision:
        description: Its revision.
        type: str
        required: true
  address:
    description: Private address to listen on. Required with O(state=started).
    type: str
  port:
    description: Port to listen on. V(0) means any that is free.
    type: int
    default: 0
  reader:
    description: User as whom the process runs. Empty, and a user who is not there, means the one who starts it.
    type: str
    default: ""
  bandwidth_bytes_per_second:
    description: Bytes a second that all peers together get. V(0) is no limit.
    type: int
    default: 0
  idle:
    description: Seconds without a request after which it ends.
    type: float
    default: 120
  timeout:
    description: Seconds after which it ends in any case.
    type: float
    default: 14400
  url:
    description: Address that the process told when it was started. Required with O(state=stopped).
    type: str
  token:
    description: Token that it told. Required with O(state=stopped).
    type: str
extends_documentation_fragment:
  - llmops.vllm.attributes
attributes:
  idempotent:
    support: none
    description: Every start is another process with another token. Ending one twice changes nothing.
  diff_mode:
    support: none
    description: There is nothing to compare.
seealso:
  - module: llmops.vllm.llm_model
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Serve a model to the other hosts
  llmops.vllm.llm_model_peer:
    address: 192.0.2.21
    models:
      - name: llama-8b
        revision: 0e9e39f249a16976918f6564b8830bc894c89659
    reader: vllm
  register: served
  no_log: true # the token

- name: End it
  llmops.vllm.llm_model_peer:
    state: stopped
    url: "{{ served.url }}"
    token: "{{ served.token }}"
"""

RETURN = r"""
url:
  description: Address under which it serves.
  type: str
  returned: when it was started
  sample: http://192.0.2.21:40123
token:
  description: Who knows it is served, and may end the process.
  type: str
  returned: when it was started
pid:
  description: Number of the process.
  type: int
  returned: when it was started
models:
  description: What is served.
  type: list
  elements: dict
  returned: with O(state=started)
  contains:
    name:
      description: Name of the model.
      type: str
    revision:
      description: Its revision.
      type: str
    sums_sha256:
      description: SHA-256 of its C(SHA256SUMS), by which what is taken is known.
      type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._model import peer as model_peer

SPEC = {
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "root": {"type": "path", "default": "/srv/llm-models"},
    "models": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, "revision": {"type": "str", "required": True}},
    },
    "address": {"type": "str"},
    "port": {"type": "int", "default": 0},
    "reader": {"type": "str", "default": ""},
    "bandwidth_bytes_per_second": {"type": "int", "default": 0},
    "idle": {"type": "float", "default": 120.0},
    "timeout": {"type": "float", "default": 14400.0},
    "url": {"type": "str"},
    "token": {"type": "str", "no_log": True},
}


def main() -> None:
    """Spec, call, exit."""
    module = AnsibleModule(
        argument_spec=SPEC,
        required_if=[("state", "started", ("models", "address")), ("state", "stopped", ("url", "token"))],
        supports_check_mode=True,
    )
    p = dict(module.params)
    state, url, token = p.pop("state"), p.pop("url"), p.pop("token")
    try:
        if state == "stopped":
            result: dict[str, Any] = {"changed": model_peer.stop(url, token, check_mode=module.check_mode)}
        else:
            wish = model_peer.Wish(**p)
            result = {"changed": True, "models": model_peer.revisions(wish)}
            if not module.check_mode:
                result.update(model_peer.start(wish))
    except LlmopsError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
