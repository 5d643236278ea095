"""Role llm_exporters without a host: what each host gets, how it is started, and that the real programs take it."""

from __future__ import annotations

import contextlib
import csv
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._monitoring import targets as monitoring_targets

from tests import debian_programs, plain_ansible
from tests.exporters_role import ADDRESS, DEFAULTS, GROUPS, VARS, render, resolve, unit_text, units
from tests.fakes.vllm.running import await_that
from tests.ports import free_port

ARCHIVES = {f"llm_exporters_{name}_install_method": "archive" for name in ("node", "nginx", "log")}
ALL = [
    *units("lb1").values(),
    *units("lb1", **ARCHIVES).values(),
    *units("gpu1").values(),
    *units("gpu1", llm_exporters_gpu="nvidia_gpu_exporter").values(),
]


@pytest.mark.parametrize(
    ("host", "variables", "found"),
    [
        ("mon1", {}, ["prometheus-node-exporter"]),
        ("lb1", {}, ["mtail", "prometheus-nginx-exporter", "prometheus-node-exporter"]),
        ("lb1", ARCHIVES, ["llm-exporter-log", "llm-exporter-nginx", "llm-exporter-node"]),
        (
            "lb1",
            {"llm_exporters_log_install_method": "none"},
            ["prometheus-nginx-exporter", "prometheus-node-exporter"],
        ),
        ("gpu1", {}, ["nvidia-dcgm-exporter", "prometheus-node-exporter"]),
        ("gpu1", {"vllm_gpus": 0}, ["prometheus-node-exporter"]),
        ("gpu1", {"vllm_gpus": "0"}, ["prometheus-node-exporter"]),
        ("gpu1", {"llm_exporters_gpu": "none"}, ["prometheus-node-exporter"]),
        ("gpu1", {"llm_exporters_gpu": "nvidia_gpu_exporter"}, ["llm-exporter-gpu", "prometheus-node-exporter"]),
        ("gpu1", {"llm_exporters_gpu_install_method": "none"}, ["prometheus-node-exporter"]),
        ("gpu1", {"llm_exporters_components": ["gpu"]}, ["nvidia-dcgm-exporter"]),
        ("gpu1", {"llmops_server_group": "others"}, ["prometheus-node-exporter"]),
        ("lb1", {"llm_exporters_state": "absent"}, []),
    ],
)
def test_each_host_gets_what_it_needs(host: str, variables: dict[str, Any], found: list[str]) -> None:
    here = [unit["unit"].removesuffix(".service") for unit in units(host, **variables).values()]
    assert sorted(here) == found
    gone = [unit["unit"].removesuffix(".service") for unit in resolve("__llm_exporters_gone", host, **variables)]
    assert sorted(here + gone) == sorted({*here, *gone}), "one comes and goes at once"
    assert len(here + gone) == len(VARS["__llm_exporters_units"])


@pytest.mark.parametrize("method", ["package", "archive", "none"])
def test_every_exporter_is_asked_however_it_came(method: str) -> None:
    variables = dict.fromkeys(ARCHIVES, method)
    assert [unit["name"] for unit in resolve("__llm_exporters_asked", "lb1", **variables)] == ["log", "nginx", "node"]


GPU_EXPORTER: dict[str, Any] = {"llm_exporters_gpu": "nvidia_gpu_exporter"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        ARCHIVES,
        GPU_EXPORTER,
        {**GPU_EXPORTER, "vllm_gpus": 0},
        {"llm_exporters_gpu": "none"},
        {"llm_exporters_gpu": "dcgm", "vllm_gpus": 0},
        {"vllm_gpus": "0"},
        {"vllm_gpus": 0, "llm_exporters_gpus": 4},
        {"llm_exporters_components": ["gpu", "log"], "llm_exporters_dcgm_port": 1, "llm_exporters_log_port": "2"},
        {"llm_exporters_state": "absent"},
    ],
)
def test_prometheus_asks_the_exporters_that_the_role_asks(variables: dict[str, Any]) -> None:
    for host in ("gpu1", "lb1", "mon1"):
        groups = [[host] if host in GROUPS[group] else [] for group in ("llm_servers", "llm_balancers")]
        found = monitoring_targets.targets({host: variables}, *groups, [host])
        kinds = monitoring_targets.COMPONENTS
        told = sorted(target["targets"][0] for kind in kinds for target in found[kind])
        asked = resolve("__llm_exporters_asked", host, **variables)
        assert told == sorted(f"{host}:{exporter['port']}" for exporter in asked)


@pytest.mark.parametrize("unit", ALL, ids=lambda unit: f"{unit['name']}-{unit['method']}")
def test_no_exporter_listens_to_the_world(unit: dict[str, Any]) -> None:
    listening = [text for text in unit["arguments"] if re.match(r"--(web[.]listen-)?address=", text)]
    assert listening == [text for text in listening if ADDRESS in text]
    assert len(listening) == 1


@pytest.mark.parametrize("unit", ALL, ids=lambda unit: f"{unit['name']}-{unit['method']}")
def test_units_are_in_order(unit: dict[str, Any], tmp_path: pathlib.Path) -> None:
    """systemd itself reads a whole unit, or a drop-in of one that could be the package's."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = unit_text(unit).replace(unit["program"], str(program)).replace("=llm-exporters", "=root")
    assert text.startswith("#\n# Ansible managed\n#\n")
    path = tmp_path / unit["unit"]
    path.write_text(text if unit["method"] == "archive" else text.replace("ExecStart=\n", ""))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if unit["unit"] in line] == []


def test_program_of_a_package_is_replaced_and_not_doubled() -> None:
    text = unit_text(units("lb1")["log"])
    assert re.findall(r"(?m)^Exec\w+=(\S*)", text) == ["", "/usr/bin/mtail", ""]
    assert "[Install]" not in text
    own = unit_text(units("lb1", **ARCHIVES)["log"])
    assert "User=llm-exporters\n" in own
    assert "WantedBy=multi-user.target\n" in own


def test_arguments_reach_the_program_as_they_are() -> None:
    odd = r'--collector.filesystem.mount-points-exclude=^/(dev|proc|"%h")($|\w)'
    text = unit_text(units("mon1", llm_exporters_node_arguments=[odd])["node"])
    assert r'  "--collector.filesystem.mount-points-exclude=^/(dev|proc|\"%%h\")($$|\\w)"' + "\n" in text


def test_both_logs_are_read_in_the_native_form() -> None:
    def logs(**variables: str) -> list[str]:
        return [text for text in units("lb1", **variables)["log"]["arguments"] if text.startswith("--logs=")]

    access, errors = "--logs=/var/log/nginx/llm_access.log", "--logs=/var/log/nginx/error.log"
    assert logs() == [access]
    assert logs(llm_balancer_nginx_upstream="native") == [access, errors]


def test_archives_are_pinned() -> None:
    sums = {name: value for name, value in DEFAULTS.items() if name.endswith("_sha256")}
    assert len(sums) == 4
    for found in sums.values():
        assert "x86_64" in found
        assert all(re.fullmatch(r"[0-9a-f]{64}", text) for text in found.values())


@pytest.mark.parametrize(
    ("name", "host", "variables", "address"),
    [
        ("node", "lb1", ARCHIVES, "http://mirror/node_exporter-1.9.1.linux-arm64.tar.gz"),
        ("nginx", "lb1", ARCHIVES, "http://mirror/nginx-prometheus-exporter_1.5.1_linux_arm64.tar.gz"),
        ("log", "lb1", ARCHIVES, "http://mirror/mtail_3.0.8_linux_arm64.tar.gz"),
        (
            "nvidia_gpu_exporter",
            "gpu1",
            {"llm_exporters_gpu": "nvidia_gpu_exporter"},
            "http://mirror/nvidia_gpu_exporter_1.3.2_linux_arm64.tar.gz",
        ),
    ],
)
def test_mirror_and_architecture_are_in_the_address_of_an_archive(
    name: str, host: str, variables: dict[str, str], address: str
) -> None:
    variables = {**variables, f"llm_exporters_{name}_url": "http://mirror"}
    assert units(host, facts={"architecture": "aarch64"}, **variables)[name]["archive"] == address


def test_archive_without_a_checksum_for_the_host_is_known_before() -> None:
    def unknown(architecture: str) -> list[str]:
        found = resolve("__llm_exporters_unknown", "lb1", facts={"architecture": architecture}, **ARCHIVES)
        return [unit["name"] for unit in found]

    assert unknown("x86_64") == []
    assert unknown("aarch64") == ["log"]
    assert unknown("riscv64") == ["node", "nginx", "log"]


# Counters

# What rules and dashboards of the collection stand on; dcgm-exporter leaves most of it out by itself.
NEEDED = """
DCGM_EXP_XID_ERRORS_COUNT DCGM_FI_DEV_ECC_DBE_VOL_TOTAL DCGM_FI_DEV_FB_FREE DCGM_FI_DEV_FB_RESERVED DCGM_FI_DEV_FB_USED
DCGM_FI_DEV_GPU_TEMP DCGM_FI_DEV_GPU_UTIL DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL
DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL
DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL DCGM_FI_DEV_POWER_USAGE DCGM_FI_DEV_RETIRED_PENDING
DCGM_FI_DEV_ROW_REMAP_FAILURE DCGM_FI_DEV_SM_CLOCK DCGM_FI_DEV_THERMAL_VIOLATION DCGM_FI_PROF_DRAM_ACTIVE
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE
""".split()


def rows(*more: str) -> list[list[str]]:
    """Read the list of counters as dcgm-exporter does; it refuses a line that has not three fields."""
    text = render("dcgm-counters.csv.j2", llm_exporters_dcgm_counters=list(more))
    return [[field.strip() for field in row] for row in csv.reader(text.splitlines()) if row and row[0][0] != "#"]


def test_list_of_counters_is_one_that_dcgm_exporter_reads() -> None:
    found = rows()
    assert {len(row) for row in found} == {3}
    assert {kind for _name, kind, _help in found} == {"gauge", "counter", "label"}
    names = [name for name, _kind, _help in found]
    assert len(set(names)) == len(names)
    assert set(NEEDED) <= set(names)
    assert rows("DCGM_FI_DEV_FAN_SPEED, gauge, Fan.")[-1] == ["DCGM_FI_DEV_FAN_SPEED", "gauge", "Fan."]


# Real programs

PAGE = b"Active connections: 2 \nserver accepts handled requests\n 3 3 5 \nReading: 0 Writing: 1 Waiting: 1 \n"


class Status(http.server.BaseHTTPRequestHandler):
    """The page of NGINX's stub_status."""

    page = PAGE

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *_words: object) -> None:
        """Keep quiet."""


@pytest.fixture
def status_url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Status) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/stub_status"
        server.shutdown()


@contextlib.contextmanager
def running(program: pathlib.Path, unit: dict[str, Any]) -> Iterator[str]:
    """Start a program as its unit would and give the metrics in which what must be told is found."""
    process = subprocess.Popen([str(program), *unit["arguments"]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def told() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{unit['port']}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text if re.search(unit["told"], text) else ""

    try:
        yield await_that(told, f"{unit['name']} tells {unit['told']}")
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_real_node_exporter_exports_textfiles(tmp_path: pathlib.Path) -> None:
    program = debian_programs.program("prometheus-node-exporter", "prometheus-node-exporter")
    (tmp_path / "llmops.prom").write_text("# HELP a_b x\n# TYPE a_b gauge\na_b 7\n")
    settings = {"llm_exporters_textfile_directory": str(tmp_path), "llm_exporters_node_port": free_port()}
    with running(program, units("mon1", llmops_address="127.0.0.1", **settings)["node"]) as text:
        assert "\na_b 7\n" in text
        assert "node_textfile_mtime_seconds" in text


def test_real_exporter_of_nginx_reads_the_status_page(status_url: str) -> None:
    program = debian_programs.program("prometheus-nginx-exporter", "prometheus-nginx-exporter")
    settings = {"llm_exporters_nginx_status_url": status_url, "llm_exporters_nginx_port": free_port()}
    with running(program, units("lb1", llmops_address="127.0.0.1", **settings)["nginx"]) as text:
        assert "\nnginx_connections_active 2\n" in text


def test_real_mtail_loads_the_program(tmp_path: pathlib.Path) -> None:
    program = debian_programs.program("mtail", "mtail")
    (tmp_path / "llm_balancer.mtail").write_text(render("llm_balancer.mtail.j2", llm_exporters_log_form="lua"))
    (tmp_path / "access.log").touch()
    settings = {
        "__llm_exporters_programs": str(tmp_path),
        "llm_exporters_log_access": str(tmp_path / "access.log"),
        "llm_exporters_log_port": free_port(),
    }
    with running(program, units("lb1", llmops_address="127.0.0.1", **settings)["log"]) as text:
        assert "mtail_prog_load_errors_total" not in text


# Tasks, beside programs that tell what a host would

NODE_FILES = {unit["method"]: unit["file"] for unit in VARS["__llm_exporters_units"] if unit["name"] == "node"}
UNIT = "/lib/systemd/system/prometheus-node-exporter.service"
DEBIANS = f"Id=prometheus-node-exporter.service\nActiveState=active\nMainPID=77\nFragmentPath={UNIT}\n"
PACKAGE = f"{DEBIANS}DropInPaths={NODE_FILES['package']}\n"
STARTS_OVER = PACKAGE.replace("=active", "=activating").replace("=77", "=0")
HELD = 'LISTEN 0 9 127.0.0.1:PORT 0.0.0.0:* users:(("node_exporter",pid=77,fd=3))'
ARCHIVE = {"llm_exporters_node_install_method": "archive"}
TAKEN = (
    "llm_exporters_node_port is PORT, which node_exporter has on HOST: give another port, stop that program, or keep "
    "it with llm_exporters_node_install_method: none"
)

# Phase; what ss and systemctl tell (None: there is no such program); variables; what the role says, if it refuses.
PORT_HOSTS: dict[str, tuple[str, str | None, str, dict[str, Any], str]] = {
    "bare": ("preflight", None, "Id=x.service\nActiveState=inactive\nMainPID=0\n", {}, ""),
    "otherway": ("preflight", HELD, PACKAGE, ARCHIVE, ""),
    "foreign": ("preflight", HELD, DEBIANS, ARCHIVE, f"foreign: {TAKEN}"),
    "well": ("verify", HELD, PACKAGE, {}, ""),
    "behind": ("verify", HELD, STARTS_OVER, {}, f"behind: {TAKEN}"),
    "loops": ("verify", None, STARTS_OVER, {}, "loops: prometheus-node-exporter.service does not run"),
}


def play(base: pathlib.Path, hosts: dict[str, Any], *phases: str, **extra: Any) -> str:
    """Play the phase of each host, which is this machine; programs of its own come first in the path."""
    facts = {"architecture": "x86_64", "distribution": "Debian", "distribution_major_version": "13", "cacheable": True}
    done = {"ansible.builtin.debug": {"msg": "DONE {{ inventory_hostname }} END"}}

    def included(phase: str) -> dict[str, Any]:
        dry = {"check_mode": phase == "preflight"}
        role = {"name": "llmops.vllm.llm_exporters", "tasks_from": phase, "apply": dry}
        return {"ansible.builtin.include_role": role, "when": f"phase == '{phase}'"}

    plays = [
        {
            "hosts": "all",
            "gather_facts": False,
            "environment": {"PATH": "{{ commands }}:/usr/bin:/bin"},
            "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
            "tasks": [{"ansible.builtin.set_fact": facts}, *map(included, phases), done],
        }
    ]
    (base / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    (base / "play.yml").write_text(json.dumps(plays))
    command = ["ansible-playbook", "-i", str(base / "inventory.yml"), "-e", json.dumps(extra), str(base / "play.yml")]
    env = plain_ansible.environment(base)
    done_with = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    return re.sub(r"\s+", " ", done_with.stdout + done_with.stderr)


def commands(base: pathlib.Path, **programs: str | None) -> str:
    """Make programs that tell these texts, or fail, and return their directory."""
    base.mkdir()
    for name, text in programs.items():
        (base / name).write_text("#!/bin/sh\nexit 127\n" if text is None else f"#!/bin/sh\ncat <<'E'\n{text}\nE\n")
        (base / name).chmod(0o755)
    return str(base)


class Metrics(Status):
    """A node exporter, whoever's it is."""

    page = b"node_textfile_scrape_error 0\n"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> str:
    base = tmp_path_factory.mktemp("ports")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        hosts = {}
        for name, (phase, sockets, states, variables, _said) in PORT_HOSTS.items():
            told = sockets and sockets.replace("PORT", str(port))
            path = commands(base / name, ss=told, systemctl=states)
            own = {"llm_exporters_node_port": port, "llmops_address": "127.0.0.1", **variables}
            hosts[name] = {"commands": path, "phase": phase, "llm_exporters_components": ["node"], **own}
        text = play(base, hosts, "preflight", "verify")
        server.shutdown()
    return text.replace(str(port), "PORT")


def test_ports_are_looked_at_where_the_role_installs_the_exporter() -> None:
    def ports(host: str, **variables: Any) -> dict[str, dict[str, int]]:
        return {part["name"]: part["ports"] for part in resolve("__llm_exporters_parts", host, **variables)}

    node = {"node": {"node_port": 9100}}
    assert ports("gpu1") == {**node, "gpu": {"dcgm_port": 9400}}
    assert ports("gpu1", **GPU_EXPORTER) == {**node, "gpu": {"nvidia_gpu_exporter_port": 9835}}
    assert ports("gpu1", llm_exporters_gpu_install_method="none") == node
    assert ports("lb1") == {**node, "nginx": {"nginx_port": 9113}, "log": {"log_port": 3903}}
    assert ports("lb1", llm_exporters_state="absent") == {}


@pytest.mark.parametrize("name", PORT_HOSTS)
def test_port_of_another_program_is_refused_before_and_found_after(played: str, name: str) -> None:
    said = PORT_HOSTS[name][-1].replace("HOST", name)
    assert (f"DONE {name} END" in played) == (not said), played[-3000:]
    assert said in played


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_unreachable_mirror_takes_nothing_away(tmp_path: pathlib.Path) -> None:
    old = tmp_path / "old" / "1" / "node_exporter"
    old.parent.mkdir(parents=True)
    old.touch()
    file = tmp_path / "old.service"
    file.touch()
    gone = {"unit": "old.service", "method": "archive", "program": str(old), "file": str(file)}
    mirror = f"127.0.0.1:{free_port()}"
    programs = {"systemctl": "LoadState=loaded\nActiveState=inactive", "groupadd": None, "useradd": None}
    host = {"phase": "install", "commands": commands(tmp_path / "bin", **programs)}
    text = play(
        tmp_path,
        {"mon1": {**host, "llm_exporters_components": ["node"]}},
        "install",
        **ARCHIVE,
        llm_exporters_prefix=str(tmp_path / "opt"),
        llm_exporters_node_url=f"http://reader:sesame@{mirror}",
        __llm_exporters_gone=[gone],
        __llm_exporters_made={"files": [{"path": str(file)}]},
    )
    assert (old.exists(), file.exists()) == (True, True), text[-3000:]
    assert f"mon1: http://{mirror}/node_exporter-1.9.1.linux-amd64.tar.gz cannot be fetched" in text
    assert "Set llm_exporters_node_url" in text
    assert "DONE mon1" not in text
