#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_release
short_description: Stage and switch the releases of a vLLM replica
version_added: 0.1.0
description:
  - A release is an immutable directory that holds everything that decides how a replica runs. Its id is a digest of the
    meaning; order and spelling of flag names, comments and blank lines do not count.
  - V(staged) builds the candidate and points C(staged) at it. V(active) switches C(current) in one step and keeps the
    old one as C(previous). V(marked) says that a release is not to be activated. V(absent) removes everything of the
    replica.
  - Never starts, stops or restarts anything.
  - Several runs on one replica wait for each other. What a killed run left is removed by the next.
options:
  replica:
    description: Name of the replica on this host, such as V(r0).
    type: str
    required: true
  root:
    description: Directory that holds one directory per replica.
    type: path
    default: /etc/vllm
  state:
    description:
      - What is wanted. V(verified) remembers that the release in force has answered completions, until the next switch.
      - With V(marked), O(release) gets O(mark), or loses its marks. O(state=active) refuses a marked release. Marks
        stay when the release is staged anew, and when M(llmops.vllm.vllm_prune) has removed it.
      - V(active) refuses a release whose files, environment or weights are gone, before anything is changed.
    type: str
    choices: [staged, active, verified, marked, absent]
    default: staged
  release:
    description:
      - The release to activate or to mark. An id, or one of the names V(current), V(previous) and V(staged).
      - Without it O(state=active) takes the release that O(settings) describe, and without these the staged one;
        O(state=marked) takes the current one.
      - When O(state=active) goes by O(release) to another one than the staged one, the release that was left becomes
        the staged one, so that it shows as pending.
    type: str
    default: ""
  mark:
    description:
      - V(bad), the release failed a gate. V(held), a pool was rolled back from it, and it is not to be tried again
        until somebody says so. V(none) takes all marks of the release away.
      - Required with O(state=marked).
    type: str
    choices: [bad, held, none]
    version_added: 0.2.0
  reason:
    description: Why, in one line. Required with O(mark=bad) and O(mark=held).
    type: str
    version_added: 0.2.0
  settings:
    description: Long flag names of C(vllm serve) without dashes, and their values.
    type: dict
  environment:
    description: Environment variables of the service. A boolean becomes V(1) or V(0).
    type: dict
    default: {}
  unit:
    description: Text of the release's C(unit.conf), the part of the systemd unit that depends on the release.
    type: str
    default: ""
  env:
    description: Directory of the vLLM environment.
    type: path
  model:
    description: Directory of the weights.
    type: path
  model_name:
    description: Name of the model.
    type: str
    default: ""
  model_revision:
    description: Revision of the model.
    type: str
    default: ""
  version:
    description: Version of vLLM.
    type: str
    default: ""
  secrets:
    description:
      - Flags that are secret, such as C(api-key), each a text or a list of texts. They are written into C(config.yaml)
        and shown nowhere else.
    type: dict
    default: {}
  owner:
    description: Owner of the files.
    type: str
    default: root
  group:
    description: Group of the files; the service user is in it.
    type: str
    default: vllm
  service:
    description:
      - systemd unit whose running process is compared with C(current). The default is C(vllm@<replica>.service).
    type: str
extends_documentation_fragment:
  - llmops.vllm.attributes
attributes:
  idempotent:
    support: partial
    description: O(release=previous) goes back and forth when run twice. Everything else changes nothing then.
seealso:
  - module: llmops.vllm.vllm_prune
  - module: llmops.vllm.vllm_info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Stage a release
  llmops.vllm.vllm_release:
    replica: r0
    state: staged
    version: 0.32.0
    env: /opt/vllm/env/0.32.0-1a2b3c4d
    model: /srv/llm-models/llama-70b/6f6073b423013f6a7d4d9f39144961bfbfbc386b
    model_name: llama-70b
    model_revision: 6f6073b423013f6a7d4d9f39144961bfbfbc386b
    settings:
      model: /srv/llm-models/llama-70b/6f6073b423013f6a7d4d9f39144961bfbfbc386b
      max-model-len: 16384
      port: 8000
    environment:
      VLLM_HTTP_TIMEOUT_KEEP_ALIVE: 75
    secrets:
      api-key: "{{ llmops_backend_keys }}"

- name: Activate what is staged
  llmops.vllm.vllm_release:
    replica: r0
    state: active

- name: Go back
  llmops.vllm.vllm_release:
    replica: r0
    state: active
    release: previous

- name: See to it that the release which was left is not tried again
  llmops.vllm.vllm_release:
    replica: r0
    state: marked
    release: staged
    mark: held
    reason: answers were cut off
"""

RETURN = r"""
release:
  description: Id of the release that was staged, activated, verified or marked.
  returned: always
  type: str
  sample: 3f2a9c01d4e7
current:
  description: Id of the current release, empty when there is none.
  returned: always
  type: str
previous:
  description: Id of the release that was current before.
  returned: always
  type: str
staged:
  description: Id of the candidate. Empty when the candidate is what is current already.
  returned: always
  type: str
pending:
  description: Whether a candidate waits that differs from the current release.
  returned: always
  type: bool
running:
  description: Id of the release that the unit's process was started with. Empty when none runs or nobody can tell.
  returned: always
  type: str
switched:
  description: Whether C(current) names another release than before.
  returned: always
  type: bool
restart_needed:
  description:
    - Whether a running replica must be restarted to run the current release, because C(current) was switched to another
      release, files of the current release were repaired, or the process was started with another release.
  returned: always
  type: bool
verified:
  description: Whether the release in force has answered completions.
  returned: always
  type: bool
bad:
  description: Why the release is marked bad, empty when it is not.
  returned: always
  type: str
held:
  description: Why the release is held, empty when it is not.
  returned: always
  type: str
repaired:
  description: Files of an existing release that were not as they should be.
  returned: always
  type: list
  elements: str
differences:
  description: What the release changes against the current one, each with C(name), C(before) and C(after).
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._release.home import Home, Owner
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import release_from
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.release import Wish, apply

SPEC = {
    "replica": {"type": "str", "required": True},
    "root": {"type": "path", "default": "/etc/vllm"},
    "state": {"type": "str", "choices": ["staged", "active", "verified", "marked", "absent"], "default": "staged"},
    "release": {"type": "str", "default": ""},
    "mark": {"type": "str", "choices": ["bad", "held", "none"]},
    "reason": {"type": "str"},
    "settings": {"type": "dict"},
    "environment": {"type": "dict", "default": {}},
    "unit": {"type": "str", "default": ""},
    "env": {"type": "path"},
    "model": {"type": "path"},
    "model_name": {"type": "str", "default": ""},
    "model_revision": {"type": "str", "default": ""},
    "version": {"type": "str", "default": ""},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "vllm"},
    "service": {"type": "str"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=SPEC,
        supports_check_mode=True,
        required_if=[
            ("state", "staged", ("settings", "env", "model")),
            ("state", "marked", ("mark",)),
            ("mark", "bad", ("reason",)),
            ("mark", "held", ("reason",)),
        ],
    )
    p = module.params
    try:
        described = p["settings"] is not None and p["state"] in ("staged", "active")
        wish = Wish(
            state=p["state"],
            release=release_from(p) if described else None,
            named=p["release"],
            mark=p["mark"] or "",
            reason=p["reason"] or "",
            unit=p["service"] if p["service"] is not None else f"vllm@{p['replica']}.service",
        )
        change = apply(Home(p["root"], p["replica"], Owner(p["owner"], p["group"])), wish, check=module.check_mode)
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))
    else:
        module.exit_json(**change.result())


if __name__ == "__main__":
    main()
