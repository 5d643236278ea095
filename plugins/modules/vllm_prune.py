#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_prune
short_description: Remove old releases of a host, and what no release needs any more
version_added: 0.2.0
description:
  - Removes releases of replicas beyond O(keep), and then the environments and weights that no release of the host
    names. It is meant for the end of a rollout that went well, since nobody can go back to what was removed.
  - The current and the staged release, the one that a process was started with, and what a process has in use are never
    removed. Marks of M(llmops.vllm.vllm_release) stay, so that a bad release is not tried again when it is staged anew.
  - Only what the collection has made itself is removed, and nothing behind a link. Where O(root) holds no release at
    all, environments and weights are left alone; so are those on a file system that other hosts may see, and RV(notes)
    says so.
  - Nobody stages or switches a release of the host meanwhile.
options:
  root:
    description: Directory that holds one directory per replica.
    type: path
    default: /etc/vllm
  replicas:
    description:
      - Names of the replicas whose releases are pruned, such as V(r0). Empty means all of O(root). What the releases of
        the others need stays in any case.
    type: list
    elements: str
    default: []
  keep:
    description:
      - Releases to keep besides the current one, for each replica. The previous one counts first, then the newest. The
        staged and the running one are kept in any case, and not counted. V(0) leaves no way back.
    type: int
    default: 1
  env_root:
    description: Directory of the environments, usually V(/opt/vllm/env). Without it no environment is removed.
    type: path
  model_root:
    description: Directory of the weights, usually V(/srv/llm-models). Without it no weights are removed.
    type: path
  protect:
    description: Environments and weights that are never removed, such as those that the inventory wants now.
    type: list
    elements: path
    default: []
  min_age:
    description: Seconds for which nothing is removed that was made, because a run may be about to stage it.
    type: float
    default: 3600
  download_age:
    description:
      - Seconds after which what a download that broke off has left below O(model_root) is removed. Until then the next
        run goes on with it.
    type: float
    default: 604800
extends_documentation_fragment:
  - llmops.vllm.attributes
seealso:
  - module: llmops.vllm.vllm_release
  - module: llmops.vllm.llm_model
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Keep the current and the previous release, and what they need
  llmops.vllm.vllm_prune:
    env_root: /opt/vllm/env
    model_root: /srv/llm-models
    protect:
      - /opt/vllm/env/0.32.0-1a2b3c4d
"""

RETURN = r"""
releases:
  description: Directories of releases that were removed, also by a run that fails later.
  returned: always
  type: list
  elements: str
  sample: [/etc/vllm/r0/releases/3f2a9c01d4e7]
environments:
  description: Environments that were removed.
  returned: always
  type: list
  elements: str
  sample: [/opt/vllm/env/0.31.0-9a8b7c6d]
models:
  description: Weights that were removed, and what downloads that broke off had left.
  returned: always
  type: list
  elements: str
  sample: [/srv/llm-models/llama-70b/6f6073b423013f6a7d4d9f39144961bfbfbc386b]
freed_bytes:
  description: Size of all that, in bytes.
  returned: always
  type: int
notes:
  description: What one should know besides, such as what was left alone and why.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.prune import Pruned, Wish, prune

SPEC = {
    "root": {"type": "path", "default": "/etc/vllm"},
    "replicas": {"type": "list", "elements": "str", "default": []},
    "keep": {"type": "int", "default": 1},
    "env_root": {"type": "path"},
    "model_root": {"type": "path"},
    "protect": {"type": "list", "elements": "path", "default": []},
    "min_age": {"type": "float", "default": 3600.0},
    "download_age": {"type": "float", "default": 604800.0},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    done = Pruned()
    try:
        wish = Wish(**{name: value for name, value in module.params.items() if value is not None})
        prune(wish, done, check=module.check_mode)
    except (LlmopsError, OSError) as problem:
        module.fail_json(msg=str(problem), **done.result())
    else:
        module.exit_json(**done.result())


if __name__ == "__main__":
    main()
