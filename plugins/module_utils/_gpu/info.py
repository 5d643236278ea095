# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a host tells of its GPUs, with a driver or without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._gpu import driver_present as present
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import pci as gpu_pci
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import smi as gpu_smi


def look(
    pci: Path = gpu_pci.DEVICES,
    seconds: float = 30.0,
    release: str = "",
    keys: Iterable[str] = (),
    generations: Mapping[str, str] | None = None,
    place: present.Place | None = None,
) -> dict[str, Any]:
    """Look at the PCI bus, the driver and the kernel, and ask nvidia-smi where there is a GPU."""
    place = place or present.Place()
    gpus, switches = gpu_pci.scan(pci, generations)
    mine = [one.address for one in gpus if one.driver != "vfio-pci"]
    smi = gpu_smi.ask(seconds, place.run) if mine else gpu_smi.Smi("absent")
    kernel = present.kernel(place, release)
    return {
        "pci": [asdict(one) for one in gpus],
        "switches": [one.address for one in switches],
        "state": smi.state,
        "problem": smi.problem,
        "notes": smi.notes,
        "version": smi.version,
        "cuda": smi.cuda,
        "gpus": smi.gpus,
        "unseen": [*gpu_smi.unseen(mine, smi)] if smi.state == "working" else mine,
        "driver": present.driver(place, kernel["release"]),
        "kernel": kernel,
        "secure_boot": present.secure_boot(place, keys),
    }
