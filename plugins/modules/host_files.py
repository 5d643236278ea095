#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Write files that belong together, all or none
version_added: 0.2.0
description:
  - Writes any number of files with their directories in one task. Each one that differs is checked by its own
    O(files[].validate) before the first one is written, so a set of files with an error in it changes nothing.
  - For a service with many files this takes one round trip instead of several for each of them.
options:
  directories:
    description: Directories that are to be there, in this order. Missing parents are made with mode C(0755).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where.
        type: path
        required: true
      owner:
        description: User to whom it belongs; without it, it stays with whom it is.
        type: str
      group:
        description: Group to which it belongs; without it, it stays with which it is.
        type: str
      mode:
        description: Permissions, such as V(0755) in quotes.
        type: raw
  files:
    description: Files with their content. The directory of each must be there, or be one of O(directories).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where.
        type: path
        required: true
      content:
        description:
          - All that is in it.
          - A result that is printed at C(-vvv) holds it, as it holds every option. Give the task C(no_log) where it is
            a secret.
        type: str
        required: true
      owner:
        description: User to whom it belongs; O(owner) unless given.
        type: str
      group:
        description: Group to which it belongs; O(group) unless given.
        type: str
      mode:
        description: Permissions, such as V(0640) in quotes; O(mode) unless given.
        type: raw
      validate:
        description:
          - Command that checks the file before it is written; C(%s) stands for the path of the candidate. No shell.
          - In check mode nothing is checked, since what it checks with may not be there yet.
        type: str
        default: ""
      show_diff:
        description: Whether a diff may hold what is in it.
        type: bool
        default: true
  owner:
    description: User to whom files belong that name none.
    type: str
  group:
    description: Group to which files belong that name none.
    type: str
  mode:
    description: Permissions of files that name none.
    type: raw
  alone_in:
    description: Directories in which nothing else than O(files) may lie. Other files in them are removed, directories
      are not.
    type: list
    elements: path
    default: []
extends_documentation_fragment:
  - llmops.vllm.attributes
seealso:
  - module: ansible.builtin.copy
  - module: ansible.builtin.template
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Write a configuration and what it names
  llmops.vllm.host_files:
    directories:
      - {path: /etc/prometheus/rules, mode: "0755"}
    files:
      - path: /etc/prometheus/prometheus.yml
        content: "{{ lookup('ansible.builtin.template', 'prometheus.yml.j2') }}"
        validate: promtool check config --syntax-only %s
      - path: /etc/prometheus/rules/ours.yml
        content: "{{ lookup('ansible.builtin.file', 'ours.yml', rstrip=false) }}"
        validate: promtool check rules %s
    owner: root
    group: root
    mode: "0644"
    alone_in: [/etc/prometheus/rules]
  notify: Reload Prometheus
"""

RETURN = r"""
paths:
  description: Directories and files that were made, changed or removed; in check mode, that would be.
  returned: success
  type: list
  elements: str
  sample: [/etc/prometheus/rules/ours.yml]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._host_files import ATTRIBUTES, Entry, Files

ATTRIBUTE_SPEC: dict[str, Any] = {"owner": {"type": "str"}, "group": {"type": "str"}, "mode": {"type": "raw"}}
PATH_SPEC: dict[str, Any] = {"path": {"type": "path", "required": True}, **ATTRIBUTE_SPEC}
FILE_SPEC: dict[str, Any] = {
    **PATH_SPEC,
    "content": {"type": "str", "required": True},
    "validate": {"type": "str", "default": ""},
    "show_diff": {"type": "bool", "default": True},
}
SPEC = {
    "directories": {"type": "list", "elements": "dict", "default": [], "options": PATH_SPEC},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_SPEC},
    "alone_in": {"type": "list", "elements": "path", "default": []},
    **ATTRIBUTE_SPEC,
}


def main() -> None:
    """Entry point of the module."""
    # no_log: the log of the host does not get what is in the files
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, no_log=True)
    p = module.params
    common = {name: p[name] for name in ATTRIBUTES}
    try:
        directories = [Entry(Path(each["path"]), _given(each, {})) for each in p["directories"]]
        files = [
            Entry(
                Path(each["path"]), _given(each, common), each["content"].encode(), each["validate"], each["show_diff"]
            )
            for each in p["files"]
        ]
        done = Files(module, directories, files, map(Path, p["alone_in"])).bring_about()
        module.exit_json(changed=bool(done.paths), paths=done.paths, diff=done.diff)
    except LlmopsError as problem:
        module.fail_json(msg=str(problem))
    except OSError as problem:
        module.fail_json(msg=f"{problem.filename or 'the host'}: {problem.strerror or problem}")


def _given(options: dict[str, Any], otherwise: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] or otherwise.get(name) for name in ATTRIBUTES}


if __name__ == "__main__":
    main()
