# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi tells of the GPUs, and what it means when it tells nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from ansible_collections.llmops.vllm.plugins.module_utils._gpu import tiers
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog import commands

PROGRAM = "nvidia-smi"
_END = "</nvidia_smi_log>"

# Exit codes of nvidia-smi are those of NVML (nvmlReturn_t); what an operator should do about each.
_CODES = {
    6: ("no_devices", "the driver finds no GPU (dmesg tells why)"),
    9: ("not_loaded", "the kernel module is not loaded"),
    12: ("broken", "NVML's library is missing"),
    15: ("broken", "a GPU has fallen off the bus: restart the host"),
    18: ("mismatch", "the kernel module that runs and the libraries are of different versions: restart the host"),
}
# Some versions end with another code; the words are the same in all.
_WORDS = (
    ("version mismatch", 18),
    ("couldn't communicate with the NVIDIA driver", 9),
    ("No devices were found", 6),
)


@dataclass(frozen=True)
class Smi:
    """``state``: working, absent, not_loaded, mismatch, no_devices, timeout, broken; ``problem`` in words."""

    state: str
    problem: str = ""
    version: str = ""
    cuda: str = ""
    gpus: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def ask(seconds: float, run: commands.Run = commands.run) -> Smi:
    """Ask for everything that it knows; what cannot be asked is a state, not an error."""
    done = run([PROGRAM, "-q", "-x"], seconds)
    text = " ".join(done.text.split())[-300:]
    if done.code is None:
        missing = done.problem.endswith("is not on this host")
        return Smi("absent" if missing else "timeout", "" if missing else done.problem)
    if done.code:
        code = next((code for words, code in _WORDS if words in done.text), done.code)
        state, mend = _CODES.get(code, ("broken", "see its words"))
        return Smi(state, f"{done.problem}: {text or 'it says nothing'} ({mend})")
    _before, begin, document = done.text.partition("<?xml")
    document, end, rest = document.partition(_END)
    try:
        log = ElementTree.fromstring(begin + document + end)
    except (ValueError, ElementTree.ParseError) as problem:
        return Smi("broken", f"{PROGRAM} -q -x: what it prints cannot be read: {problem}: {text}")
    gpus = [_gpu(number, node) for number, node in enumerate(log.iter("gpu"))]
    links, notes = _links(seconds, run)
    for gpu in gpus:
        gpu["links"] = links.get(gpu["uuid"], [])
    notes += [line.strip() for line in rest.splitlines() if line.strip()]
    return Smi("working", "", _text(log, "driver_version"), _text(log, "cuda_version"), gpus, notes)


def _gpu(number: int, node: ElementTree.Element) -> dict[str, Any]:
    tier = tiers.of_device(_text(node, "product_name"))
    power = "gpu_power_readings" if node.find("gpu_power_readings") is not None else "power_readings"
    return {
        "index": number,
        "address": bus_address(node.get("id", "")),
        "uuid": _text(node, "uuid"),
        "name": _text(node, "product_name"),
        "tier": tier.name if tier else "",
        "architecture": _text(node, "product_architecture"),
        "minor": _number(node, "minor_number"),
        "persistence": _text(node, "persistence_mode") == "Enabled",
        "memory_mib": {
            part: _number(node, f"fb_memory_usage/{part}") for part in ("total", "reserved", "used", "free")
        },
        "power_watts": {
            "limit": _number(node, f"{power}/current_power_limit") or _number(node, f"{power}/power_limit"),
            **{part: _number(node, f"{power}/{part}_power_limit") for part in ("default", "min", "max")},
        },
        "ecc": {
            "current": _text(node, "ecc_mode/current_ecc"),
            "pending": _text(node, "ecc_mode/pending_ecc"),
            "uncorrected": _uncorrected(node),
        },
        "mig": {
            "current": _text(node, "mig_mode/current_mig"),
            "pending": _text(node, "mig_mode/pending_mig"),
            "devices": [
                {
                    "gpu_instance": _number(one, "gpu_instance_id"),
                    "compute_instance": _number(one, "compute_instance_id"),
                    "memory_mib": _number(one, "fb_memory_usage/total"),
                }
                for one in node.iterfind("mig_devices/mig_device")
            ],
        },
        "fabric": {"state": _text(node, "fabric/state"), "status": _text(node, "fabric/status")},
        "recovery": _text(node, "gpu_recovery_action"),
        "processes": [
            {
                "pid": _number(one, "pid"),
                "type": _text(one, "type"),
                "name": _text(one, "process_name"),
                "memory_mib": _number(one, "used_memory"),
            }
            for one in node.iterfind("processes/process_info")
        ],
    }


def _uncorrected(node: ElementTree.Element) -> int:
    """Errors since the driver was loaded, under whichever names this version has."""
    return sum(
        _number(node, f"ecc_errors/volatile/{one.tag}")
        for one in node.iterfind("ecc_errors/volatile/*")
        if "uncorrectable" in one.tag
    )


def _links(seconds: float, run: commands.Run) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """NVLinks by UUID of the GPU; speed 0 is a link that is down."""
    done = run([PROGRAM, "nvlink", "--status"], seconds)
    if done.problem:
        return {}, [f"its links are not known: {done.problem}"]
    found: dict[str, list[dict[str, Any]]] = {}
    mine: list[dict[str, Any]] = []
    for line in done.text.splitlines():
        if header := re.match(r"GPU \d+: .*\(UUID: (\S+)\)", line):
            mine = found.setdefault(header[1], [])
        elif link := re.match(r"\s+Link (\d+): (?:([\d.]+) GB/s|<inactive>)", line):
            mine.append({"link": int(link[1]), "gb_per_second": float(link[2] or 0)})
    return found, []


def bus_address(text: str) -> str:
    """``00000000:3B:00.0`` as the kernel writes it: ``0000:3b:00.0``."""
    domain, _colon, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if rest else ""


def _text(node: ElementTree.Element, path: str) -> str:
    """The text of an element; empty where the GPU has no such thing."""
    text = (node.findtext(path) or "").strip()
    return "" if text in ("N/A", "[N/A]", "None") or "deprecated" in text else text


def _number(node: ElementTree.Element, path: str) -> int:
    """The number of an element such as ``81920 MiB`` or ``70.00 W``; 0 where there is none."""
    found = re.match(r"\d+", _text(node, path))
    return int(found[0]) if found else 0


def unseen(addresses: list[str], smi: Smi) -> Iterator[str]:
    """The GPUs of the PCI bus that nvidia-smi does not tell of."""
    seen = {gpu["address"] for gpu in smi.gpus}
    return (address for address in addresses if address not in seen)
