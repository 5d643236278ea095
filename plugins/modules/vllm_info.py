#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_info
short_description: Look at vLLM replicas
version_added: 0.1.0
description:
  - Asks one replica or several at once for version, models, revision, requests and use of the KV cache.
  - A replica that does not answer is not a failure of the module; its RV(health) is V(down) and RV(reason) says why.
  - RV(health=ok) means that the server process answers. Whether the engine still generates shows only a completion,
    see M(llmops.vllm.vllm_wait).
options:
  url:
    description: Address of one replica, such as V(http://192.0.2.21:8000).
    type: str
  replicas:
    description: Several replicas, asked side by side.
    type: list
    elements: dict
    suboptions:
      id:
        description: What the replica is called in the result.
        type: str
        required: true
      url:
        description: Address of the replica.
        type: str
        required: true
      name:
        description: Name of the replica on this host, for O(releases).
        type: str
  api_key:
    description: A key that the replicas accept.
    type: str
    default: ""
  timeout:
    description: Seconds that each request may take.
    type: float
    default: 5
  releases:
    description:
      - Directory of the releases of this host, usually V(/etc/vllm). When given, each of O(replicas) that has a C(name)
        is told with its releases. Needs the rights to read it.
    type: path
  env:
    description: Directory of a vLLM environment on this host whose version is wanted too.
    type: path
extends_documentation_fragment:
  - llmops.vllm.attributes.info
seealso:
  - module: llmops.vllm.vllm_wait
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Look at one replica
  llmops.vllm.vllm_info:
    url: http://192.0.2.21:8000
    api_key: "{{ llmops_backend_keys | first }}"
  register: replica

- name: Look at several replicas at once
  llmops.vllm.vllm_info:
    api_key: "{{ llmops_backend_keys | first }}"
    replicas:
      - id: gpu1/r0
        url: http://192.0.2.21:8000
      - id: gpu2/r0
        url: http://192.0.2.22:8000
"""

RETURN = r"""
health:
  description:
    - V(ok) when everything answered, V(unhealthy) when an answer was an error, V(unauthorized) when the key is not
      accepted, V(down) when there was no answer.
  returned: with O(url)
  type: str
reason:
  description: What is wrong, empty when nothing is.
  returned: with O(url)
  type: str
version:
  description: Version that the server says it is.
  returned: with O(url)
  type: str
models:
  description: Served names, each with C(id) and C(root).
  returned: with O(url)
  type: list
  elements: dict
model:
  description: The served name.
  returned: with O(url)
  type: str
revision:
  description: First 12 characters of the model's revision, from the alias C(<name>@<revision>).
  returned: with O(url)
  type: str
running:
  description: Requests that run, all engines together. Null when not known.
  returned: with O(url)
  type: int
waiting:
  description: Requests that wait, all engines together. Null when not known.
  returned: with O(url)
  type: int
kv_cache_usage:
  description: Used part of the KV cache of the fullest engine, 0 to 1. Null when not known.
  returned: with O(url)
  type: float
kv_cache_tokens:
  description: Tokens that fit into the KV cache, all engines together. Null when not known.
  returned: with O(url)
  type: int
replicas:
  description: The same values for each of O(replicas), with its C(id), in the order given.
  returned: with O(replicas)
  type: list
  elements: dict
  contains:
    release:
      description: Id of the release in force, empty when there is none. The same for C(previous) and C(pending).
      returned: with O(releases) and a C(name)
      type: str
    running_release:
      description: Id of the release that the process was started with, empty when none runs.
      returned: with O(releases) and a C(name)
      type: str
    verified:
      description: Whether the release in force has answered completions.
      returned: with O(releases) and a C(name)
      type: bool
    releases:
      description:
        - C(current), C(pending) and C(previous), each null when there is none.
        - C(id), C(version) of vLLM, C(model), C(model_revision), C(env) and C(model_path) say what it is.
        - C(bad) and C(held) say why it is marked, and are empty when it is not.
        - C(usable) is whether its files, environment and weights are there, C(problem) says what is not.
        - C(differences) against the current release, each with C(name), C(before) and C(after). Secrets are not shown.
      returned: with O(releases) and a C(name)
      type: dict
installed_version:
  description: Version of vLLM in the environment, empty when there is none.
  returned: with O(env)
  type: str
"""

import functools

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._release.info import releases_of
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import (
    Replica,
    installed_version,
    look,
    side_by_side,
)

SPEC = {
    "url": {"type": "str"},
    "replicas": {
        "type": "list",
        "elements": "dict",
        "options": {
            "id": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "name": {"type": "str"},
        },
    },
    "api_key": {"type": "str", "default": "", "no_log": True},
    "timeout": {"type": "float", "default": 5.0},
    "releases": {"type": "path"},
    "env": {"type": "path"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, required_one_of=[("url", "replicas", "env")])
    p = module.params
    wanted = [(entry["id"], entry["url"]) for entry in p["replicas"] or []]
    urls = ([p["url"]] if p["url"] else []) + [url for _unused, url in wanted]
    looks = [functools.partial(look, Replica(url, p["api_key"], p["timeout"])) for url in urls]
    seen = side_by_side(looks)
    result = dict(seen.pop(0)) if p["url"] else {}
    if p["replicas"] is not None:
        result["replicas"] = [{"id": entry[0], **facts} for entry, facts in zip(wanted, seen)]
        try:
            for entry, facts in zip(p["replicas"] if p["releases"] else [], result["replicas"]):
                if entry["name"]:
                    facts.update(releases_of(p["releases"], entry["name"]))
        except LlmopsError as problem:
            module.fail_json(msg=str(problem))
    if p["env"]:
        result["installed_version"] = installed_version(p["env"])
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
