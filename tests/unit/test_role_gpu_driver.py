"""Role gpu_driver without a host: what preflight says and refuses, and what it would write, beside a fake PCI bus."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests import plain_ansible
from tests.fakes import gpu as fake
from tests.role_templates import environment

ROLE = pathlib.Path(__file__).resolve().parent.parent.parent / "roles" / "gpu_driver"
VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
HEADERS = {"gpu_driver_headers": ["linux-headers-mine"], "gpu_driver_nvidia_url": "https://mirror.example.com/cuda"}

# What differs from a host with two H100 whose headers are known; what is said; "refused" or what is done.
HOSTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "bare": (HEADERS, "a driver is installed: branch 580, open module, from nvidia (CUDA 13.0 needs", "install"),
    "nowhere": (
        {**HEADERS, "gpu_driver_nvidia_url": ""},
        "branch 580 comes from NVIDIA's repository, and gpu_driver_nvidia_url is empty: give its address",
        "refused",
    ),
    "clear": (
        {**HEADERS, "gpu_driver_nvidia_url": "http://mirror.example.com/cuda"},
        "which anyone on the way can exchange",
        "refused",
    ),
    "cpu": ({"vllm_gpus": 0}, "no driver is wanted (the host serves from its CPU (vllm_gpus: 0))", "none"),
    "empty": ({"gpus": []}, "no driver is wanted (there is no NVIDIA GPU on the PCI bus)", "none"),
    "wrong": ({**HEADERS, "gpu_driver_branch": 535}, "gpu_driver_branch is 535, needed is 580 or newer", "refused"),
    "serves": ({**HEADERS, "serves": ["vllm@r0.service"]}, "PENDING, nothing is done now: branch 580", "pending"),
    "keeps": (
        {"gpu_driver_state": "absent", "serves": ["vllm@r0.service"]},
        "gpu_driver_state is absent, but vllm@r0.service serves: remove it first (vllm_state: absent)",
        "refused",
    ),
    "foreign": (
        {**HEADERS, "system": "Fedora 42", "gpu_driver_packages": ["akmod-nvidia"]},
        "foreign runs Fedora 42; needed is one of Debian 12, Debian 13, Ubuntu 22, Ubuntu 24",
        "refused",
    ),
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Preflight of every host, in one run."""
    base = tmp_path_factory.mktemp("gpu_driver")
    hosts: dict[str, dict[str, Any]] = {}
    for name, (variables, _said, _done) in HOSTS.items():
        given = dict(variables)
        kinds = given.pop("gpus", ["h100", "h100"])
        devices, commands = base / name / "devices", base / name / "bin"
        fake.pci_tree(devices, [fake.gpu(kind, f"0000:{number:02x}:00.0") for number, kind in enumerate(kinds, 59)])
        commands.mkdir(parents=True)
        for program, text in (("systemctl", "\n".join(given.pop("serves", []))), ("dpkg-query", "")):
            (commands / program).write_text(f"#!/bin/sh\necho '{text}'\n")
            (commands / program).chmod(0o755)
        hosts[name] = {"devices": str(devices), "commands": str(commands), "system": "Debian 12", **given}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": {"PATH": "{{ commands }}:/usr/bin:/bin"},
        "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "tasks": [
            {"ansible.builtin.include_role": {"name": "llmops.vllm.gpu_driver", "tasks_from": "preflight"}},
            {"ansible.builtin.debug": {"msg": "DONE {{ inventory_hostname }} {{ __gpu_driver.action }} END"}},
        ],
    }
    (base / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    (base / "play.yml").write_text(json.dumps([play]))
    env = plain_ansible.environment(base)
    extra = json.dumps({"__gpu_driver_pci": "{{ devices }}", "__gpu_driver_system": "{{ system }}"})
    command = ["ansible-playbook", "-i", str(base / "inventory.yml"), "-e", extra, str(base / "play.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", HOSTS)
def test_preflight_says_what_is_done_and_refuses_before_anything_changed(played: str, name: str) -> None:
    _variables, said, done = HOSTS[name]
    flat = re.sub(r"\s+", " ", played)
    mine = [line for line in flat.split('"msg": "') if name in line[:20]]
    assert any(said in line for line in [flat if done == "refused" else "", *mine]), played[-3000:]
    assert (f"DONE {name} {done} END" in flat) == (done != "refused")
    recap = re.search(rf"{name}\s+: ok=\d+\s+changed=(\d+)\s+unreachable=0\s+failed=(\d+)", played)
    assert recap is not None
    assert recap.groups() == ("0", str(int(done == "refused")))


# --- templates ---------------------------------------------------------------------------------------------------


def render(name: str, **values: Any) -> str:
    """Render a template of the role."""
    known = {"ansible_managed": "Ansible managed", "__gpu_driver_files": VARS["__gpu_driver_files"], **values}
    return environment(ROLE).get_template(name).render(known)


def test_options_reach_the_module_under_every_name_that_it_has() -> None:
    text = render("modprobe.conf.j2", gpu_driver_module_options={"NVreg_EnableGpuFirmware": 1})
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == [
        "blacklist nouveau",
        "options nouveau modeset=0",
        "options nvidia NVreg_EnableGpuFirmware=1",
        "options nvidia-current NVreg_EnableGpuFirmware=1",
        "options nvidia-current-open NVreg_EnableGpuFirmware=1",
    ]


@pytest.mark.parametrize(("watts", "limit"), [(0, []), ("300", ["/usr/bin/nvidia-smi -pl 300"])])
def test_the_unit_makes_the_nodes_of_every_gpu_and_sets_a_limit_where_one_is_wanted(
    watts: Any, limit: list[str]
) -> None:
    pci = [{"driver": driver} for driver in ("nvidia", "vfio-pci", "")]
    text = render("llmops-gpu.service.j2", gpu_driver_power_limit=watts, __gpu_driver_now={"pci": pci})
    assert re.findall(r"(?m)^ExecStart=(.*)$", text) == [
        "/usr/bin/nvidia-modprobe -c 255 -c 0 -c 1",
        "/usr/bin/nvidia-modprobe -u -c 0",
        *limit,
    ]


def test_components_are_asked_of_the_repositories_that_the_host_has() -> None:
    pairs = ["http://mirror/debian/ bookworm", "http://mirror/security/ bookworm-security"]
    text = render("components.sources.j2", __gpu_driver_pairs=pairs, __gpu_driver_key="/usr/share/keyrings/d.gpg")
    assert text.count("\nSigned-By: /usr/share/keyrings/d.gpg\n") == len(pairs)
    assert "Signed-By" not in render("components.sources.j2", __gpu_driver_pairs=pairs, __gpu_driver_key="")
    assert re.findall(r"(?m)^(?:URIs|Suites): (.*)$", text) == [
        "http://mirror/debian/", "bookworm", "http://mirror/security/", "bookworm-security",
    ]  # fmt: skip
