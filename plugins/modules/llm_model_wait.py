#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_model_wait
short_description: Wait until a model is brought, and say how far it is
version_added: 0.2.0
description:
  - Waits for a task of M(llmops.vllm.llm_model) that was started with C(async) and C(poll=0), and prints how many bytes
    are there, how fast they come, and how long it will take, while it waits. Returns what that task returns.
  - The waiting is done on the controller, in an action; the module on the host looks once.
options:
  job:
    description: The C(ansible_job_id) of the task. Without it the module says once how far it is, and does not wait.
    type: str
  name:
    description: Name of the model.
    type: str
    required: true
  revision:
    description: Its revision.
    type: str
    required: true
  root:
    description: Directory below which models lie.
    type: path
    default: /srv/llm-models
  interval:
    description: Seconds between two lines.
    type: int
    default: 15
extends_documentation_fragment:
  - llmops.vllm.attributes
attributes:
  check_mode:
    support: full
    description: Nothing is brought in check mode, so there is nothing to wait for.
  diff_mode:
    support: full
    description: The diff is that of the task that was waited for.
  idempotent:
    support: full
    description: It changes nothing itself; C(changed) is that of the task that was waited for.
seealso:
  - module: llmops.vllm.llm_model
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Begin to bring a model
  llmops.vllm.llm_model:
    name: llama-8b
    source: https://mirror.example/models/llama-8b
    revision: "2026-11-01"
  async: 14400
  poll: 0
  register: begun

- name: Wait for it
  llmops.vllm.llm_model_wait:
    job: "{{ begun.ansible_job_id }}"
    name: llama-8b
    revision: "2026-11-01"
"""

RETURN = r"""
progress:
  description:
    - How far it is, with C(phase) (V(bring), V(check), empty when nobody brings it), C(bytes), and C(total_bytes),
      which is 0 when it is not known.
  type: dict
  returned: without O(job)
path:
  description: Directory of the revision, and whatever else M(llmops.vllm.llm_model) returns.
  type: str
  returned: with O(job)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._model import progress as model_progress
from ansible_collections.llmops.vllm.plugins.module_utils._model.request import Request

SPEC = {
    "job": {"type": "str"},
    "name": {"type": "str", "required": True},
    "revision": {"type": "str", "required": True},
    "root": {"type": "path", "default": "/srv/llm-models"},
    "interval": {"type": "int", "default": 15},
}


def main() -> None:
    """Spec, call, exit."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    p = module.params
    module.exit_json(changed=False, progress=model_progress.read(Request(p["name"], p["revision"], p["root"])))


if __name__ == "__main__":
    main()
