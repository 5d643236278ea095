#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_canary
short_description: Compare new replicas with old ones on live traffic
version_added: 0.2.0
description:
  - Watches replicas that were just put back with a new release, beside old replicas of the same pool, by what both
    count in their C(/metrics), and says whether the new ones are worse. Asks nothing of the engines.
  - Compared are the mean time to the first token (TTFT) without the time in the queue, the mean time between two tokens
    (ITL), the ratio of errors and, when both sides serve the same model, the mean length of the answers. A mean is
    worse only when it passes both limits, O(ratio) and the difference of its kind. Errors are answers 5xx, requests
    that the queue rejected, and streams that broke after HTTP 200.
  - The module fails when the new replicas are worse, and at once when one of them does not answer, was started anew,
    or has requests and makes no engine step for 30 s. With RV(verdict=not_enough_traffic) it does not fail, but
    nothing was shown either; the caller decides what follows.
  - Requests for a single token are taken for the completion probes of balancers and watchdogs and not counted.
  - For pools that generate text. Run it where the ports of the replicas are open, such as on a balancer.
options:
  state:
    description:
      - V(compared) compares O(new) with O(old), or with O(record) where no replica of O(old) is left.
      - V(recorded) only watches O(old) and returns a RV(record), to be made before the first replica is drained.
    type: str
    choices: [compared, recorded]
    default: compared
  new:
    description: The replicas with the new release. The watch begins with the call, so call when they are in rotation.
    type: list
    elements: dict
    default: []
    suboptions: &replica
      id:
        description: What the replica is called in the result.
        type: str
        required: true
      url:
        description: Address of the replica, such as V(http://192.0.2.21:8000).
        type: str
        required: true
  old:
    description:
      - Replicas of the same pool that still have the old release. One that does not answer, or is started anew, is left
        out from then on, and RV(notes) says so.
      - Without any, and without O(record), the new ones are watched to the end of O(soak) all the same, and the verdict
        is V(not_enough_traffic) unless one of them dies.
    type: list
    elements: dict
    default: []
    suboptions: *replica
  record:
    description: The RV(record) that O(state=recorded) returned.
    type: dict
  watch:
    description:
      - The RV(watch) that an earlier call for the same replicas returned. The watch goes on where it ended; its seconds
        and requests count.
    type: dict
  ignore:
    description: The first requests of each new replica whose times are not compared, because caches are cold.
    type: int
    default: 50
  samples:
    description:
      - Requests that each side must have had. With fewer, errors alone can show that the new ones are worse, when so
        many of them would fall on the new side by chance in less than one of 1000 cases.
    type: int
    default: 100
  ratio:
    description: A mean must be more than so many times as high to be worse. Its difference must be passed, too.
    type: float
    default: 1.5
  ttft_seconds:
    description: Difference in TTFT that must be passed besides O(ratio), in seconds.
    type: float
    default: 0.1
  itl_seconds:
    description: Difference in ITL that must be passed besides O(ratio), in seconds.
    type: float
    default: 0.02
  output_length:
    description:
      - Difference in the length of an answer that must be passed besides O(ratio), in tokens. Shorter is as wrong as
        longer, where the model is the same. Four standard errors must be passed, too, since lengths differ much. Those
        that still run when the watch ends count as long.
    type: float
    default: 20
  error_points:
    description: The ratio of errors is worse when it is higher by more than so many percentage points.
    type: float
    default: 0.5
  soak:
    description:
      - Seconds that the comparison lasts at least, however much traffic there is. Errors end it at once.
      - With O(state=recorded), the least seconds of the record.
    type: float
    default: 60
  timeout:
    description: Seconds until waiting for traffic is given up, over all calls of a watch. Not less than O(soak).
    type: float
    default: 600
  return_after:
    description:
      - Seconds after which this call returns with RV(verdict=watching), to go on with O(watch); V(0) is no limit.
      - For whoever must do something meanwhile, such as renewing a lease, or wants to show how far it is.
    type: float
    default: 0
  interval:
    description: Seconds between two looks. A replica that does not answer three of them is lost.
    type: float
    default: 5
  api_key:
    description: A key that the replicas accept.
    type: str
    default: ""
  request_timeout:
    description: Seconds that each request may take.
    type: float
    default: 5
extends_documentation_fragment:
  - llmops.vllm.attributes.info
attributes:
  check_mode:
    support: full
    description: Does not wait. Reads every replica once, compares nothing, and is skipped.
seealso:
  - module: llmops.vllm.vllm_wait
  - module: llmops.vllm.vllm_info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Record what the pool does, before the first replica is drained
  llmops.vllm.vllm_canary:
    state: recorded
    api_key: "{{ llmops_backend_keys | first }}"
    old:
      - id: gpu1/r0
        url: http://192.0.2.21:8000
      - id: gpu2/r0
        url: http://192.0.2.22:8000
  register: before

- name: Compare the canary with a replica that has the old release
  llmops.vllm.vllm_canary:
    api_key: "{{ llmops_backend_keys | first }}"
    new:
      - id: gpu1/r0
        url: http://192.0.2.21:8000
    old:
      - id: gpu2/r0
        url: http://192.0.2.22:8000
    record: "{{ before.record }}"
    soak: 300
    timeout: 900
  register: canary

- name: Refuse to go on without a verdict
  ansible.builtin.assert:
    that: canary.verdict == 'not_worse'
    fail_msg: "{{ canary.msg }}"
"""

RETURN = r"""
verdict:
  description:
    - V(worse), with which the module fails, V(not_worse), or V(not_enough_traffic) when one side had too few requests.
    - V(watching) when O(return_after) is over, V(recorded) with O(state=recorded), V(not_compared) in check mode.
  returned: always
  type: str
  sample: not_worse
msg:
  description: The verdict in one line, with the figures that decided and the sizes of the samples.
  returned: always
  type: str
  sample: >-
    worse: TTFT 412 ms against 105 ms (3.9 times, 307 ms more) over 130 requests at the new and 410 at the old
against:
  description: What was compared with, V(old) or V(record); empty when nothing was.
  returned: always
  type: str
checks:
  description:
    - Every comparison, C(ttft), C(itl), C(errors), C(output), with its C(name), C(result), C(words), the values C(new)
      and C(old) in seconds, as a ratio or in tokens, and the requests C(samples_new) and C(samples_old).
  returned: always
  type: list
  elements: dict
new:
  description:
    - What the new replicas did while they were compared. Latencies are means in seconds, RV(new.ttft) without
      RV(new.queue). Null where there was nothing to take a mean of.
  returned: always
  type: dict
  contains: &figures
    replicas:
      description: Ids of the replicas that count.
      returned: always
      type: list
      elements: str
    requests:
      description: Requests that got a first token, without those for a single one.
      returned: always
      type: int
    one_token_requests:
      description: Requests for a single token.
      returned: always
      type: int
    answered:
      description: Requests that were answered well or with an error of the server.
      returned: always
      type: int
    errors:
      description: Requests that the server spoiled.
      returned: always
      type: int
    error_percent:
      description: C(errors) in percent of C(answered).
      returned: always
      type: float
    refused:
      description: Requests that were refused as the fault of the client, HTTP 4xx.
      returned: always
      type: int
    ttft:
      description: Seconds to the first token.
      returned: always
      type: float
    queue:
      description: Seconds in the queue.
      returned: always
      type: float
    itl:
      description: Seconds between two tokens.
      returned: always
      type: float
    prompt_tokens:
      description: Tokens of a prompt.
      returned: always
      type: float
    output_tokens:
      description: Tokens of an answer.
      returned: always
      type: float
    cached_percent:
      description: Percent of the prompt tokens that came from the prefix cache.
      returned: always
      type: float
    finished:
      description: Answers by the reason of their end.
      returned: always
      type: dict
old:
  description: The same of the old replicas, or of the record.
  returned: always
  type: dict
  contains: *figures
notes:
  description: What one should know who reads the figures; nothing of it decides.
  returned: always
  type: list
  elements: str
progress:
  description: What was waited for, a line every 10 s.
  returned: always
  type: list
  elements: str
elapsed:
  description: Seconds watched, over all calls.
  returned: always
  type: float
watch:
  description: What O(watch) of a further call takes to go on.
  returned: always
  type: dict
record:
  description: What O(record) of a later call takes. Given even when it is of too little traffic, see RV(verdict).
  returned: with O(state=recorded), not in check mode
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_run import Run, Wish, record_from
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_watch import watched
from ansible_collections.llmops.vllm.plugins.module_utils._gate.comparison import WORSE

REPLICAS = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {"id": {"type": "str", "required": True}, "url": {"type": "str", "required": True}},
}
SPEC = {
    "state": {"type": "str", "choices": ["compared", "recorded"], "default": "compared"},
    "new": REPLICAS,
    "old": REPLICAS,
    "record": {"type": "dict"},
    "watch": {"type": "dict"},
    "ignore": {"type": "int", "default": 50},
    "samples": {"type": "int", "default": 100},
    "ratio": {"type": "float", "default": 1.5},
    "ttft_seconds": {"type": "float", "default": 0.1},
    "itl_seconds": {"type": "float", "default": 0.02},
    "output_length": {"type": "float", "default": 20.0},
    "error_points": {"type": "float", "default": 0.5},
    "soak": {"type": "float", "default": 60.0},
    "timeout": {"type": "float", "default": 600.0},
    "return_after": {"type": "float", "default": 0.0},
    "interval": {"type": "float", "default": 5.0},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "request_timeout": {"type": "float", "default": 5.0},
}
LIMITS = ("samples", "ratio", "ttft_seconds", "itl_seconds", "error_points", "output_length")
WISH = ("ignore", "soak", "timeout", "return_after", "interval")


def run_of(p: dict[str, Any]) -> Run:
    """The watch that the parameters ask for; LlmopsError for what cannot be."""
    wish = Wish(Limits(**{name: p[name] for name in LIMITS}), **{name: p[name] for name in WISH})
    new, old = (watched(p[side], p["api_key"], p["request_timeout"]) for side in ("new", "old"))
    return Run(new, old, wish, record=record_from(p["record"]), watch=p["watch"])


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        run = run_of(module.params)
        if module.check_mode:
            module.exit_json(changed=False, skipped=True, **run.glance().result())
        if module.params["state"] == "recorded":
            found, record = run.note_down()
            module.exit_json(changed=False, record=record, **found.result())
        outcome = run.compare()
        if outcome.verdict == WORSE:
            module.fail_json(**outcome.result())
        module.exit_json(changed=False, **outcome.result())
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
