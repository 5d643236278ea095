# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of NVIDIA's GPUs, drivers and packages. Data alone, each table with its source and date."""

from __future__ import annotations

from dataclasses import dataclass

VENDOR = "10de"

# First and last PCI device id of a generation. From Turing on: the list of compatible GPUs in the README of
# open-gpu-kernel-modules 595.45.04 (2026-03); older ones by the numbers of their chips in pci.ids. No card of one
# generation lies in the range of another.
GENERATIONS_BY_ID = (
    (0x1340, 0x15EF, "maxwell"),
    (0x15F0, 0x15FF, "pascal"),
    (0x1600, 0x17FF, "maxwell"),
    (0x1B00, 0x1D7F, "pascal"),
    (0x1D80, 0x1DFF, "volta"),
    (0x1E00, 0x1FFF, "turing"),
    (0x2080, 0x20FF, "ampere"),
    (0x2180, 0x21FF, "turing"),
    (0x2200, 0x229F, "ampere"),
    (0x2300, 0x23FF, "hopper"),
    (0x2400, 0x25FF, "ampere"),
    (0x2600, 0x28FF, "ada"),
    (0x2900, 0x2FFF, "blackwell"),
    (0x3180, 0x31FF, "blackwell"),
)

# NVSwitches that are PCI devices of their own: nvswitch_lr10_device_ids (A100) and nvswitch_ls10_device_ids (H100,
# H200) of the same source, less its bridges; 1ac0 to 1ac2 are those of V100.
SWITCHES = frozenset({0x1AC0, 0x1AC1, 0x1AC2, 0x1AE8, *range(0x1AF0, 0x1B00), *range(0x22A0, 0x22A8)})
# GPUs whose NVSwitches are no PCI devices of NVIDIA's, but are reached through ConnectX: HGX B200 and B300. They need
# the subnet manager nvlsm, too (Fabric Manager User Guide 2.3, "fourth generation NVSwitches").
SWITCHED_GPUS = frozenset({0x2901, 0x3182})


@dataclass(frozen=True)
class Generation:
    """Which driver a generation takes: branches from and to (0: the newest), and kinds of kernel module."""

    order: int
    lowest: int
    last: int
    kinds: tuple[str, ...]  # the first is preferred


# Kinds: Driver Installation Guide r580 and r620, "Kernel Modules": open for Turing and newer, the only kind for
# Blackwell, the default from branch 560 on. Last branches: "CUDA Toolkit, Driver, and Architecture Matrix". Lowest: the
# first data centre branch that names a GPU of the generation.
GENERATIONS = {
    "maxwell": Generation(1, 384, 580, ("proprietary",)),
    "pascal": Generation(2, 384, 580, ("proprietary",)),
    "volta": Generation(3, 384, 580, ("proprietary",)),
    "turing": Generation(4, 515, 0, ("open", "proprietary")),
    "ampere": Generation(5, 515, 0, ("open", "proprietary")),
    "ada": Generation(6, 525, 0, ("open", "proprietary")),
    "hopper": Generation(6, 525, 0, ("open", "proprietary")),
    "blackwell": Generation(7, 570, 0, ("open",)),
}

# Single GPUs that came later than their generation: B300, GB300, GB10.
LOWEST_BY_ID = {0x3182: 580, 0x31C2: 580, 0x2E12: 580}

# Branches of data centre drivers with the end of their support: "Supported Drivers and CUDA Toolkit Versions" of the
# driver documentation 580, 615 and 620 (read 2026-11-30). The years of 550, 570 and 575 were not looked up; that they
# are over is all that counts. Rank: what is chosen first.
RANKS = ("long-term", "production", "feature", "ended")
BRANCHES = {
    535: ("ended", "2026-06"),
    550: ("ended", "2025"),
    570: ("ended", "2026"),
    575: ("ended", "2025"),
    580: ("long-term", "2028-06"),
    590: ("feature", ""),
    595: ("production", "2027-03"),
    610: ("feature", "2026-08"),
    620: ("long-term", "2029-09"),
}
# The first branch that has the open module alone (Driver Installation Guide r620, "Proprietary Kernel Modules
# Removed").
OPEN_ALONE_FROM = 620

# Lowest branch for what was built with a CUDA toolkit: CUDA Toolkit Release Notes, table "CUDA Toolkit and
# Corresponding Driver Versions". A newer driver runs what an older toolkit built.
CUDA_BRANCHES = {
    "12.0": 525,
    "12.1": 530,
    "12.2": 535,
    "12.3": 545,
    "12.4": 550,
    "12.5": 555,
    "12.6": 560,
    "12.8": 570,
    "12.9": 575,
    "13.0": 580,
    "13.1": 590,
    "13.2": 595,
}
# Oldest generation that PyTorch's builds, and with them vLLM's, hold code for: pytorch issue 157517 (Maxwell to Volta
# are left out from CUDA 12.8 on), CUDA 13.0 itself begins at Turing. vLLM asks for compute capability 7.0.
OLDEST_GENERATION = {"12": "volta", "12.8": "turing", "12.9": "turing", "13": "turing"}
# What vLLM's wheel of the package index is built with, from that release on. 13.0: VLLM_MAIN_CUDA_VERSION of 0.32.0,
# pull request 39878 (12.9 before it) and vllm-project/router 154 (since 0.20.0). 12.9: issue 30633, of 0.11.0. 12.8:
# documentation of 0.9.0. 12.4: pull request 12098, after 0.6.6. 12.1: documentation of 0.6.6.
WHEEL_CUDA = (((0, 20), "13.0"), ((0, 11), "12.9"), ((0, 9), "12.8"), ((0, 7), "12.4"), ((0, 0), "12.1"))


# Kinds of kernel module by branch, for each source and system.
Carried = dict[int, tuple[str, ...]]
_BOTH: tuple[str, ...] = ("open", "proprietary")
# NVIDIA's repository keeps old branches; from 620 on there is the open module alone.
_NVIDIA: Carried = {branch: _BOTH if branch < OPEN_ALONE_FROM else ("open",) for branch in BRANCHES if branch >= 570}
# Debian: `apt-cache policy` on 2026-11-30. In bookworm the open module stays at 535.261.03 while security updates moved
# the libraries on to 535.309.01: the two do not work together, so that it is left out. In trixie 550.163.01-2 does not
# build for any kernel that it has (6.12.107 to 6.12.118: pci_resize_resource takes an argument more): nothing is left.
# Ubuntu: packages.ubuntu.com, "-server" packages (read 2026-11-30); not run by the tests.
SOURCES: dict[tuple[str, str], Carried] = {
    ("distribution", "Debian 12"): {535: ("proprietary",)},
    ("distribution", "Debian 13"): {},
    ("distribution", "Ubuntu 22"): dict.fromkeys((535, 550, 570, 580, 590, 595), _BOTH),
    ("distribution", "Ubuntu 24"): dict.fromkeys((535, 550, 570, 580, 590, 595), _BOTH),
    ("nvidia", "Debian 12"): _NVIDIA,
    ("nvidia", "Debian 13"): {branch: kinds for branch, kinds in _NVIDIA.items() if branch >= 580},
    ("nvidia", "Ubuntu 22"): _NVIDIA,
    ("nvidia", "Ubuntu 24"): _NVIDIA,
}

# Packages without a display, by source, distribution and the first branch that has these names: those with the kernel
# module by its kind, and the rest. NVIDIA's: Driver Installation Guide r590 and r620, "Compute-only" and the table of
# renames at 590.
PACKAGES = {
    ("distribution", "Debian"): (
        (0, {"open": "nvidia-open-kernel-dkms", "proprietary": "nvidia-kernel-dkms"}, ("nvidia-smi", "libcuda1")),
    ),
    ("distribution", "Ubuntu"): (
        (0, {"open": "nvidia-headless-{branch}-server-open", "proprietary": "nvidia-headless-{branch}-server"},
         ("nvidia-utils-{branch}-server",)),
    ),
    ("nvidia", "Debian"): (
        (0, {"open": "nvidia-kernel-open-dkms", "proprietary": "nvidia-kernel-dkms"}, ("nvidia-driver-cuda",)),
    ),
    ("nvidia", "Ubuntu"): (
        (590, {"open": "nvidia-dkms-open", "proprietary": "nvidia-dkms"}, ("libnvidia-compute", "nvidia-utils")),
        (0, {"open": "nvidia-dkms-{branch}-open", "proprietary": "nvidia-dkms-{branch}"},
         ("libnvidia-compute-{branch}", "nvidia-utils-{branch}")),
    ),
}  # fmt: skip
# Those whose version need not be the driver's.
TOOLS = {"Debian": ("nvidia-modprobe", "nvidia-persistenced"), "Ubuntu": ("nvidia-modprobe",)}
# What the role's own unit runs. A driver that stays gets it alone: it uses no library of the driver, while the daemon
# could draw in one of another version.
NODES = "nvidia-modprobe"
# Keeps apt on a branch of NVIDIA's repository, in which the names of packages do not tell the branch. It is installed
# before the driver.
PINNING = "nvidia-driver-pinning-{branch}"
# NVIDIA's: gpu-driver-container, ubuntu24.04/install.sh; Debian's own has none.
FABRIC_MANAGER = {
    ("distribution", "Ubuntu"): ((0, ("nvidia-fabricmanager-{branch}",)),),
    ("nvidia", "Debian"): ((580, ("nvidia-fabricmanager",)), (0, ("nvidia-fabricmanager-{branch}",))),
    ("nvidia", "Ubuntu"): ((580, ("nvidia-fabricmanager",)), (0, ("nvidia-fabricmanager-{branch}",))),
}
# Beside it where NVSwitches are reached through ConnectX.
SUBNET_MANAGER = ("nvlsm", "infiniband-diags")
