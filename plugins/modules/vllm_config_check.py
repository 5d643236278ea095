#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_config_check
short_description: Check vLLM settings with the installed vLLM itself
version_added: 0.1.0
description:
  - Judges settings of C(vllm serve) before anything that serves is changed, with the parser and the engine
    configuration of the vLLM that will run them. No engine is started and no weight is read.
  - Runs as the service user, offline, in a home of its own that is removed afterwards, and within a time limit,
    because a model repository may carry code.
  - Finds unknown, misspelt, removed and abbreviated flags, wrong types and choices, V(null) values, unknown keys that
    are V(false) (which vLLM drops silently), limits above those of the model, heads that the tensor parallel size does
    not divide, unknown parsers, a model or an adapter (LoRA) that is missing or that the service user may not read,
    and adapters that vLLM would refuse at the end of a start, such as those of a rank above C(max-lora-rank).
  - Does not find a model that is too large for the GPU memory, nor a port that is in use.
options:
  env:
    description: Directory of the vLLM environment; its C(bin/python) does the work.
    type: path
    required: true
  user:
    description: The account that the check becomes when it is started by root. Without it the check stays who it is.
    type: str
    default: ""
  configs:
    description: The configurations to judge, all in one process, because importing vLLM is what costs time.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the result is called, usually the replica.
        type: str
        required: true
      settings:
        description: Long flag names of C(vllm serve) without dashes, and their values. C(model) must be one of them.
        type: dict
        required: true
      environment:
        description: Environment variables that the service will have.
        type: dict
        default: {}
  timeout:
    description: Seconds that the check may take, all configurations together.
    type: int
    default: 300
  cache_dir:
    description:
      - Directory in which good results are remembered. Empty means that nothing is remembered.
      - A result is used again only if environment, settings, variables, model, adapters, user, GPU type and driver are
        the same.
    type: path
  gpu_type:
    description: Name of this host's GPU, part of what a remembered result depends on.
    type: str
    default: ""
  driver:
    description: Version of this host's GPU driver, part of what a remembered result depends on.
    type: str
    default: ""
  report_only:
    description: Return what was found instead of failing.
    type: bool
    default: false
extends_documentation_fragment:
  - llmops.vllm.attributes.info
attributes:
  check_mode:
    support: full
    description: >-
      Checks as usual, without remembering results. Where the environment or the model is not there yet, it says so
      with RV(checked=false) and never with RV(ok=true).
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Check the settings of a replica
  llmops.vllm.vllm_config_check:
    env: /opt/vllm/env/0.32.0-1a2b3c4d
    user: vllm
    cache_dir: /var/cache/llmops/vllm-check
    configs:
      - name: r0
        settings:
          model: /srv/llm-models/llama-70b/6f6073b423013f6a7d4d9f39144961bfbfbc386b
          max-model-len: 16384
          tensor-parallel-size: 2
"""

RETURN = r"""
ok:
  description: Whether every configuration was judged and is good.
  returned: always
  type: bool
checked:
  description: Whether every configuration was judged. Only check mode leaves one out.
  returned: always
  type: bool
msg:
  description: The findings, one a line.
  returned: always
  type: str
  sample: "r0: max-model-len=99999: max_model_len (99999) is greater than ...: set max-model-len to 8192 or less"
results:
  description: One entry per configuration, in the order given.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The configuration's name.
      type: str
    ok:
      description: Whether it is good.
      type: bool
    checked:
      description: Whether it was judged.
      type: bool
    cached:
      description: Whether the verdict was remembered from an earlier run.
      type: bool
    errors:
      description: Findings, each with C(flag), C(value), C(message) and C(mend).
      type: list
      elements: dict
    effective:
      description: Values as vLLM resolved them, such as C(max_model_len) and C(max_num_seqs).
      type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.check import check

CONFIG_SPEC = {
    "name": {"type": "str", "required": True},
    "settings": {"type": "dict", "required": True},
    "environment": {"type": "dict", "default": {}},
}

SPEC = {
    "env": {"type": "path", "required": True},
    "user": {"type": "str", "default": ""},
    "configs": {"type": "list", "elements": "dict", "required": True, "options": CONFIG_SPEC},
    "timeout": {"type": "int", "default": 300},
    "cache_dir": {"type": "path"},
    "gpu_type": {"type": "str", "default": ""},
    "driver": {"type": "str", "default": ""},
    "report_only": {"type": "bool", "default": False},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    p = module.params
    try:
        outcome = check(
            p["env"],
            p["user"],
            p["configs"],
            timeout=p["timeout"],
            cache_dir=p["cache_dir"],
            gpu_type=p["gpu_type"],
            driver=p["driver"],
            check_mode=module.check_mode,
        )
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))
    else:
        result = {"results": outcome.results, "ok": outcome.ok, "checked": outcome.checked, "msg": outcome.message}
        if outcome.refused and not p["report_only"]:
            module.fail_json(**result)
        module.exit_json(changed=False, skipped=not outcome.checked and not outcome.refused, **result)


if __name__ == "__main__":
    main()
