#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_check
short_description: Check the inventory of a fleet without any host
version_added: 0.2.0
description:
  - Reads the variables of all servers, balancers and monitoring hosts on the controller and tells everything that they
    show to be wrong. No host is connected to, so it fits the continuous integration of a repository of inventories.
  - Finds flags that the wanted version of vLLM does not know, dropped, or takes with other values; GPUs, ports,
    addresses and names that two replicas claim; unknown profiles; pools whose replicas differ; models that are not
    pinned; keys that are too short, double, expired or unknown to the other side; certificates that expired or belong
    to another name or key; a context or a tensor parallel size that does not fit the C(config.json) of the model,
    where one is at hand; balancers without replicas; variables that are misspelt or of a wrong type.
  - What cannot be judged from the controller is named in RV(report.not_checked). The roles judge it on the host.
  - Shows a report and never fails because of what it found; see the example. No key is ever shown.
options:
  server_group:
    description: Name of the group of server hosts.
    type: str
    default: llm_servers
  balancer_group:
    description: Name of the group of balancers.
    type: str
    default: llm_balancers
  monitor_group:
    description: Name of the group of monitoring hosts.
    type: str
    default: llm_monitors
  min_days:
    description: Certificates and client keys that end within this many days are problems, too.
    type: int
    default: 0
  quiet:
    description: Show nothing when nothing is wrong.
    type: bool
    default: false
extends_documentation_fragment:
  - llmops.vllm.attributes.info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Check | The whole inventory
  llmops.vllm.fleet_check:
    min_days: 14
  register: checked

- name: Check | Nothing is wrong with it
  ansible.builtin.assert:
    that: checked.ok
    fail_msg: "{{ checked.msg }}: see the report above"
"""

RETURN = r"""
ok:
  description: Whether nothing is wrong.
  type: bool
  returned: always
report:
  description: What was found, as C(check.yml) writes it to C(llmops_check_file).
  type: dict
  returned: always
  contains:
    ok:
      description: Whether nothing is wrong.
      type: bool
    hosts:
      description: Servers and balancers of the inventory.
      type: int
    replicas:
      description: Replicas that follow from the variables.
      type: int
    pools:
      description: Pools that the replicas form.
      type: int
    problems:
      description: What is wrong.
      type: list
      elements: dict
      contains:
        hosts:
          description: The hosts that have it; none where it is the fleet's.
          type: list
          elements: str
        variable:
          description: The variable to mend.
          type: str
        value:
          description: Its value; empty where there is none or where it is secret.
          type: str
        message:
          description: What is wrong with it, and what to do.
          type: str
    not_checked:
      description: What could not be judged from the controller, and why.
      type: list
      elements: str
msg:
  description: The counts in one line.
  type: str
  returned: always
"""

# The work is done by the action plugin of the same name, on the controller.
