"""What a host tells of its GPUs: the PCI bus, nvidia-smi in the forms that it has, the driver's files and packages."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import driver_present as present
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import info as gpu_info
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import pci as gpu_pci
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import smi as gpu_smi
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.commands import Done
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.commands import run as run_really

from tests.fakes import gpu as fake

A, B = "0000:3b:00.0", "0000:86:00.0"
KERNEL = "6.1.0-49-amd64"


@pytest.fixture
def smi(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets the fake nvidia-smi be the one that is found."""

    def lay_out(gpus: list[dict[str, Any]], **state: Any) -> None:
        fake.lay_out(tmp_path / "bin", gpus, **state)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    return lay_out


# --- the PCI bus -------------------------------------------------------------------------------------------------


def test_gpus_and_switches_are_found_without_a_driver(tmp_path: pathlib.Path) -> None:
    fake.pci_tree(tmp_path / "devices", [fake.gpu("h100", B), fake.gpu("t4", A)], ["22a3", "22a3"])
    gpus, switches = gpu_pci.scan(tmp_path / "devices")
    assert [(one.address, one.device, one.generation, one.driver) for one in gpus] == [
        (A, "1eb8", "turing", ""),
        (B, "2330", "hopper", ""),
    ]
    assert [one.address for one in switches] == ["0000:f0:00.0", "0000:f1:00.0"]


def test_the_driver_that_holds_a_gpu_is_told(tmp_path: pathlib.Path) -> None:
    fake.pci_tree(tmp_path / "devices", [fake.gpu("t4", A)], driver="nouveau")
    assert [one.driver for one in gpu_pci.scan(tmp_path / "devices")[0]] == ["nouveau"]


def test_a_machine_without_a_pci_bus_has_no_gpu(tmp_path: pathlib.Path) -> None:
    assert gpu_pci.scan(tmp_path / "devices") == ([], [])


# --- nvidia-smi --------------------------------------------------------------------------------------------------


def test_t4(smi: Any) -> None:
    smi(
        [fake.gpu("t4", A, processes=[(675, "/usr/lib/xorg/Xorg", 22)], used=22)],
        form=11,
        driver="470.57.02",
        cuda="11.4",
    )
    told = gpu_smi.ask(10)
    assert (told.state, told.problem, told.version, told.cuda) == ("working", "", "470.57.02", "11.4")
    (one,) = told.gpus
    assert (one["address"], one["name"], one["tier"], one["architecture"]) == (A, "Tesla T4", "t4", "Turing")
    assert one["memory_mib"] == {"total": 15360, "reserved": 600, "used": 22, "free": 14738}
    assert one["power_watts"] == {"limit": 70, "default": 70, "min": 60, "max": 70}
    assert one["processes"] == [{"pid": 675, "type": "C", "name": "/usr/lib/xorg/Xorg", "memory_mib": 22}]
    assert one["mig"] == {"current": "", "pending": "", "devices": []}, "it has no MIG"
    assert (one["links"], one["fabric"]) == ([], {"state": "", "status": ""})


def test_a100_with_mig(smi: Any) -> None:
    smi([fake.gpu("a100", A, mig="Enabled", slices=[19968, 19968], uncorrected=2)], form=12, driver="535.54.03")
    (one,) = gpu_smi.ask(10).gpus
    assert (one["mig"]["current"], one["mig"]["pending"]) == ("Enabled", "Enabled")
    assert one["mig"]["devices"] == [
        {"gpu_instance": 3, "compute_instance": 0, "memory_mib": 19968},
        {"gpu_instance": 4, "compute_instance": 0, "memory_mib": 19968},
    ]
    assert one["ecc"] == {"current": "Enabled", "pending": "Enabled", "uncorrected": 2}
    assert one["memory_mib"]["total"] == 81920, "and not that of a slice"


def test_h100_with_nvswitch(smi: Any) -> None:
    smi([fake.gpu("h100", A, down=[17]), fake.gpu("h100", B, recovery="GPU Reset", uncorrected=1)])
    first, second = gpu_smi.ask(10).gpus
    assert [one["gb_per_second"] for one in first["links"]] == [26.562] * 17 + [0.0]
    assert first["fabric"] == {"state": "Completed", "status": "Success"}
    assert (first["recovery"], second["recovery"]) == ("", "GPU Reset")
    assert second["ecc"]["uncorrected"] == 1, "under its newer names"
    assert (second["index"], second["minor"], second["persistence"]) == (1, 1, True)


def test_what_is_said_beside_is_kept(smi: Any) -> None:
    smi([fake.gpu("t4", A)], after="WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n")
    told = gpu_smi.ask(10)
    assert (told.state, told.notes) == ("working", ["WARNING: infoROM is corrupted at gpu 0000:3B:00.0"])


@pytest.mark.parametrize(
    ("fails", "state", "words"),
    [
        ("not_loaded", "not_loaded", "ended with code 9: NVIDIA-SMI has failed because it couldn't communicate"),
        (
            "mismatch",
            "mismatch",
            "Driver/library version mismatch NVML library version: 580.95 (the kernel module that",
        ),
        ("no_devices", "no_devices", "No devices were found (the driver finds no GPU (dmesg tells why))"),
        ("lost", "broken", "a GPU has fallen off the bus: restart the host"),
        ("cut", "broken", "nvidia-smi -q -x: what it prints cannot be read"),
    ],
)
def test_a_driver_that_does_not_work_is_a_state(smi: Any, fails: str, state: str, words: str) -> None:
    smi([], fails=fails)
    told = gpu_smi.ask(10)
    assert told.state == state
    assert words in told.problem


def test_a_mismatch_is_known_by_its_words_where_the_code_is_another() -> None:
    done = Done(255, "Failed to initialize NVML: Driver/library version mismatch\n", "nvidia-smi: ended with code 255")
    assert gpu_smi.ask(1, lambda _command, _seconds: done).state == "mismatch"


def test_one_that_hangs_is_not_waited_for(smi: Any) -> None:
    smi([], fails="hang")
    told = gpu_smi.ask(0.3)
    assert (told.state, told.problem) == ("timeout", "nvidia-smi -q -x: not done within 0.3 s")


def test_a_host_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_smi.ask(1) == gpu_smi.Smi("absent")


# --- the driver on disk ------------------------------------------------------------------------------------------


class Machine:
    """A root directory with files of a driver, and what programs print."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root, self.prints = root, {"dpkg-query": "", "modinfo license": "NVIDIA", "modinfo version": "580.95.05"}
        self.write("proc/sys/kernel/osrelease", KERNEL)

    def write(self, path: str, text: str = "") -> None:
        """Write a file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(self, command: Sequence[str], _seconds: float) -> Done:
        """Run a program: print what is written down for it."""
        name = " ".join([command[0], *(command[2:3] if command[0] == "modinfo" else [])])
        text = self.prints.get(name)
        return Done(None, "", f"{name} is not on this host") if text is None else Done(0, text)

    @property
    def place(self) -> present.Place:
        """Where to look."""
        return present.Place(self.root, self.run)

    def packages(self, *rows: str) -> None:
        """Installed packages: state, name, version."""
        self.prints["dpkg-query"] = "\n".join("\t".join([row[:3], *row[3:].split()]) for row in rows)

    def driver(self, library: str = "580.95.05", module: str = "nvidia.ko") -> dict[str, Any]:
        """Lay out a driver and look at it."""
        if library:
            self.write(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{library}")
        if module:
            self.write(f"lib/modules/{KERNEL}/updates/dkms/{module}")
        return present.driver(self.place, KERNEL)


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    """An empty machine."""
    return Machine(tmp_path / "root")


def test_no_driver(machine: Machine) -> None:
    machine.packages("ii  libc6 2.36-9")
    assert machine.driver("", "") == {
        "library": "", "module": "", "loaded": "", "kind": "", "way": "", "packages": [], "fabric_manager": "",
        "installed": {}, "broken": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("module", "licence", "kind"),
    [
        ("nvidia.ko.zst", "Dual MIT/GPL", "open"),
        ("nvidia-current.ko", "NVIDIA", "proprietary"),
        ("nvidia-current-open.ko.xz", "Dual MIT/GPL", "open"),
        ("nvidia-tesla-535.ko", "NVIDIA", "proprietary"),
    ],
)
def test_module_on_disk(machine: Machine, module: str, licence: str, kind: str) -> None:
    machine.packages("ii  libnvidia-ml1 580.95.05-1", "ii  nvidia-kernel-open-dkms 580.95.05-1")
    machine.prints["modinfo license"] = licence
    found = machine.driver(module=module)
    assert (found["library"], found["module"], found["kind"], found["way"]) == (
        "580.95.05",
        "580.95.05",
        kind,
        "package",
    )
    assert (found["packages"], found["broken"]) == (["nvidia-kernel-open-dkms"], [])


def test_only_the_module_itself_is_the_module(machine: Machine) -> None:
    assert machine.driver("", "nvidia-drm.ko")["module"] == ""


def test_packages_that_are_held_are_installed(machine: Machine) -> None:
    machine.packages("hi  libnvidia-ml1 580.95.05-1", "hi  nvidia-kernel-open-dkms 580.95.05-1")
    found = machine.driver()
    assert (found["way"], found["packages"], found["broken"]) == ("package", ["nvidia-kernel-open-dkms"], [])


def test_installed_packages_are_told_with_the_version_of_their_maker(machine: Machine) -> None:
    machine.packages(
        "hi  libnvidia-ml1 1:580.95.05-1~deb12u1",
        "ii  nvidia-modprobe 535.161.07-1",
        "rc  nvidia-smi 1-1",
        "ii  bash 5",
    )
    assert machine.driver()["installed"] == {
        "libnvidia-ml1": {"version": "580.95.05", "held": True},
        "nvidia-modprobe": {"version": "535.161.07", "held": False},
    }


def test_module_that_runs(machine: Machine) -> None:
    machine.packages("ii  libnvidia-ml1 580.95.05-1")
    machine.write("sys/module/nvidia/version", "580.82.07\n")
    machine.write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07\n")
    found = machine.driver()
    assert (found["loaded"], found["module"], found["kind"]) == ("580.82.07", "580.95.05", "open")


def test_fabric_manager(machine: Machine) -> None:
    machine.packages("ii  nvidia-fabricmanager-570 1:570.124.06-1ubuntu1", "ii  libnvidia-ml1 570.124.06-1")
    assert machine.driver("570.124.06")["fabric_manager"] == "570.124.06"


def test_a_driver_of_the_run_file(machine: Machine) -> None:
    machine.write("usr/bin/nvidia-uninstall")
    found = machine.driver()
    assert (found["way"], found["broken"]) == ("runfile", [])


@pytest.mark.parametrize(
    ("packages", "files", "library", "module", "words"),
    [
        (["iU  nvidia-dkms-580 580.95.05-1"], [], "", "", "package nvidia-dkms-580 is in state iU of dpkg"),
        (["iF  libnvidia-ml1 580.95.05-1"], [], "", "", "dpkg --configure -a, or apt-get purge libnvidia-ml1"),
        (["ii  libnvidia-ml1 580.95.05-1"], ["usr/bin/nvidia-uninstall"], "580.95.05", "nvidia.ko", "both NVIDIA's"),
        ([], [], "580.95.05", "", "libraries of 580.95.05 belong to no package"),
        ([], [], "", "nvidia.ko", "module 580.95.05 is there without its libraries"),
        (
            ["ii  libnvidia-ml1 580.95.05-1"], ["usr/lib/x86_64-linux-gnu/libnvidia-ml.so.535.54.03"], "580.95.05", "",
            "libraries of 535.54.03 and 580.95.05 lie side by side",
        ),
    ],
)  # fmt: skip
def test_what_is_half_there(
    machine: Machine, packages: list[str], files: list[str], library: str, module: str, words: str
) -> None:
    machine.packages(*packages)
    for file in files:
        machine.write(file)
    (told,) = machine.driver(library, module)["broken"]
    assert words in told


@pytest.mark.parametrize("state", ["ii", "hi", "rc", "un"])
def test_a_package_that_is_there_or_gone_is_in_order(machine: Machine, state: str) -> None:
    machine.packages(f"{state}  nvidia-smi 535.54.03-1")
    assert machine.driver("", "")["broken"] == []


# --- the kernel --------------------------------------------------------------------------------------------------


def headers(machine: Machine, release: str = "") -> tuple[str, str]:
    """A kernel and whether its headers can be had."""
    found = present.kernel(machine.place, release)
    return found["release"], found["headers"]


def test_headers(machine: Machine) -> None:
    assert headers(machine) == (KERNEL, "unknown")
    machine.write("var/lib/apt/lists/mirror_Packages")
    assert headers(machine) == (KERNEL, "missing")
    machine.prints["apt-cache"] = f"linux-headers-{KERNEL}:\n  Installed: (none)\n  Candidate: (none)\n"
    assert headers(machine) == (KERNEL, "missing")
    machine.prints["apt-cache"] = f"linux-headers-{KERNEL}:\n  Installed: (none)\n  Candidate: 6.1.140-1\n"
    assert headers(machine) == (KERNEL, "available")
    machine.write("lib/modules/6.12/build")
    assert headers(machine, "6.12") == ("6.12", "installed")


@pytest.mark.parametrize(
    ("runs", "installed", "later"),
    [
        ("6.1.0-9-amd64", [KERNEL], KERNEL),
        (KERNEL, ["6.1.0-9-amd64", KERNEL], ""),
        (KERNEL, [KERNEL, "6.1.0-50-amd64", "6.1.0-100-amd64"], "6.1.0-100-amd64"),
        (KERNEL, [KERNEL, "6.12.48+deb13-amd64", "0-rescue-4b1c"], "6.12.48+deb13-amd64"),
        (KERNEL, [], ""),
    ],
)
def test_the_kernel_that_starts_next(machine: Machine, runs: str, installed: list[str], later: str) -> None:
    for release in installed:
        machine.write(f"boot/vmlinuz-{release}")
    machine.write("proc/sys/kernel/osrelease", runs)
    found = present.kernel(machine.place, "")
    assert (found["next"], found["next_headers"]) == (later, "unknown" if later else "")
    assert present.kernel(machine.place, runs)["next"] == "", "the user names the kernel that starts"


@pytest.mark.parametrize(
    ("packages", "meta"),
    [
        ([f"linux-image-{KERNEL}"], []),
        (["linux-image-amd64"], ["linux-headers-amd64"]),
        (["linux-image-amd64", "linux-headers-amd64"], []),
        (["linux-image-cloud-amd64", "linux-image-rt-amd64"], ["linux-headers-cloud-amd64", "linux-headers-rt-amd64"]),
        (["linux-image-generic-hwe-22.04"], ["linux-headers-generic-hwe-22.04"]),
        (["linux-image-aws", "linux-image-unsigned-6.8.0-60-generic"], ["linux-headers-aws"]),
        (["linux-image-amd64-dbg", "linux-image-extra-virtual"], []),
    ],
)
def test_packages_with_the_headers_of_kernels_to_come(machine: Machine, packages: list[str], meta: list[str]) -> None:
    machine.packages(*(f"ii  {name} 6.1" for name in packages), "rc  linux-image-arm64 6.1")
    assert present.kernel(machine.place, "")["meta"] == meta
    machine.write("var/lib/apt/lists/mirror_Packages")
    assert present.kernel(machine.place, "")["meta"] == [], "no repository has them"
    machine.prints["apt-cache"] = "  Candidate: 6.1.140-1\n"
    assert present.kernel(machine.place, "")["meta"] == meta


def test_secure_boot(machine: Machine) -> None:
    keys = ["/var/lib/dkms/mok.pub", "/other.der"]
    assert present.secure_boot(machine.place, keys) == {"on": None, "key": ""}
    name = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    machine.write(name, "\x06\x00\x00\x00\x00")
    machine.prints["mokutil"] = "/var/lib/dkms/mok.pub is already enrolled"
    assert present.secure_boot(machine.place, keys) == {"on": False, "key": ""}
    machine.write(name, "\x06\x00\x00\x00\x01")
    assert present.secure_boot(machine.place, keys) == {"on": True, "key": keys[0]}
    machine.prints["mokutil"] = "/var/lib/dkms/mok.pub is not enrolled"
    assert present.secure_boot(machine.place, keys) == {"on": True, "key": ""}


# --- all of it ---------------------------------------------------------------------------------------------------


def test_a_gpu_that_the_driver_does_not_see_is_told(smi: Any, machine: Machine, tmp_path: pathlib.Path) -> None:
    fake.pci_tree(tmp_path / "devices", [fake.gpu("h100", A), fake.gpu("h100", B)], driver="nvidia")
    smi([fake.gpu("h100", A)])
    found = gpu_info.look(tmp_path / "devices", place=present.Place(machine.root, run_really))
    assert (found["state"], found["unseen"]) == ("working", [B])
    assert [one["address"] for one in found["gpus"]] == [A]
    assert json.dumps(found), "it travels as JSON"


def test_without_a_driver_every_gpu_is_unseen(machine: Machine, tmp_path: pathlib.Path) -> None:
    fake.pci_tree(tmp_path / "devices", [fake.gpu("t4", A)])
    found = gpu_info.look(tmp_path / "devices", place=machine.place)
    assert (found["state"], found["unseen"], found["gpus"]) == ("absent", [A], [])


def test_nobody_is_asked_where_there_is_no_gpu_or_it_is_passed_on(
    smi: Any, machine: Machine, tmp_path: pathlib.Path
) -> None:
    smi([], fails="hang")
    assert gpu_info.look(tmp_path / "none", place=machine.place)["state"] == "absent"
    fake.pci_tree(tmp_path / "devices", [fake.gpu("t4", A)], driver="vfio-pci")
    found = gpu_info.look(tmp_path / "devices", place=machine.place)
    assert (found["state"], found["unseen"], found["pci"][0]["driver"]) == ("absent", [], "vfio-pci")
