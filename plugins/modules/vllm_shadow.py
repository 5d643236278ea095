#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_shadow
short_description: Compare a candidate with an old vLLM replica on the same prompts
version_added: 0.2.0
description:
  - Replays prompts of the lengths that a pool really gets to a candidate and to an old replica of the pool, and says
    whether the candidate is worse. For the time before the candidate gets traffic, and where traffic is scarce.
  - Compared are errors, the time to the first token (TTFT), the mean time between two tokens of an answer (ITL), and,
    when both serve the same model, the reasons why answers ended and how far the greedy answers agree. A latency is
    worse when its median is more than O(ratio) times as long B(and) longer by more than a difference.
  - The prompts are made up, of common words; nothing of a client is replayed. Each is new to both replicas, so no
    prefix cache helps.
  - The old replica serves clients meanwhile. Few prompts are asked at a time, and none while a client's request waits
    there. It is therefore the slower one, and a candidate that is worse all the same is worse indeed.
  - The module fails when the candidate is worse. RV(verdict=not_enough_samples) is no failure and no praise either, and
    whoever asked decides what to do then.
options:
  url:
    description: Address of the candidate, such as V(http://192.0.2.22:8000).
    type: str
    required: true
  old_url:
    description: Address of a replica of the same pool that still has the old release.
    type: str
    required: true
  api_key:
    description: A key that both replicas accept.
    type: str
    default: ""
  old_api_key:
    description: A key that the old replica accepts, where it is another one.
    type: str
  model:
    description: The served name that answers at both.
    type: str
    required: true
  mix:
    description: Lengths of prompts and answers. Without it and without O(access_log), a synthetic mix of chats is used.
    type: list
    elements: dict
    suboptions:
      prompt_tokens:
        description: Tokens of the prompt.
        type: int
        required: true
      output_tokens:
        description: Most tokens of the answer.
        type: int
        required: true
      weight:
        description: How many of such requests there are beside the others.
        type: float
        default: 1
  access_log:
    description:
      - Access log of the balancer on which the module runs, usually V(/var/log/nginx/llm_access.log). Lengths are
        estimated from bytes, since the log has no content; the end of the log is read, 8 MiB at most.
      - When it holds fewer than O(samples) requests of the pool, the synthetic mix is used, and RV(notes) says so.
    type: path
  pool:
    description: The pool whose requests in O(access_log) count.
    type: str
  requests:
    description: Prompts that each replica is asked, 1 to 1000, beside those of O(ignore).
    type: int
    default: 60
  ignore:
    description: The first prompts, which are asked and not compared, because caches are cold. Their errors count.
    type: int
    default: 5
  parallel:
    description: Prompts that are asked at the same time, 1 to 8.
    type: int
    default: 2
  max_prompt_tokens:
    description: Longer prompts are cut to this.
    type: int
    default: 4096
  max_output_tokens:
    description: Longer answers are cut to this, 1 to 4096.
    type: int
    default: 256
  request_timeout:
    description: Seconds that one answer may take.
    type: float
    default: 60
  timeout:
    description: Seconds that all of it may take. What was asked until then is compared.
    type: float
    default: 300
  seed:
    description: Decides the words of the prompts and their order.
    type: int
    default: 1
  samples:
    description: Prompts that both must have answered.
    type: int
    default: 30
  ratio:
    description: A median that is more than so many times as high may be worse.
    type: float
    default: 1.5
  ttft_seconds:
    description: ... if the TTFT differs by more than so many seconds.
    type: float
    default: 0.1
  itl_seconds:
    description: ... if the ITL differs by more than so many seconds.
    type: float
    default: 0.02
  error_points:
    description: Errors are worse when their ratio is higher by more than so many percentage points.
    type: float
    default: 0.5
  finish_points:
    description:
      - With the same model, worse is a share of answers that end by themselves which differs, up or down, by more than
        so many percentage points.
    type: float
    default: 20
  common_prefix:
    description:
      - With the same model, worse is a mean share, 0 to 1, of the answers that is the same from the start, below this.
        Batches and other kernels let answers of the same weights part at some point, so V(1) is never reached for long.
    type: float
    default: 0.2
extends_documentation_fragment:
  - llmops.vllm.attributes.info
attributes:
  check_mode:
    support: full
    description: Judges the options and reads O(access_log), asks nothing, and is skipped.
seealso:
  - module: llmops.vllm.vllm_golden
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Compare a candidate with an old replica, by the pool's own lengths
  llmops.vllm.vllm_shadow:
    url: http://192.0.2.22:8000
    old_url: http://192.0.2.21:8000
    api_key: "{{ llmops_backend_keys | first }}"
    model: llama-70b
    access_log: /var/log/nginx/llm_access.log
    pool: llama-70b
  delegate_to: lb1
  become: true
  register: shadow

- name: Compare with lengths that are known
  llmops.vllm.vllm_shadow:
    url: http://192.0.2.22:8000
    old_url: http://192.0.2.21:8000
    api_key: "{{ llmops_backend_keys | first }}"
    model: llama-70b
    mix:
      - prompt_tokens: 200
        output_tokens: 100
        weight: 3
      - prompt_tokens: 3000
        output_tokens: 400
"""

RETURN = r"""
verdict:
  description:
    - V(not_worse) when everything was compared, V(worse) when anything is worse, V(not_enough_samples) when too few
      prompts were answered by both in time.
  returned: when both were asked
  type: str
checks:
  description: The comparisons V(errors), V(ttft), V(itl), V(finish_reasons) and V(common_prefix).
  returned: when both were asked
  type: list
  elements: dict
  contains:
    name:
      description: What was compared.
      type: str
    result:
      description: One of V(not_worse), V(worse), V(not_enough_samples); V(not_compared) for what decides nothing.
      type: str
    new:
      description: The candidate's figure; seconds, percent, or the share of the common prefix.
      type: float
    old:
      description: The old replica's figure.
      type: float
    samples_new:
      description: Answers of the candidate behind the figure.
      type: int
    samples_old:
      description: Answers of the old replica behind the figure.
      type: int
    words:
      description: All of it in words.
      type: str
pairs:
  description: Prompts that were asked of both and compared.
  returned: when both were asked
  type: int
new:
  description:
    - The candidate's side with C(requests), C(errors), C(ttft_p50), C(ttft_p95), C(itl_p50), C(itl_p95),
      C(prompt_tokens), C(output_tokens) and C(finished).
  returned: when both were asked
  type: dict
old:
  description: The same of the old replica.
  returned: when both were asked
  type: dict
divergence:
  description: C(differ), the number of prompts whose answers differ, and C(common_prefix), the mean share.
  returned: when both were asked
  type: dict
same_model:
  description: Whether both surely serve the same revision of the model.
  returned: when both were asked
  type: bool
clipped:
  description: Prompts that were cut, or whose answers were, to fit O(max_prompt_tokens) and the like.
  returned: when both were asked
  type: int
held:
  description: Seconds for which nothing was asked, because requests of clients waited at the old replica.
  returned: when both were asked
  type: float
mix:
  description: The lengths that were replayed, fit for O(mix).
  returned: always
  type: list
  elements: dict
notes:
  description: What one should know besides, such as that the log told too little.
  returned: always
  type: list
  elements: str
elapsed:
  description: Seconds that all of it took.
  returned: when both were asked
  type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._gate import shadow_mix
from ansible_collections.llmops.vllm.plugins.module_utils._gate.comparison import WORSE
from ansible_collections.llmops.vllm.plugins.module_utils._gate.shadow import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._gate.shadow_run import Bounds, run
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import Replica

BOUNDS = {
    "requests": {"type": "int", "default": 60},
    "ignore": {"type": "int", "default": 5},
    "parallel": {"type": "int", "default": 2},
    "max_prompt_tokens": {"type": "int", "default": 4096, "no_log": False},
    "max_output_tokens": {"type": "int", "default": 256, "no_log": False},
    "request_timeout": {"type": "float", "default": 60.0},
    "timeout": {"type": "float", "default": 300.0},
    "seed": {"type": "int", "default": 1},
}
LIMITS = {
    "samples": {"type": "int", "default": 30},
    "ratio": {"type": "float", "default": 1.5},
    "ttft_seconds": {"type": "float", "default": 0.1},
    "itl_seconds": {"type": "float", "default": 0.02},
    "error_points": {"type": "float", "default": 0.5},
    "finish_points": {"type": "float", "default": 20.0},
    "common_prefix": {"type": "float", "default": 0.2},
}
SPEC = {
    "url": {"type": "str", "required": True},
    "old_url": {"type": "str", "required": True},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "old_api_key": {"type": "str", "no_log": True},
    "model": {"type": "str", "required": True},
    "mix": {
        "type": "list",
        "elements": "dict",
        "options": {
            "prompt_tokens": {"type": "int", "required": True, "no_log": False},
            "output_tokens": {"type": "int", "required": True, "no_log": False},
            "weight": {"type": "float", "default": 1.0},
        },
    },
    "access_log": {"type": "path"},
    "pool": {"type": "str"},
    **BOUNDS,
    **LIMITS,
}


def _mix(p: dict[str, Any], samples: int) -> tuple[list[shadow_mix.Kind], list[str]]:
    """The lengths that are replayed, and what is to be said of them."""
    if p["mix"] is not None:
        return shadow_mix.read_mix(p["mix"]), []
    if p["access_log"]:
        try:
            return shadow_mix.mix_of_log(p["access_log"], p["pool"], samples), []
        except shadow_mix.SparseLog as problem:
            return list(shadow_mix.SYNTHETIC), [f"{problem}: a synthetic mix of chats was replayed instead"]
    return list(shadow_mix.SYNTHETIC), []


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=SPEC,
        supports_check_mode=True,
        mutually_exclusive=[("mix", "access_log")],
        required_together=[("access_log", "pool")],
    )
    p = module.params
    try:
        bounds = Bounds(**{name: p[name] for name in BOUNDS})
        limits = Limits(**{name: p[name] for name in LIMITS})
        mix, notes = _mix(p, limits.samples)
        told = {"mix": shadow_mix.as_data(mix), "notes": notes}
        if module.check_mode:
            module.exit_json(changed=False, skipped=True, msg="the options are valid, nothing was asked", **told)
        new = Replica(p["url"], p["api_key"])
        old = Replica(p["old_url"], p["api_key"] if p["old_api_key"] is None else p["old_api_key"])
        report = run(new, old, p["model"], mix, bounds, limits)
        words = f"{p['url']} against {p['old_url']}: {report.verdict.words}"
        if report.verdict.verdict == WORSE:
            module.fail_json(msg=words, **report.result(), **told)
        module.exit_json(changed=False, msg=words, **report.result(), **told)
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
