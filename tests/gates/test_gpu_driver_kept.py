"""Role gpu_driver where the driver stays, from preflight to proof, under the oldest ansible-core.

GPUs, ``nvidia-smi``, ``systemctl``, ``dpkg`` and the files of the driver are FAKE; what the role writes goes below a
folder of the test. Settings that preflight notes come as texts from older versions of ansible-core.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import driver_present as present
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import info as gpu_info
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog import commands

from tests.fakes import gpu as fake
from tools import environments
from tools.checkout import lean_environment

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the role gives its files to root")

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARS = yaml.safe_load((ROOT / "roles" / "gpu_driver" / "vars" / "main.yml").read_text())
UNIT = "made/etc/systemd/system/llmops-gpu.service"
VERSION = "580.95.05"
PACKAGES = ("nvidia-dkms-580-open", "libnvidia-compute-580", "nvidia-utils-580")
UNITS = ("nvidia-persistenced.service", "nvidia-fabricmanager.service")
PROGRAMS = {
    # states of packages are those of the file: i or h, i, name, version
    "dpkg-query": r"""sed 's/ /\t/g' "$base/packages" """,
    "dpkg": r"""case "$1" in
        --get-selections) grep -q "^hi $2 " "$base/packages" && echo "$2 hold" || echo "$2 install";;
        --set-selections) read -r name wish
            state=ii; [ "$wish" = hold ] && state=hi
            sed -i "s/^[ih]i $name /$state $name /" "$base/packages";;
        esac""",
    "systemctl": r"""case "$*" in
        list-units*) exit 0;;
        *show*) echo LoadState=loaded; echo ActiveState=inactive;;
        *is-enabled*) for word; do grep -qx "enable $word" "$base/systemctl.calls" && exit 0; done; exit 1;;
        *) echo "$*" >> "$base/systemctl.calls";;
        esac""",
    "apt-cache": """[ "$1" = madison ] && cat "$base/offers" """,
    "modprobe": "exit 1",
}
# What differs from a host with two H100 and a driver of packages.
HOSTS: dict[str, dict[str, Any]] = {
    "limited": {"gpu_driver_power_limit": 500},
    # refused for its limit alone: apt has the toolkit
    "beyond": {
        "gpu_driver_power_limit": 900,
        "gpu_driver_container_toolkit": True,
        "offers": " nvidia-container-toolkit |    1.18.0-1 | https://mirror.example.com Packages\n",
    },
    "nowhere": {"system": "Debian 12", "switches": ["22a3"], "gpu_driver_container_toolkit": True},
    "released": {"gpu_driver_hold": False, "watts": (500, 200, 700), "held": True},
}


class Fleet:
    """Hosts in folders, and the role played on all of them."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        try:
            self.programs = environments.ensure("core-2.17") / "bin"
        except environments.NoInterpreter as reason:
            pytest.skip(str(reason))
        for name, given in HOSTS.items():
            self.lay_out(base / name, given)

    def lay_out(self, place: pathlib.Path, given: dict[str, Any]) -> None:
        """GPUs, a driver, programs and units of one host."""
        more = {"watts": given["watts"]} if "watts" in given else {}
        gpus = [fake.gpu("h100", f"0000:{number:02x}:00.0", **more) for number in (59, 134)]
        fake.pci_tree(place / "devices", gpus, given.get("switches", ()), driver="nvidia")
        fake.lay_out(place / "bin", gpus, driver=VERSION)
        for program, text in PROGRAMS.items():
            file = place / "bin" / program
            file.write_text(f'#!/bin/sh\nbase="{place}"\n{text}\n')
            file.chmod(0o755)
        files = {f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}": "", "sys/module/nvidia/version": VERSION}
        files["proc/driver/nvidia/version"] = f"NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}"
        files["proc/sys/kernel/osrelease"] = "6.8.0-60-generic"
        files |= {f"units/{unit}": "" for unit in UNITS}
        files[UNIT] = "ExecStart=/usr/bin/nvidia-smi -pl 500\n" if "watts" in given else ""
        state = "hi" if given.get("held") else "ii"
        rows = [f"{state} {name} {VERSION}-0ubuntu1" for name in PACKAGES]
        files["packages"] = "\n".join([*rows, "ii nvidia-modprobe 580.65.06-0ubuntu1", ""])
        files |= {"systemctl.calls": "", "offers": given.get("offers", "")}
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)

    def look(self, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What the module would tell of a host."""
        place = self.base / name
        monkeypatch.setenv("PATH", f"{place / 'bin'}:/usr/bin:/bin")
        return gpu_info.look(place / "devices", place=present.Place(place, commands.run))

    def play(self, monkeypatch: pytest.MonkeyPatch, limit: str = "all") -> str:
        """Play the role; return what ansible said."""
        with monkeypatch.context() as patch:
            hosts = {name: {"told": self.look(name, patch), **given} for name, given in HOSTS.items()}
        place = "{{ place }}"
        extra = {
            "place": f"{self.base}/{{{{ inventory_hostname }}}}",
            "__gpu_driver_now": "{{ told }}",
            "__gpu_driver_system": "{{ system | default('Ubuntu 24') }}",
            "__gpu_driver_unit_places": [f"{place}/units", f"{place}/{pathlib.Path(UNIT).parent}"],
            "__gpu_driver_files": {key: f"{place}/made{path}" for key, path in VARS["__gpu_driver_files"].items()},
        }
        play = {
            "hosts": "all",
            "gather_facts": False,
            "environment": {"PATH": f"{place}/bin:/usr/bin:/bin"},
            "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
            "tasks": [{"ansible.builtin.include_role": {"name": "llmops.vllm.gpu_driver"}}],
        }
        (self.base / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
        (self.base / "play.yml").write_text(json.dumps([play]))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        env = {**kept, **lean_environment(), "ANSIBLE_HOME": str(self.base / "home"), "ANSIBLE_NOCOLOR": "1"}
        env["ANSIBLE_PIPELINING"] = "true"
        files = [str(self.base / name) for name in ("inventory.yml", "play.yml")]
        words = ["-i", files[0], "-e", json.dumps(extra), "--limit", limit, files[1]]
        command = [str(self.programs / "ansible-playbook"), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=self.base)
        return done.stdout + done.stderr

    def text(self, name: str, path: str) -> str:
        """A file of a host; empty when it is not there."""
        file = self.base / name / path
        return file.read_text() if file.exists() else ""


def recap(told: str) -> dict[str, tuple[int, int]]:
    """Tasks that changed and that failed, by host."""
    rows = re.findall(r"(?m)^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=(\d+)", told)
    return {name: (int(changed), int(failed)) for name, changed, failed in rows}


def test_a_driver_that_stays(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(tmp_path)
    told = fleet.play(monkeypatch)
    flat, ended = " ".join(told.split()), recap(told)
    assert {name: failed for name, (_changed, failed) in ended.items()} == {
        "limited": 0, "beyond": 1, "nowhere": 1, "released": 0,
    }, told[-6000:]  # fmt: skip
    assert (ended["beyond"][0], ended["nowhere"][0]) == (0, 0), "refused before anything is written"
    assert "gpu_driver_power_limit is 900, but NVIDIA H100 80GB HBM3 0000:3b:00.0 takes 200 to 700 watts" in flat
    assert "nowhere: nvidia-fabricmanager comes from NVIDIA's repository, and gpu_driver_nvidia_url is empty" in flat
    # limits
    limit = [f"-i {fake.uuid(number)} -pl {{}}" for number in (0, 1)]
    calls = {name: fleet.text(name, "bin/nvidia-smi.calls").splitlines() for name in HOSTS}
    assert calls["limited"] == [line.format(500) for line in limit]
    assert calls["beyond"] == []
    assert calls["released"] == [line.format(700) for line in limit], "the limit of the role goes with its unit"
    # packages of the driver's own version, and no others
    states = {name: re.findall(r"(?m)^(\w\w) (\S+)", fleet.text(name, "packages")) for name in HOSTS}
    held = {name: [package for state, package in rows if state == "hi"] for name, rows in states.items()}
    assert held == {"limited": [*PACKAGES], "beyond": [], "nowhere": [], "released": []}
    # units
    enabled = fleet.text("limited", "systemctl.calls")
    assert "enable nvidia-persistenced.service" in enabled
    assert "enable llmops-gpu.service" in enabled
    assert "fabricmanager" not in enabled, "without NVSwitches it would fail"
    again = fleet.play(monkeypatch, "limited")
    assert recap(again) == {"limited": (0, 0)}, again[-6000:]
