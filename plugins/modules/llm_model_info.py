#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_model_info
short_description: Facts of a model, read from its files
version_added: 0.2.0
description:
  - Reads C(config.json) and the headers of the C(safetensors) files of a model revision, in milliseconds and without
    its weights, and tells parameters, layers, heads, experts, types, quantisation, context and bytes.
  - Recognises an adapter (LoRA) by its C(adapter_config.json).
options:
  path:
    description: Directory of the model revision, as the module M(llmops.vllm.llm_model) returns it.
    type: path
    required: true
extends_documentation_fragment:
  - llmops.vllm.attributes.info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: What is this model
  llmops.vllm.llm_model_info:
    path: /srv/llm-models/llama-70b/6f6073b423013f6a7d4d9f39144961bfbfbc386b
  register: llama

- name: Show it
  ansible.builtin.debug:
    msg: "{{ llama.model.parameters / 1e9 }} billion parameters, {{ llama.model.weight_bytes / 1e9 }} GB"
"""

RETURN = r"""
model:
  description: The facts.
  returned: always
  type: dict
  contains:
    kind:
      description: What it is, C(model) or C(adapter).
      type: str
    architecture:
      description: The class that serves it, such as C(LlamaForCausalLM).
      type: str
    family:
      description: The C(model_type) of its language part.
      type: str
    parameters:
      description: >-
        Parameters in the files, or where the files are packed or not there those that follow from the shape; null for a
        family that is not known then.
      type: int
    active_parameters:
      description: Parameters of the language part that a token uses, null likewise.
      type: int
    layers:
      description: Layers.
      type: int
    hidden_size:
      description: Width of the model.
      type: int
    vocabulary:
      description: Tokens in its vocabulary.
      type: int
    heads:
      description: Attention heads.
      type: int
    kv_heads:
      description: Heads of keys and values.
      type: int
    head_dim:
      description: Width of a head.
      type: int
    latent_width:
      description: What latent attention keeps of a token, 0 for attention by heads.
      type: int
    window_layers:
      description: Layers that attend to a part of the context.
      type: int
    window:
      description: Tokens that these attend to.
      type: int
    experts:
      description: Experts of a layer, 0 for a dense model.
      type: int
    experts_per_token:
      description: Experts that a token is sent to.
      type: int
    context:
      description: The longest context in tokens, null where the config does not tell it.
      type: int
    dtype:
      description: Type of the plain weights.
      type: str
    quantization:
      description: The C(quant_method), empty for plain weights.
      type: str
    cache_formula:
      description: Whether the KV cache of its layers can be computed, see M(llmops.vllm.vllm_capacity_info).
      type: bool
    weight_bytes:
      description: Bytes of all tensors.
      type: int
    tensors:
      description: Number of tensors.
      type: int
    bytes_by_dtype:
      description: Bytes of the tensors of each type.
      type: dict
      sample: {"BF16": 16060522496}
    method:
      description: The method of an adapter, such as C(LORA).
      type: str
    rank:
      description: Rank of an adapter.
      type: int
    alpha:
      description: Scale of an adapter.
      type: float
    target_modules:
      description: Modules that an adapter changes.
      type: list
      elements: str
    base_model:
      description: The model that an adapter belongs to.
      type: str
"""

import pathlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._model.facts import facts

SPEC = {"path": {"type": "path", "required": True}}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        module.exit_json(changed=False, model=facts(pathlib.Path(module.params["path"])))
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
