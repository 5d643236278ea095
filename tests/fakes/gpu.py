"""FAKE GPUs: an ``nvidia-smi`` that tells what a file says, and a tree of PCI devices like that of the kernel.

``lay_out(DIRECTORY, ...)`` writes ``DIRECTORY/nvidia-smi`` and ``DIRECTORY/nvidia-smi.json``, which it obeys:
``driver``, ``cuda``, ``form`` (version of the DTD), ``fails`` (one of ``FAILS``) and ``gpus``, a list of ``kind`` (one
of ``KINDS``), ``address`` and what differs from the kind. ``DIRECTORY/nvidia-smi.calls`` tells what it was asked to
change; the power limit, ECC, MIG and persistence are changed in the file.

The form of the output, element by element, is that of real outputs which are public: telegraf's
``plugins/inputs/nvidia_smi/testdata`` (tesla-t4.xml: v11; a100-sxm4-v12.xml, with MIG;
pro-6000-maxq-blackwell-v13.xml), and ``nvidia-smi nvlink --status`` of an H100 in stas00/ml-engineering. Values are
made up.

It uses the standard library only and needs no other file, so that it can be copied to a host:
``gpu.py DIRECTORY lay_out KIND ...`` makes program and tree (``DIRECTORY/devices``) of GPUs of these kinds,
``gpu.py DIRECTORY set JSON`` changes the file.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

KINDS: dict[str, dict[str, Any]] = {
    "t4": {"name": "Tesla T4", "architecture": "Turing", "device": "1eb8", "memory": 15360, "watts": (70, 60, 70),
           "ecc": "Enabled", "mig": "N/A", "links": 0},
    "a100": {"name": "NVIDIA A100-SXM4-80GB", "architecture": "Ampere", "device": "20b2", "memory": 81920,
             "watts": (400, 100, 400), "ecc": "Enabled", "mig": "Disabled", "links": 12},
    "h100": {"name": "NVIDIA H100 80GB HBM3", "architecture": "Hopper", "device": "2330", "memory": 81559,
             "watts": (700, 200, 700), "ecc": "Enabled", "mig": "Disabled", "links": 18, "fabric": "Completed"},
    "b200": {"name": "NVIDIA B200", "architecture": "Blackwell", "device": "2901", "memory": 183359,
             "watts": (1000, 200, 1000), "ecc": "Enabled", "mig": "Disabled", "links": 18, "fabric": "Completed"},
}  # fmt: skip
LINK_SPEED = "26.562"

# What it says, and the code with which it ends, when it does not work.
FAILS = {
    "not_loaded": (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA"
        " driver is installed and running.\n\n",
        9,
    ),
    "mismatch": (
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n",
        18,
    ),
    "no_devices": ("No devices were found\n", 6),
    "lost": ("Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.\n", 15),
    "cut": ('<?xml version="1.0" ?>\n<nvidia_smi_log>\n', 0),
}
FOREVER = 3600.0


def gpu(kind: str, address: str, **other: Any) -> dict[str, Any]:
    """A GPU of a kind at an address like 0000:3b:00.0, with what is not as with others of the kind."""
    return {"kind": kind, "address": address, **other}


def lay_out(base: pathlib.Path, gpus: list[dict[str, Any]], python: str = sys.executable, **state: Any) -> pathlib.Path:
    """Write the program and its file into a directory; return the program."""
    base.mkdir(parents=True, exist_ok=True)
    document = {"driver": "580.95.05", "cuda": "13.0", "form": 13, "fails": "", **state, "gpus": gpus}
    (base / "nvidia-smi.json").write_text(json.dumps(document, indent=2))
    program = base / "nvidia-smi"
    program.write_text(f'#!/bin/sh\nexec {python} {pathlib.Path(__file__).resolve()} {base} "$@"\n')
    program.chmod(0o755)
    return program


def pci_tree(root: pathlib.Path, gpus: list[dict[str, Any]], switches: Sequence[str] = (), driver: str = "") -> None:
    """Build what /sys/bus/pci/devices shows of these GPUs and NVSwitches (device ids), and of devices of others."""
    holders = root.parent / "drivers"
    rows = [(one["address"], "10de", KINDS[one["kind"]]["device"], "030200") for one in gpus]
    rows += [(f"0000:f{number:x}:00.0", "10de", ident, "068000") for number, ident in enumerate(switches)]
    rows += [("0000:00:00.0", "8086", "1237", "060000"), ("0000:01:00.1", "10de", "22a6", "040300")]
    for address, vendor, device, kind in rows:
        place = root / address
        place.mkdir(parents=True)
        for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
            (place / name).write_text(f"0x{value}\n")
        if driver and kind == "030200":
            (holders / driver).mkdir(parents=True, exist_ok=True)
            (place / "driver").symlink_to(holders / driver)


# --- nvidia-smi -q -x --------------------------------------------------------------------------------------------


def report(state: dict[str, Any]) -> str:
    """The whole of ``nvidia-smi -q -x``."""
    lines = [
        '<?xml version="1.0" ?>',
        f'<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v{state["form"]}.dtd">',
        "<nvidia_smi_log>",
        "\t<timestamp>Mon Nov 30 08:00:00 2026</timestamp>",
        f"\t<driver_version>{state['driver']}</driver_version>",
        f"\t<cuda_version>{state['cuda']}</cuda_version>",
        f"\t<attached_gpus>{len(state['gpus'])}</attached_gpus>",
    ]
    for number, one in enumerate(state["gpus"]):
        text = "".join(element(*part, depth=2) for part in parts(number, one, state["form"]))
        lines += [f'\t<gpu id="{bus_id(one)}">', text.rstrip("\n"), "\t</gpu>"]
    return "\n".join([*lines, "</nvidia_smi_log>", ""]) + state.get("after", "")


def element(name: str, content: Any, depth: int) -> str:
    """One element: a text, or a list of elements."""
    indent = "\t" * depth
    if isinstance(content, list):
        inner = "".join(element(*part, depth=depth + 1) for part in content)
        return f"{indent}<{name}>\n{inner}{indent}</{name}>\n"
    return f"{indent}<{name}>{escape(str(content))}</{name}>\n"


def bus_id(one: dict[str, Any]) -> str:
    """The address as NVIDIA writes it."""
    return f"0000{one['address']}".upper()


def uuid(number: int) -> str:
    """The UUID of a GPU by its number."""
    return f"GPU-00000000-0000-0000-0000-{number:012d}"


def parts(number: int, one: dict[str, Any], form: int) -> list[tuple[str, Any]]:
    """The elements of one GPU in their order."""
    is_ = {**KINDS[one["kind"]], "used": 4, "processes": [], "slices": [], "persistence": "Enabled", **one}
    limit, least, most = is_["watts"]
    uncorrected = is_.get("uncorrected", 0)
    counters = ["sram_uncorrectable_parity", "sram_uncorrectable_secded"] if form >= 13 else ["sram_uncorrectable"]
    volatile = [
        ("sram_correctable", 0),
        *((name, uncorrected if place == 0 else 0) for place, name in enumerate(counters)),
        ("dram_correctable", 0),
        ("dram_uncorrectable", 0),
    ]
    power = [
        ("power_state", "P0"),
        ("power_draw", "67.03 W"),
        ("current_power_limit" if form >= 12 else "power_limit", f"{limit}.00 W"),
        ("default_power_limit", f"{KINDS[one['kind']]['watts'][0]}.00 W"),
        ("min_power_limit", f"{least}.00 W"),
        ("max_power_limit", f"{most}.00 W"),
    ]
    slices = [
        (
            "mig_device",
            [
                ("index", place),
                ("gpu_instance_id", place + 3),
                ("compute_instance_id", 0),
                ("device_attributes", [("shared", [("multiprocessor_count", 14), ("copy_engine_count", 1)])]),
                ("ecc_error_count", [("volatile_count", [("sram_uncorrectable", 0)])]),
                ("fb_memory_usage", [("total", f"{size} MiB"), ("reserved", "0 MiB"), ("used", "12 MiB")]),
            ],
        )
        for place, size in enumerate(is_["slices"])
    ]
    processes = [
        (
            "process_info",
            [
                ("gpu_instance_id", "N/A"),
                ("compute_instance_id", "N/A"),
                ("pid", pid),
                ("type", "C"),
                ("process_name", name),
                ("used_memory", f"{memory} MiB"),
            ],
        )
        for pid, name, memory in is_["processes"]
    ]
    return [
        ("product_name", is_["name"]),
        ("product_brand", "NVIDIA"),
        ("product_architecture", is_["architecture"]),
        ("display_mode", "Requested functionality has been deprecated" if form >= 13 else "Disabled"),
        ("display_active", "Disabled"),
        ("persistence_mode", is_["persistence"]),
        ("addressing_mode", "None"),
        ("mig_mode", [("current_mig", is_["mig"]), ("pending_mig", is_.get("pending_mig", is_["mig"]))]),
        ("mig_devices", slices or "\n\t\t\tNone\n\t\t"),
        ("serial", f"165052200{number:04d}"),
        ("uuid", uuid(number)),
        ("minor_number", number),
        ("vbios_version", "92.00.36.00.02"),
        *([("gpu_recovery_action", is_.get("recovery", "None"))] if form >= 13 else []),
        ("pci", [("pci_device_id", f"{is_['device'].upper()}10DE"), ("pci_bus_id", bus_id(one))]),
        ("fan_speed", "N/A"),
        ("performance_state", "P0"),
        (
            "fb_memory_usage",
            [
                ("total", f"{is_['memory']} MiB"),
                ("reserved", "600 MiB"),
                ("used", f"{is_['used']} MiB"),
                ("free", f"{is_['memory'] - 600 - is_['used']} MiB"),
            ],
        ),
        ("bar1_memory_usage", [("total", "131072 MiB"), ("used", "1 MiB"), ("free", "131071 MiB")]),
        ("compute_mode", "Default"),
        ("utilization", [("gpu_util", "0 %"), ("memory_util", "0 %")]),
        ("ecc_mode", [("current_ecc", is_["ecc"]), ("pending_ecc", is_.get("pending_ecc", is_["ecc"]))]),
        ("ecc_errors", [("volatile", volatile), ("aggregate", volatile)]),
        ("retired_pages", [("pending_blacklist", "N/A"), ("pending_retirement", "N/A")]),
        ("temperature", [("gpu_temp", "27 C")]),
        ("gpu_power_readings" if form >= 12 else "power_readings", power),
        ("clocks", [("graphics_clock", "1275 MHz"), ("sm_clock", "1275 MHz")]),
        ("fabric", [("state", is_.get("fabric", "N/A")), ("status", "Success" if "fabric" in is_ else "N/A")]),
        ("processes", processes),
    ]


# --- nvidia-smi --------------------------------------------------------------------------------------------------


def links(state: dict[str, Any]) -> str:
    """The whole of ``nvidia-smi nvlink --status``."""
    lines = []
    for number, one in enumerate(state["gpus"]):
        is_ = {**KINDS[one["kind"]], "down": [], **one}
        lines.append(f"GPU {number}: {is_['name']} (UUID: {uuid(number)})")
        for link in range(is_["links"]):
            lines.append(f"\t Link {link}: {'<inactive>' if link in is_['down'] else f'{LINK_SPEED} GB/s'}")
    return "\n".join([*lines, ""])


def change(state: dict[str, Any], words: list[str]) -> str:
    """Do what ``-pm``, ``-pl``, ``-e`` and ``-mig`` ask for, of all GPUs or of that after ``-i``."""
    given = dict(zip(words, words[1:]))
    chosen = [
        one for number, one in enumerate(state["gpus"]) if given.get("-i", str(number)) in (str(number), uuid(number))
    ]
    for one in chosen:
        kind = KINDS[one["kind"]]
        if "-pl" in given:
            one["watts"] = [int(float(given["-pl"])), *kind["watts"][1:]]
        if "-pm" in given:
            one["persistence"] = "Enabled" if given["-pm"] == "1" else "Disabled"
        for option, name in (("-e", "ecc"), ("-mig", "mig")):
            if option in given:
                one[f"pending_{name}"] = "Enabled" if given[option] == "1" else "Disabled"
    return "All done.\n"


def main() -> int:
    """Obey the file, or make it."""
    base, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
    file = base / "nvidia-smi.json"
    if words[:1] == ["lay_out"]:
        gpus = [gpu(kind, f"0000:{number + 59:02x}:00.0") for number, kind in enumerate(words[1:])]
        lay_out(base, gpus)
        pci_tree(base / "devices", gpus)
        return 0
    state = json.loads(file.read_text())
    if words[:1] == ["set"]:
        file.write_text(json.dumps({**state, **json.loads(words[1])}, indent=2))
        return 0
    if state["fails"] == "hang":
        time.sleep(FOREVER)
    if state["fails"]:
        text, code = FAILS[state["fails"]]
        sys.stdout.write(text)
        return code
    if words == ["-q", "-x"]:
        sys.stdout.write(report(state))
    elif words[:1] == ["nvlink"]:
        sys.stdout.write(links(state))
    elif words == ["-L"]:
        for number, one in enumerate(state["gpus"]):
            sys.stdout.write(f"GPU {number}: {KINDS[one['kind']]['name']} (UUID: {uuid(number)})\n")
    elif {"-pm", "-pl", "-e", "-mig"} & set(words):
        with (base / "nvidia-smi.calls").open("a") as calls:
            calls.write(" ".join(words) + "\n")
        sys.stdout.write(change(state, words))
        file.write_text(json.dumps(state, indent=2))
    else:
        sys.stdout.write(f"Invalid combination of input arguments: {' '.join(words)}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
