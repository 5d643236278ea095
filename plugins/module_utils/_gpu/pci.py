# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs and NVSwitches on the PCI bus, as the kernel tells them without any driver."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.llmops.vllm.plugins.module_utils._gpu.driver_data import SWITCHES, VENDOR
from ansible_collections.llmops.vllm.plugins.module_utils._gpu.driver_decision import generation_of

DEVICES = Path("/sys/bus/pci/devices")
_GPU_CLASSES = ("0300", "0302")  # with and without a display
_BRIDGE = "0680"


@dataclass(frozen=True)
class Device:
    """One device of NVIDIA's. ``driver`` is the kernel's that holds it: nvidia, nouveau, vfio-pci, or nothing."""

    address: str
    device: str  # four hexadecimal digits
    generation: str
    driver: str


def scan(root: Path = DEVICES, more: Mapping[str, str] | None = None) -> tuple[list[Device], list[Device]]:
    """GPUs and NVSwitches, by address; ``more`` are generations by device id beside the table's."""
    gpus, switches = [], []
    for kind, device in _devices(root, more or {}):
        if kind in _GPU_CLASSES:
            gpus.append(device)
        elif kind == _BRIDGE and int(device.device, 16) in SWITCHES:
            switches.append(device)
    return gpus, switches


def _devices(root: Path, more: Mapping[str, str]) -> Iterator[tuple[str, Device]]:
    for place in sorted(root.glob("*")):  # a machine without a PCI bus has no such directory
        with contextlib.suppress(FileNotFoundError):  # taken out meanwhile
            if _read(place / "vendor") != VENDOR:
                continue
            ident = _read(place / "device")
            driver = place / "driver"
            holder = driver.resolve().name if driver.is_symlink() else ""
            yield _read(place / "class")[:4], Device(place.name, ident, generation_of(int(ident, 16), more), holder)


def _read(path: Path) -> str:
    return path.read_text().strip().lower().replace("0x", "", 1)
