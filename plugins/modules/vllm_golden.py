#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_golden
short_description: Ask a vLLM replica golden prompts and judge its answers
version_added: 0.2.0
description:
  - Asks one replica a list of prompts and fails when an answer is not as expected, with the expectation and what was
    found instead.
  - The prompts are read and judged as a whole before anything is asked; all that is wrong with them is told at once.
  - Answers are greedy (temperature 0, seed 0) and streamed, as most clients ask. An answer that does not end properly,
    with a token and a reason why it ended, fails whatever is expected of it.
  - Prompts are neither logged on the host nor returned.
options:
  state:
    description:
      - V(passed) asks and judges. V(recorded) asks, judges all but the similarity, and returns the answers as
        RV(recorded). V(valid) asks nothing and judges O(prompts) and O(recorded) alone, which needs no replica.
    type: str
    choices: [passed, recorded, valid]
    default: passed
  url:
    description: Address of the replica, such as V(http://192.0.2.21:8000). Needed unless O(state=valid).
    type: str
  api_key:
    description: A key that the replica accepts.
    type: str
    default: ""
  model:
    description: The served name that answers. Needed unless O(state=valid).
    type: str
  prompts:
    description:
      - A list of prompts, usually a YAML or JSON file on the controller, read by a lookup; see the examples.
      - Each is a mapping with a C(name) of its own; either C(prompt), a text to go on with, or C(messages), a chat as a
        list of mappings with C(role) and C(content); C(max_tokens), 1 to 4096, by default 64; and C(expect), a mapping
        with one or more of the following.
      - C(contains), a text or a list of texts that the answer must hold, upper and lower case told apart.
      - C(regex), an expression of Python, or a list of them, that must be found in the answer.
      - C(json_schema), a schema that the answer must fit, which is JSON and nothing else. Judged are C(type), C(enum),
        C(properties), C(required), C(additionalProperties), C(items), C(minimum) and C(maximum); C(title) and
        C(description) may be there; any other keyword is refused.
      - C(length), a mapping with C(min), C(max) or both, in characters.
      - C(similarity), the least share, above 0 and up to 1, of pieces of three characters that the answer must have in
        common with the recorded one. The same model rarely gives less than 0.5; V(1) means the same text, which
        batches and other GPUs alone can change.
    type: raw
    required: true
  recorded:
    description: What RV(recorded) was. Needed for prompts that expect C(similarity), unless O(state=recorded).
    type: dict
    default: {}
  parallel:
    description: Number of prompts that are asked at the same time, 1 to 64.
    type: int
    default: 4
  request_timeout:
    description: Seconds that one answer may take.
    type: float
    default: 60
  timeout:
    description: Seconds that all of them may take. What was not asked until then has failed.
    type: float
    default: 600
extends_documentation_fragment:
  - llmops.vllm.attributes.info
attributes:
  check_mode:
    support: full
    description: Judges O(prompts) and O(recorded), asks nothing, and is skipped.
seealso:
  - module: llmops.vllm.vllm_wait
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
# golden.yml, beside the inventory:
#
# - name: capital
#   prompt: "The capital of France is"
#   max_tokens: 8
#   expect:
#     contains: Paris
# - name: order as JSON
#   messages:
#     - role: user
#       content: "Two teas for table 7. Answer with JSON alone: item, count, table."
#   expect:
#     similarity: 0.6
#     json_schema:
#       type: object
#       required: [item, count]
#       properties:
#         count: {type: integer, minimum: 1}

- name: Judge the file before anything is touched
  llmops.vllm.vllm_golden:
    prompts: "{{ lookup('ansible.builtin.file', 'golden.yml') | from_yaml }}"
    recorded: "{{ lookup('ansible.builtin.file', 'golden_recorded.json') | from_json }}"
    state: valid
  delegate_to: localhost

- name: Record the answers of a replica that is known to be good
  llmops.vllm.vllm_golden:
    url: http://192.0.2.21:8000
    api_key: "{{ llmops_backend_keys | first }}"
    model: llama-70b
    prompts: "{{ lookup('ansible.builtin.file', 'golden.yml') | from_yaml }}"
    state: recorded
  register: golden

- name: Keep them on the controller
  ansible.builtin.copy:
    content: "{{ golden.recorded | to_nice_json }}"
    dest: golden_recorded.json
    mode: "0600"
  delegate_to: localhost

- name: Ask a candidate
  llmops.vllm.vllm_golden:
    url: http://192.0.2.22:8000
    api_key: "{{ llmops_backend_keys | first }}"
    model: llama-70b
    prompts: "{{ lookup('ansible.builtin.file', 'golden.yml') | from_yaml }}"
    recorded: "{{ lookup('ansible.builtin.file', 'golden_recorded.json') | from_json }}"
"""

RETURN = r"""
ok:
  description: Whether every answer was as expected.
  returned: when prompts were asked
  type: bool
asked:
  description: Number of prompts.
  returned: when prompts were asked
  type: int
passed:
  description: Number of prompts whose answer was as expected.
  returned: when prompts were asked
  type: int
failures:
  description: Each expectation that was not met; texts are shortened to 160 characters.
  returned: when prompts were asked
  type: list
  elements: dict
  contains:
    name:
      description: The prompt's name.
      type: str
    expectation:
      description: The key in C(expect), or V(answer) when there was no whole answer.
      type: str
    expected:
      description: What was expected.
      type: str
    found:
      description: What was found instead.
      type: str
answers:
  description: One entry a prompt, without its text.
  returned: when prompts were asked
  type: list
  elements: dict
  contains:
    name:
      description: The prompt's name.
      type: str
    ok:
      description: Whether the answer was as expected.
      type: bool
    finish_reason:
      description: Why the answer ended.
      type: str
    tokens:
      description: Tokens of the answer.
      type: int
    seconds:
      description: Seconds until its last token.
      type: float
    similarity:
      description: To the recorded answer, where similarity is expected.
      type: float
elapsed:
  description: Seconds that all of it took.
  returned: when prompts were asked
  type: float
recorded:
  description:
    - The answers by the prompts' names, each with C(text) and C(question), a digest that notices when the prompt was
      changed. They may quote what the prompts hold.
  returned: with O(state=recorded), when nothing failed
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._gate.golden import Limits, record, run
from ansible_collections.llmops.vllm.plugins.module_utils._gate.golden_file import check_recorded, read_prompts
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import Replica

SPEC = {
    "state": {"type": "str", "choices": ["passed", "recorded", "valid"], "default": "passed"},
    "url": {"type": "str"},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "model": {"type": "str"},
    "prompts": {"type": "raw", "required": True, "no_log": True},
    "recorded": {"type": "dict", "default": {}, "no_log": True},
    "parallel": {"type": "int", "default": 4},
    "request_timeout": {"type": "float", "default": 60.0},
    "timeout": {"type": "float", "default": 600.0},
}


def main() -> None:
    """Entry point of the module."""
    needs = [("state", state, ("url", "model")) for state in ("passed", "recorded")]
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, required_if=needs)
    p = module.params
    # no_log keeps prompts out of the host's log. In the result it would put asterisks into every text that has a word
    # of a prompt in it, an answer to be recorded, too; so the result goes without them, and the key alone is masked.
    given, recorded = p.pop("prompts"), p.pop("recorded")
    module.no_log_values = {p["api_key"]} - {""}
    try:
        prompts = read_prompts(given)
        if p["state"] != "recorded":
            check_recorded(prompts, recorded)
        limits = Limits(**{name: p[name] for name in ("parallel", "request_timeout", "timeout")})
        if module.check_mode or p["state"] == "valid":
            told = f"{len(prompts)} golden prompts are valid, nothing was asked"
            module.exit_json(changed=False, skipped=p["state"] != "valid", msg=told)
        judged = recorded if p["state"] == "passed" else None
        report = run(Replica(p["url"], p["api_key"]), p["model"], prompts, judged, limits)
        if not report.ok:
            module.fail_json(msg=report.words(p["url"]), **report.result())
        more = {"recorded": record(report)} if p["state"] == "recorded" else {}
        module.exit_json(changed=False, msg=report.words(p["url"]), **report.result(), **more)
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
