#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_capacity_info
short_description: Does this model with these flags fit these GPUs, and what does a load need
version_added: 0.2.0
description:
  - Computes what weights and KV cache of a model take on each GPU, how many tokens and requests the cache holds, which
    tensor parallel sizes work, and what would make a model fit that does not, the smallest change first.
  - With a O(load), also how many replicas carry it and what they cost.
  - Nothing is installed, started or measured. The rules are those of vLLM 0.32; the guide on sizing tells the source
    and the error of each formula.
options:
  path:
    description:
      - Directory of a model revision, whose files are then read for what they really weigh, or a C(config.json).
      - Either this or O(config).
    type: path
  config:
    description: The content of a C(config.json).
    type: dict
  gpu_types:
    description:
      - Tiers to judge, such as V(h100-80gb).
      - Known are t4, a10, a10g, l4, a100-40gb, a100-pcie-40gb, l40s, rtx-6000-ada, h100-80gb, h100-pcie-80gb,
        a100-80gb, a100-pcie-80gb, h100-nvl-94gb, gh200, rtx-pro-6000, h200-141gb, h200-nvl-141gb, b200-180gb and b300.
    type: list
    elements: str
    default: []
  memory_bytes:
    description: Bytes of one GPU, where it is of no tier. Wins over the memory of the tiers. 0 means that of the tier.
    type: int
    default: 0
  gpus:
    description: GPUs of a host, of which a replica may take all.
    type: int
    default: 8
  tensor_parallel_size:
    description:
      - Tensor parallel size. 0 means the smallest with which the model fits, or, where tokens per second are estimated,
        the one that carries the O(load) for least.
    type: int
    default: 0
  settings:
    description:
      - Long flag names of C(vllm serve) and their values. Those that count are gpu-memory-utilization, max-model-len,
        max-num-seqs, max-num-batched-tokens, performance-mode, kv-cache-dtype, kv-cache-memory-bytes, quantization,
        dtype, pipeline-parallel-size, block-size, async-scheduling, enforce-eager and disable-hybrid-kv-cache-manager.
      - A max-model-len of V(auto) or V(-1) is the longest that fits.
      - >-
        The verdict is C(not known) with those that no formula follows: hf-overrides, cpu-offload-gb,
        offload-group-size, speculative-config, decode-context-parallel-size, prefill-context-parallel-size,
        data-parallel-size for a mixture of experts, and a quantization other than FP8 and INT8 of weights that are
        not quantised.
    type: dict
    default: {}
  quantizations:
    description:
      - The weights to judge; V(as_is); V(fp8), which vLLM makes of 16-bit files while it loads them; V(int4), a
        checkpoint as AWQ, GPTQ and compressed-tensors make them, in groups of 128.
      - Empty means V(as_is). Only weights that are not quantised can be judged as V(fp8) or V(int4).
    type: list
    elements: str
    choices: [as_is, fp8, int4]
    default: []
  profile:
    description:
      - Profile whose flags lie under O(settings), as those of a replica do. Empty means what vLLM chooses by itself.
    type: str
    choices: ["", baseline, long_context, multi_turn, streaming, batch]
    default: ""
  load:
    description: What clients ask, and what they were promised.
    type: dict
    suboptions:
      requests_per_minute:
        description: Requests that come in a minute, beside the peak.
        type: float
        required: true
      input_tokens:
        description: Tokens of a prompt, in the mean. 0 means those with which O(profile) is measured.
        type: int
        default: 0
      output_tokens:
        description: Tokens of an answer, in the mean. 0 means those with which O(profile) is measured.
        type: int
        default: 0
      peak_factor:
        description: How many times as many come at the peak.
        type: float
        default: 1
      peak_hours:
        description: Hours of a day in which the peak lasts.
        type: float
        default: 24
      spare:
        description: Share of each replica that stays free at the peak.
        type: float
        default: 0.35
      itl_seconds:
        description: Promised seconds between two tokens, in the mean.
        type: float
        default: 0.05
      ttft_seconds:
        description: Promised seconds to the first token, in the mean. 0 means that none are promised.
        type: float
        default: 0
  tokens_per_second:
    description:
      - Tokens that a replica on GPUs of a tier was measured to generate in a second within the promises of the O(load).
        They are estimated for a tier that is not named, to a factor of two.
      - They count for the first of O(quantizations); of the others nobody measured them.
    type: dict
    default: {}
  usd_per_gpu_hour:
    description:
      - What a GPU of a tier costs in an hour, in US dollars. A tier that is not named counts with an example, a price
        that somebody asked in the year of the release.
    type: dict
    default: {}
  report_only:
    description: Return no results, and why in RV(lines), for a model that is not understood, instead of failing.
    type: bool
    default: false
extends_documentation_fragment:
  - llmops.vllm.attributes.info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Does it fit this host
  llmops.vllm.vllm_capacity_info:
    path: /srv/llm-models/llama-70b/6f6073b423013f6a7d4d9f39144961bfbfbc386b
    gpu_types: [h100-80gb]
    tensor_parallel_size: 4
    settings:
      max-model-len: 32768
  register: capacity

- name: It does
  ansible.builtin.assert:
    that: capacity.results[0].verdict == 'fits'
    fail_msg: "{{ capacity.lines | join('\n') }}"

- name: What a load costs on two kinds of GPUs
  llmops.vllm.vllm_capacity_info:
    config: "{{ lookup('ansible.builtin.file', 'files/config.json') | from_json }}"
    gpu_types: [h100-80gb, h200-141gb]
    settings:
      max-model-len: 8192
    load:
      requests_per_minute: 1000
      input_tokens: 750
      output_tokens: 250
      peak_factor: 2.5
      peak_hours: 4
  delegate_to: localhost
"""

RETURN = r"""
results:
  description: One for each tier, and for each of O(quantizations) on it.
  returned: always
  type: list
  elements: dict
  contains:
    gpu_type:
      description: The tier, empty where bytes alone were given.
      type: str
    quantization:
      description: V(fp8) or V(int4), empty for the weights as they are.
      type: str
    memory_bytes:
      description: Bytes of one GPU.
      type: int
    gpus:
      description: GPUs that a replica takes.
      type: int
    tensor_parallel_size:
      description: The size that was asked for, or found.
      type: int
    tensor_parallel_sizes:
      description: Sizes that work for this model.
      type: list
      elements: int
    verdict:
      description:
        - C(fits); C(tight) where it fits without the estimate of what computing needs, so that it may not start;
          C(does not fit) where vLLM is certain to refuse; C(not known) where a formula is missing, or one of the
          O(settings) has none.
      type: str
    reason:
      description: Why it does not, or may not, or why nobody knows, in words.
      type: str
    length:
      description: Tokens of the longest request, null where neither flags nor config tell it.
      type: int
    fitted:
      description: Whether C(length) is what fits, as max-model-len says V(auto), 0 for not one token.
      type: bool
    budget:
      description: Bytes of a GPU that vLLM may use.
      type: int
    weights:
      description: Bytes of weights on the fullest GPU, null for a family of models that is not known.
      type: int
    margin:
      description: Bytes that computing is estimated to need beside.
      type: int
    request:
      description: Bytes of cache that one request of the longest length takes on a GPU.
      type: int
    pool:
      description: Bytes that are left for the cache on a GPU.
      type: int
    blocks:
      description: Blocks of this pool.
      type: int
    cache_tokens:
      description: Tokens that it holds, as vLLM tells them in C(kv_cache_size_tokens).
      type: int
    concurrency:
      description: Requests of the longest length that it holds at once.
      type: float
    kv_bytes_per_token:
      description: Bytes of cache for a token on a GPU, with all layers keeping it.
      type: int
    useful_concurrency:
      description: Requests of the load's length that are served at once.
      type: float
    changes:
      description: What would make it fit, each by itself, the smallest first, as C(variable), C(value) and C(words).
      type: list
      elements: dict
    sizing:
      description: >-
        Replicas and cost for the load, null without a load and where it does not fit. C(replicas), C(base_replicas),
        C(gpus), C(because), C(tokens_per_second), C(measured), C(concurrency), C(usd_per_gpu_hour),
        C(example_price), whether that is only an example, C(usd_per_hour), C(usd_per_month),
        C(scaled_usd_per_month), C(usd_per_million_tokens), C(usd_per_million_output_tokens) and
        C(full_usd_per_million_output_tokens).
      type: dict
    sizing_reason:
      description: Why there is no sizing though the model fits, in words.
      type: str
lines:
  description: The results as tables for people.
  returned: always
  type: list
  elements: str
"""

import pathlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.recipes import RECIPES
from ansible_collections.llmops.vllm.plugins.module_utils._capacity import report
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.files import tensors
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.load import Load
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.variants import AS_IS, VARIANTS, variant
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._fleet import PROFILES
from ansible_collections.llmops.vllm.plugins.module_utils._model.facts import config

LOAD_SPEC = {
    "requests_per_minute": {"type": "float", "required": True},
    "input_tokens": {"type": "int", "default": 0, "no_log": False},
    "output_tokens": {"type": "int", "default": 0, "no_log": False},
    "peak_factor": {"type": "float", "default": 1.0},
    "peak_hours": {"type": "float", "default": 24.0},
    "spare": {"type": "float", "default": 0.35},
    "itl_seconds": {"type": "float", "default": 0.05},
    "ttft_seconds": {"type": "float", "default": 0.0},
}
SPEC = {
    "path": {"type": "path"},
    "config": {"type": "dict"},
    "gpu_types": {"type": "list", "elements": "str", "default": []},
    "memory_bytes": {"type": "int", "default": 0},
    "gpus": {"type": "int", "default": 8},
    "tensor_parallel_size": {"type": "int", "default": 0},
    "settings": {"type": "dict", "default": {}},
    "quantizations": {"type": "list", "elements": "str", "choices": list(VARIANTS), "default": []},
    "profile": {"type": "str", "choices": ["", *PROFILES], "default": ""},
    "load": {"type": "dict", "options": LOAD_SPEC},
    "tokens_per_second": {"type": "dict", "default": {}, "no_log": False},
    "usd_per_gpu_hour": {"type": "dict", "default": {}},
    "report_only": {"type": "bool", "default": False},
}


def _load(given: dict[str, Any], profile: str) -> Load:
    usual = RECIPES[profile or "baseline"]
    lengths = {name: given[name] or getattr(usual, name) for name in ("input_tokens", "output_tokens")}
    return Load(**{name.replace("_seconds", ""): value for name, value in {**given, **lengths}.items()})


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=SPEC,
        supports_check_mode=True,
        mutually_exclusive=[("path", "config")],
        required_one_of=[("path", "config")],
    )
    p = module.params
    try:
        path = pathlib.Path(p["path"]) if p["path"] else None
        content = config(path) if path else p["config"]
        weights = tensors(path) if path and path.is_dir() else ()
        settings = report.settings(p["profile"], p["settings"])
        prices, measured = (report.by_tier(name, p[name]) for name in ("usd_per_gpu_hour", "tokens_per_second"))
        load = _load(p["load"], p["profile"]) if p["load"] else None
        variants = [variant(name, content, weights, settings) for name in p["quantizations"] or [AS_IS]]
        rows = [
            report.row(
                model,
                report.gpus(kind, p["memory_bytes"], p["gpus"]),
                flags,
                p["tensor_parallel_size"],
                load,
                prices,
                {} if number else measured,
            )
            for kind in p["gpu_types"] or [""]
            for number, (model, flags) in enumerate(variants)
        ]
        module.exit_json(changed=False, results=rows, lines=report.lines(rows, load))
    except LlmopsError as problem:
        if p["report_only"]:
            module.exit_json(changed=False, results=[], lines=[str(problem)])
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
