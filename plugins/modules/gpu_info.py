#!/usr/bin/python
# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Tell which GPUs a host has and how their driver stands
version_added: 0.1.0
description:
  - Tells the NVIDIA GPUs on the PCI bus, before there is any driver, and with one all that C(nvidia-smi) knows of them;
    memory, links, processes, ECC, MIG, fabric.
  - Tells which driver is there, on disk and in the kernel, how it came, what of it is half there, and whether a module
    can be built and loaded; kernel, headers, secure boot.
  - A driver that does not work is a RV(state), not a failure of this module.
options:
  timeout:
    description: Seconds that C(nvidia-smi) may take; beside a broken GPU it can hang for ever.
    type: float
    default: 30.0
  kernel:
    description: Release of the kernel for which modules are looked for. Empty means the one that runs.
    type: str
    default: ""
  signing_keys:
    description: Keys with which modules built on the host are signed; each is asked of the firmware.
    type: list
    elements: path
    default:
      - /var/lib/dkms/mok.pub
      - /var/lib/shim-signed/mok/MOK.der
  generations:
    description: Generations by PCI device id, four hexadecimal digits, of GPUs that the collection does not know.
    type: dict
    default: {}
  pci:
    description: Directory in which the kernel tells the devices of the PCI bus. Another one is for tests.
    type: path
    default: /sys/bus/pci/devices
extends_documentation_fragment:
  - llmops.vllm.attributes.info
author:
  - llmops.vllm maintainers (@llmops)
"""

EXAMPLES = r"""
- name: Look at the GPUs
  llmops.vllm.gpu_info:
  register: found

- name: Every GPU of the PCI bus works
  ansible.builtin.assert:
    that: found.state == 'working' and found.unseen | length == 0
    fail_msg: "{{ found.problem }}"
"""

RETURN = r"""
pci:
  description: GPUs on the PCI bus; C(address), C(device), C(generation), and the kernel C(driver) that holds it.
  returned: always
  type: list
  elements: dict
  sample: [{"address": "0000:3b:00.0", "device": "2330", "generation": "hopper", "driver": "nvidia"}]
switches:
  description: Addresses of the NVSwitches on the PCI bus.
  returned: always
  type: list
  elements: str
state:
  description:
    - How C(nvidia-smi) answered; V(working), V(absent) (there is no C(nvidia-smi), or no GPU), V(not_loaded) (the
      kernel module), V(mismatch) (of module and libraries), V(no_devices), V(timeout) or V(broken).
  returned: always
  type: str
problem:
  description: What is wrong and what helps, in words.
  returned: always
  type: str
notes:
  description: What C(nvidia-smi) said beside, such as a corrupt infoROM.
  returned: always
  type: list
  elements: str
version:
  description: Version of the driver that answers.
  returned: always
  type: str
  sample: 580.95.05
cuda:
  description: Newest CUDA that the driver runs.
  returned: always
  type: str
  sample: "13.0"
gpus:
  description:
    - What C(nvidia-smi) tells of each GPU; C(index), C(address), C(uuid), C(name), C(architecture), C(minor),
      C(persistence), C(memory_mib), C(power_watts), C(ecc), C(mig), C(fabric), C(recovery), C(links) and C(processes).
      What a GPU does not have is empty or 0. C(tier) is what C(llmops_gpu_type) is for it, if it is a known one.
  returned: always
  type: list
  elements: dict
unseen:
  description: Addresses of GPUs that are on the PCI bus and that C(nvidia-smi) does not tell of.
  returned: always
  type: list
  elements: str
driver:
  description:
    - The driver that is there; versions C(library), C(module) (on disk) and C(loaded), C(kind) of the module, C(way)
      it came (V(package), V(runfile)), C(packages) that hold a module, version of C(fabric_manager), all that is
      C(installed) by name, each with its C(version) and whether it is C(held), and C(broken), what is half there.
  returned: always
  type: dict
kernel:
  description:
    - The kernel meant; C(release), and whether its C(headers) are V(installed), V(available), V(missing) in every
      repository, or V(unknown).
    - C(next), the newest kernel on the host if the one meant runs and is older, with C(next_headers); C(meta), packages
      that bring the headers of kernels to come and are not there.
  returned: always
  type: dict
secure_boot:
  description:
    - Whether the firmware refuses modules that nobody signed (C(on); null without UEFI), and the first C(key) of
      O(signing_keys) that is enrolled.
  returned: always
  type: dict
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import info as gpu_info

SPEC = {
    "timeout": {"type": "float", "default": 30.0},
    "kernel": {"type": "str", "default": ""},
    "signing_keys": {
        "type": "list",
        "elements": "path",
        "no_log": False,
        "default": ["/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der"],
    },
    "generations": {"type": "dict", "default": {}},
    "pci": {"type": "path", "default": "/sys/bus/pci/devices"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    asked = module.params
    # modinfo and its like lie where the path of a plain user does not lead
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
    found = gpu_info.look(
        Path(asked["pci"]), asked["timeout"], asked["kernel"], asked["signing_keys"], asked["generations"]
    )
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
