#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_program
short_description: Install a program of this collection on a host
version_added: 0.2.0
description:
  - Installs the agent of a balancer or the watchdog of a vLLM server, which are Python without dependencies.
  - The files lie in a directory named by their digest, behind the link C(current), so that a new version replaces the
    old one at once or not at all. Other versions are removed. Whoever runs the program must be restarted.
options:
  name:
    description: Which program.
    type: str
    required: true
    choices: [agent, watchdog]
  path:
    description: Directory in which its versions lie.
    type: path
    required: true
extends_documentation_fragment:
  - llmops.vllm.attributes
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Install the agent of a balancer
  llmops.vllm.host_program:
    name: agent
    path: /usr/local/lib/llm-agent
"""

RETURN = r"""
version:
  description: Digest of the files; the name of their directory.
  returned: always
  type: str
  sample: 0a1b2c3d4e5f
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._agent import cli, daemon, nginx_apply
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._program import Program
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog import main as watchdog

# What is started; what these import comes along.
PROGRAMS = {"agent": (daemon, cli, nginx_apply), "watchdog": (watchdog,)}
SPEC = {
    "name": {"type": "str", "required": True, "choices": list(PROGRAMS)},
    "path": {"type": "path", "required": True},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        program = Program(Path(module.params["path"]), [each.__name__ for each in PROGRAMS[module.params["name"]]])
        before = program.in_force()
        changed = before != program.version or not program.whole()
        if changed and not module.check_mode:
            program.install()
        diff = {"before": f"{before or 'absent'}\n", "after": f"{program.version}\n"}
        module.exit_json(changed=changed, version=program.version, diff=diff)
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
