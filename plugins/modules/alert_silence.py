#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: alert_silence
short_description: Silence alerts for a while in Alertmanager
version_added: 0.2.0
description:
  - Makes a silence for alerts that a change is about to cause, prolongs it while the change goes on, and ends it
    afterwards. A silence ends by itself after O(duration), so that a run that dies hides no alert for long.
  - A silence is known again by its O(matchers) and its O(creator). Those of other creators are left alone.
  - Usually runs on the controller, with C(delegate_to=localhost).
options:
  state:
    description:
      - V(present) makes the silence, or prolongs it when less than nine tenths of O(duration) are left.
      - V(absent) ends it.
    type: str
    choices: [present, absent]
    default: present
  urls:
    description:
      - Addresses of Alertmanagers that form one cluster, such as V(https://192.0.2.31:9093). The first that answers is
        told; it tells the others.
    type: list
    elements: str
    required: true
  matchers:
    description: What labels an alert must have to be silenced; it must match all of them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the label.
        type: str
        required: true
      value:
        description: Its value.
        type: str
        required: true
      regex:
        description: Whether the value is a regular expression, which must match the whole label.
        type: bool
        default: false
      equal:
        description: Whether the label must match; with V(false) it must not.
        type: bool
        default: true
  creator:
    description: Who silences. Together with O(matchers) it tells this silence from others.
    type: str
    default: llmops.vllm
  comment:
    description: Why, for who looks at Alertmanager. That of a silence that is there already stays.
    type: str
    default: set by llmops.vllm
  duration:
    description: Seconds from now on for which the alerts are silent at most.
    type: int
    default: 7200
  required:
    description:
      - Whether to fail when no Alertmanager can be asked, or none accepts it. With V(false) a warning tells, and
        RV(reached) is false.
    type: bool
    default: true
  timeout:
    description: Seconds that each Alertmanager has to answer.
    type: float
    default: 5
extends_documentation_fragment:
  - llmops.vllm.login
  - llmops.vllm.attributes
attributes:
  idempotent:
    support: full
    description: A silence that has nine tenths of the wanted time left is no change.
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Nobody is to be woken about two replicas that are taken out
  llmops.vllm.alert_silence:
    urls: ["https://192.0.2.31:9093", "https://192.0.2.32:9093"]
    matchers:
      - {name: group, value: health}
      - {name: replica, value: gpu1/r0|gpu1/r1, regex: true}
    creator: change 4711
    comment: new power supply of gpu1
    duration: 3600
    username: ops
    password: "{{ vault_alertmanager_password }}"
    ca_path: files/ca.crt
  delegate_to: localhost

- name: They are back
  llmops.vllm.alert_silence:
    state: absent
    urls: ["https://192.0.2.31:9093", "https://192.0.2.32:9093"]
    matchers:
      - {name: group, value: health}
      - {name: replica, value: gpu1/r0|gpu1/r1, regex: true}
    creator: change 4711
    username: ops
    password: "{{ vault_alertmanager_password }}"
    ca_path: files/ca.crt
  delegate_to: localhost
"""

RETURN = r"""
ids:
  description: Ids of the silence that holds now; with O(state=absent) of those that were ended. Empty in check mode
    when a silence would be made.
  returned: always
  type: list
  elements: str
ends_at:
  description: When the silence ends; null with O(state=absent).
  returned: always
  type: str
  sample: "2026-11-01T12:00:00+00:00"
url:
  description: The Alertmanager that answered; empty when none did.
  returned: always
  type: str
reached:
  description: Whether an Alertmanager answered and did what was asked.
  returned: always
  type: bool
"""

import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring.json_api import LOGIN_SPEC, ApiError, JsonApi
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring.silence import (
    Matcher,
    NotReached,
    Wish,
    bring_about,
)

MATCHER = {
    "name": {"type": "str", "required": True},
    "value": {"type": "str", "required": True},
    "regex": {"type": "bool", "default": False},
    "equal": {"type": "bool", "default": True},
}
SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "urls": {"type": "list", "elements": "str", "required": True},
    "matchers": {"type": "list", "elements": "dict", "required": True, "options": MATCHER},
    "creator": {"type": "str", "default": "llmops.vllm"},
    "comment": {"type": "str", "default": "set by llmops.vllm"},
    "duration": {"type": "int", "default": 7200},
    "required": {"type": "bool", "default": True},
    **LOGIN_SPEC,
    "timeout": {"type": "float", "default": 5.0},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    p = module.params
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        matchers = tuple(Matcher(one["name"], one["value"], one["regex"], one["equal"]) for one in p["matchers"])
        wish = Wish(matchers, p["creator"], p["comment"], p["duration"])
        apis = [JsonApi(url, p["username"], p["password"], p["ca_path"], p["timeout"]) for url in p["urls"]]
        module.exit_json(**bring_about(apis, wish, p["state"] == "present", now, module.check_mode).result())
    except (ApiError, NotReached) as problem:
        if p["required"]:
            module.fail_json(msg=str(problem))
        module.warn(f"alerts are not silenced: {problem}")
        module.exit_json(changed=False, ids=[], ends_at=None, url="", reached=False)
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
