#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cost_report
short_description: What a fleet cost in a period, and what its tokens cost
version_added: 0.2.0
description:
  - Asks Prometheus what each pool cost in a period, how many GPU hours it had, how many tokens it read and generated,
    and what a million of them cost; compares it with budgets and targets.
  - Prices are read minute by minute, as the recording rules do, so that a price counts for the time in which it held.
  - What Prometheus has no data of is named in C(gaps), with about how much is missing. It is never counted as zero
    without a word.
  - Usually runs on the controller, with C(delegate_to=localhost).
options:
  url:
    description: Address of Prometheus, such as V(https://192.0.2.31:9090), or of what answers its queries.
    type: str
    required: true
  from:
    description:
      - When the period begins, a day or a time in UTC, such as V(2026-11-01) or V(2026-11-01T08:00). Without it the
        period has O(days).
    type: str
    default: ""
  to:
    description:
      - When the period ends, not included; V(2026-12-01) is the end of November. Without it the period ends now, or
        without O(from) at the last midnight in UTC. It never goes beyond now.
    type: str
    default: ""
  days:
    description: How many days the period has, 1 to 366. Has no effect with O(from).
    type: int
    default: 30
  timeout:
    description: Seconds that Prometheus has for each of its answers.
    type: float
    default: 60
extends_documentation_fragment:
  - llmops.vllm.login
  - llmops.vllm.attributes.info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: What November cost
  llmops.vllm.cost_report:
    url: https://192.0.2.31:9090
    from: "2026-11-01"
    to: "2026-12-01"
    username: ops
    password: "{{ vault_monitoring_password }}"
    ca_path: files/ca.crt
  delegate_to: localhost
  register: cost

- name: Show it
  ansible.builtin.debug:
    msg: "{{ cost.lines }}"
"""

RETURN = r"""
report:
  description: The report.
  returned: always
  type: dict
  contains:
    from:
      description: When the period began.
      type: str
      sample: "2026-11-01T00:00:00Z"
    to:
      description: When it ended, not included.
      type: str
    days:
      description: How many days it has.
      type: float
    pools:
      description: Each pool.
      type: list
      elements: dict
      contains:
        pool:
          description: Its name; C(none) for hosts without replicas.
          type: str
        gpu_hours:
          description: GPUs of its replicas, times the hours, whether they were used or not.
          type: float
        usd:
          description: What they cost.
          type: float
        tokens_in:
          description: Tokens of prompts, those in the prefix cache included.
          type: int
        tokens_out:
          description: Tokens that were generated.
          type: int
        usd_per_million_tokens:
          description: What a million tokens, in and out together, cost; null without tokens.
          type: float
        usd_per_million_output_tokens:
          description: The same for generated tokens alone, which then bear all of the cost.
          type: float
        target_usd_per_million_tokens:
          description: What a million tokens were to cost at the end of the period; null without a target.
          type: float
    total:
      description: The same figures of all pools together.
      type: dict
    by_day:
      description: What each day in UTC cost, as a list of C(day), C(hours) that are in the period, and C(usd).
      type: list
      elements: dict
    plan:
      description:
        - Budgets of a day and of a month, as they were at the end, their shares of the period, and the days that cost
          more than the budget of a day.
      type: dict
    gaps:
      description:
        - What is missing. C(what) is C(prices), with C(usd_missing), or C(tokens), with C(pool) and C(replicas); each
          has C(from), C(to), C(hours) and a C(text) for people.
      type: list
      elements: dict
    notes:
      description: Warnings of Prometheus.
      type: list
      elements: str
lines:
  description: The report as a table for people.
  returned: always
  type: list
  elements: str
"""

import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._cost.period import period
from ansible_collections.llmops.vllm.plugins.module_utils._cost.report import report
from ansible_collections.llmops.vllm.plugins.module_utils._cost.table import lines
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring.json_api import LOGIN_SPEC, JsonApi
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring.prometheus import Prometheus

SPEC = {
    "url": {"type": "str", "required": True},
    "from": {"type": "str", "default": ""},
    "to": {"type": "str", "default": ""},
    "days": {"type": "int", "default": 30},
    **LOGIN_SPEC,
    "timeout": {"type": "float", "default": 60.0},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    p = module.params
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        asked = period(p["from"], p["to"], p["days"], now)
        prometheus = Prometheus(JsonApi(p["url"], p["username"], p["password"], p["ca_path"], p["timeout"]))
        found = report(prometheus, asked)
        module.exit_json(changed=False, report=found, lines=lines(found))
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
