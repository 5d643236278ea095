"""Which driver a host gets: one row for each combination of GPU, system, kernel, secure boot, driver and wish."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import driver_data as data
from ansible_collections.llmops.vllm.plugins.module_utils._gpu.driver_decision import (
    Decision,
    Host,
    Present,
    Wish,
    branch_of,
    decide,
    decision,
    generation_of,
    wheel_cuda,
)

GPUS = {
    "P100": 0x15F8, "V100": 0x1DB5, "T4": 0x1EB8, "A100": 0x20B2, "A10": 0x2236, "L4": 0x27B8, "L40S": 0x26B9,
    "H100": 0x2330, "H200": 0x2335, "GH200": 0x2342, "B200": 0x2901, "B300": 0x3182, "RTX5090": 0x2B85,
    "odd": 0x4000, "M60": 0x13F2,
}  # fmt: skip
SYSTEMS = {"deb12": "Debian 12", "deb13": "Debian 13", "ub22": "Ubuntu 22", "ub24": "Ubuntu 24", "fed": "Fedora 42"}

# gpus: "8xH100+4" are eight and four NVSwitches on the bus.
# kernel: whether its headers can be had. boot: secure boot, "key" with an enrolled key.
# there: nothing, or library/module on disk/module that runs, then words about it.
# wish: CUDA of the build, then variables without gpu_driver_.
# decision: what is done, branch, kind, source; "reboot" where it needs one. words: what the reasons hold.
MATRIX = """
gpus     | system | kernel    | boot | there                          | wish                   | decision                                | words
---------|--------|-----------|------|--------------------------------|------------------------|-----------------------------------------|------
none     | deb12  | installed | off  | nothing                        | 13.0                   | none                                    | no NVIDIA GPU on the PCI bus
H100     | deb12  | installed | off  | nothing                        | 13.0 gpus=0            | none                                    | vllm_gpus: 0
7xH100   | deb12  | installed | off  | nothing                        | 13.0 gpus=8            | refused                                 | vllm_gpus is 8, and 7 of the host's own NVIDIA GPUs are on the PCI bus
7xH100   | deb12  | installed | off  | 580.95/580.95/580.95 open      | 13.0 gpus=8            | refused                                 | vllm_gpus is 8, and 7 of the host's
7xH100   | deb12  | installed | off  | 580.95/580.95/580.95 open sliced | 13.0 gpus=8          | keep 580 open package                   |
T4       | deb12  | installed | off  | nothing                        | 13.0                   | install 580 open nvidia                 | CUDA 13.0 needs branch 580
A100     | deb12  | installed | off  | nothing                        | 13.0                   | install 580 open nvidia                 |
A100     | deb12  | available | off  | nothing                        | 12.2                   | install 535 proprietary distribution    |
A100     | deb12  | available | off  | nothing                        | 12.2 kind=open         | install 580 open nvidia                 |
A100     | deb13  | available | off  | nothing                        | 12.4                   | install 580 open nvidia                 |
A100     | deb13  | available | off  | nothing                        | 12.4 kind=proprietary  | install 580 proprietary nvidia          |
A100     | deb13  | available | off  | nothing                        | 12.4 source=distribution | refused                               | distribution has nothing for Debian 13
A100     | deb13  | installed | off  | nothing                        | 12.9                   | install 580 open nvidia                 | CUDA 12.9 needs branch 575
A100     | deb13  | installed | off  | nothing                        | 12.9 branch=575        | refused                                 | nvidia has 580, 590, 595, 610, 620
H200     | ub22   | installed | off  | nothing                        | 13.0                   | install 580 open distribution           |
H200     | ub24   | installed | off  | nothing                        | 13.0                   | install 580 open distribution           |
H200     | ub24   | installed | off  | nothing                        | 12.9 source=nvidia     | install 580 open nvidia                 |
H200     | ub24   | installed | off  | nothing                        | 13.0 branch=595        | install 595 open distribution           |
H200     | ub24   | installed | off  | nothing                        | 13.0 branch=620        | install 620 open nvidia                 |
H200     | ub24   | installed | off  | nothing                        | 13.0 branch=570        | refused                                 | gpu_driver_branch is 570, needed is 580 or newer
L4       | ub24   | installed | off  | nothing                        | 13.2                   | install 595 open distribution           |
L40S     | deb12  | installed | off  | nothing                        | 13.0 source=distribution | refused                               | distribution has 535 for Debian 12: set gpu_driver_source
A10      | deb12  | unknown   | off  | nothing                        | 13.0                   | install 580 open nvidia                 |
A10      | deb12  | missing   | off  | nothing                        | 13.0                   | refused                                 | headers of its kernel 6.1.0-49-amd64: restart it with the newest kernel, or name their packages in gpu_driver_headers
A10      | deb12  | missing   | off  | 580.95/580.95/580.95 open      | 13.0                   | keep 580 open package                   |
B200     | deb12  | installed | off  | nothing                        | 13.0                   | install 580 open nvidia                 | blackwell takes 570 or newer
RTX5090  | deb13  | installed | off  | nothing                        | 12.8 source=distribution | refused                               | needed is branch 570 or newer with the open module; distribution has nothing for Debian 13
RTX5090  | ub24   | installed | off  | nothing                        | 12.8                   | install 580 open distribution           |
RTX5090  | ub24   | installed | off  | nothing                        | 13.0 kind=proprietary  | refused                                 | blackwell takes open alone: set gpu_driver_kind: open
B300     | ub24   | installed | off  | nothing                        | 12.8 branch=570        | refused                                 | needed is 580 or newer
V100     | ub24   | installed | off  | nothing                        | 13.0                   | refused                                 | hold no code for volta, the oldest is turing
V100     | ub24   | installed | off  | nothing                        | 12.6                   | install 580 proprietary distribution    | volta takes 384 to 580
V100     | ub24   | installed | off  | nothing                        | 12.6 branch=595        | refused                                 | needed is 560 to 580
V100     | ub24   | installed | off  | nothing                        | 12.6 kind=open         | refused                                 | volta takes proprietary alone: set gpu_driver_kind: proprietary
P100     | deb12  | installed | off  | nothing                        | 12.4                   | refused                                 | hold no code for pascal
M60      | deb12  | installed | off  | nothing                        | 12.4                   | refused                                 | hold no code for maxwell
V100,B200 | ub24  | installed | off  | nothing                        | 12.6                   | refused                                 | no kernel module drives blackwell and volta at once
T4,H100  | ub24   | installed | off  | nothing                        | 13.0                   | install 580 open distribution           | hopper takes 525 or newer; turing takes 515 or newer
odd      | ub24   | installed | off  | nothing                        | 13.0                   | refused                                 | GPU 10de:4000 is not in the table: name its generation
odd      | ub24   | installed | off  | nothing                        | 13.0 generations=4000:blackwell | install 580 open distribution  |
H100     | ub24   | installed | off  | nothing                        | 14.1                   | refused                                 | gpu_driver_cuda is 14.1: known are 12.0
8xH100+4 | deb12  | installed | off  | nothing                        | 13.0                   | install 580 open nvidia                 | fabric nvidia-fabricmanager
8xA100+6 | deb12  | installed | off  | nothing                        | 12.2                   | install 580 open nvidia                 | fabric nvidia-fabricmanager
8xA100+6 | deb12  | installed | off  | nothing                        | 12.2 source=distribution | refused                               | without the fabric manager that the NVSwitches need
8xH100+4 | ub24   | installed | off  | nothing                        | 13.0                   | install 580 open distribution           | fabric nvidia-fabricmanager-580
8xH100+4 | ub24   | installed | off  | 580.95/580.95/580.95 open      | 13.0                   | install 580 open package                | the fabric manager is not there
8xH100+4 | ub24   | installed | off  | 580.95/580.95/580.95 open fabric=580.82 | 13.0          | install 580 open package                | the fabric manager is 580.82
8xH100+4 | ub24   | installed | off  | 580.95/580.95/580.95 open fabric=580.95 | 13.0          | keep 580 open package                   |
8xH100+4 | deb12  | installed | off  | 580.95/580.95/580.95 open      | 13.0 source=file file=/r/nvidia-driver-local-repo-debian12-580.95.05_1.0-1_amd64.deb | install 580 open package | the fabric manager is not there
8xH100+4 | deb12  | installed | off  | 580.95/580.95/580.95 open      | 13.0 source=file file=/r/nvidia-driver-local-repo-debian12-590.95.05_1.0-1_amd64.deb | refused | gpu_driver_file is of branch 590, needed is 580
8xB200   | ub24   | installed | off  | nothing                        | 13.0 source=nvidia     | install 580 open nvidia                 | fabric nvidia-fabricmanager
A100     | deb12  | installed | on   | nothing                        | 13.0                   | refused                                 | secure boot is on, and no key
A100     | deb12  | installed | key  | nothing                        | 13.0                   | install 580 open nvidia                 |
A100     | deb12  | installed | on   | 580.95/580.95/580.95 open      | 13.0                   | keep 580 open package                   |
A100     | deb12  | installed | on   | 580.95/580.95/- open           | 13.0                   | refused                                 | secure boot is on
A100     | deb12  | installed | off  | 580.95/580.95/- open           | 13.0                   | keep 580 open package                   |
A100     | deb12  | installed | off  | 580.95/580.95/- open nouveau   | 13.0                   | reboot 580 open package                 | nouveau holds the GPUs
A100     | deb12  | installed | off  | nothing nouveau                | 13.0                   | install 580 open nvidia reboot          | nouveau holds the GPUs
A100     | deb12  | installed | off  | 580.95/580.95/580.82 open      | 13.0                   | reboot 580 open package                 | module 580.82 runs until then
A100     | deb12  | installed | off  | 580.95/580.82/580.82 open      | 13.0                   | refused                                 | the module for 6.1.0-49-amd64 is 580.82, the libraries are 580.95
A100     | deb12  | installed | off  | 580.95/-/- open                | 13.0                   | install 580 open nvidia                 | it has no module for the kernel that runs
A100     | deb12  | installed | off  | 535.309/535.309/535.309 proprietary | 13.0              | install 580 open nvidia reboot          | driver 535.309 cannot stay: needed is 580 or newer
A100     | deb12  | installed | off  | 535.309/535.309/535.309 proprietary | 12.2              | keep 535 proprietary package            |
A100     | deb12  | installed | off  | 595.71/595.71/595.71 open      | 13.0 branch=580        | install 580 open nvidia reboot          | gpu_driver_branch is 580
A100     | deb12  | installed | off  | 595.71/595.71/595.71 open      | 13.0                   | keep 595 open package                   |
H100     | ub24   | installed | off  | 580.95/580.95/580.95 proprietary | 13.0                 | keep 580 proprietary package            |
H100     | ub24   | installed | off  | 580.95/580.95/580.95 proprietary | 13.0 kind=open       | install 580 open distribution reboot    | its module is proprietary, needed is open
B200     | ub24   | installed | off  | 580.95/580.95/- proprietary    | 13.0                   | install 580 open distribution           | its module is proprietary, needed is open
V100     | ub24   | installed | off  | 595.71/595.71/- proprietary    | 12.6                   | install 580 proprietary distribution    | needed is 560 to 580
H100     | ub24   | installed | off  | 580.95/580.95/580.95 open runfile | 13.0                | keep 580 open runfile                   |
H100     | ub24   | installed | off  | 550.54/550.54/550.54 open runfile | 13.0                | refused                                 | run nvidia-uninstall on the host
H100     | ub24   | installed | off  | nothing broken=dkms            | 13.0                   | refused                                 | a driver is half there: dkms
H100     | deb12  | installed | off  | nothing serves                 | 13.0                   | pending 580 open nvidia                 | driver to install, but vllm@r0 serves
H100     | deb12  | installed | off  | 535.309/535.309/535.309 open serves | 13.0              | pending 580 open nvidia reboot          | llmops.vllm.gpu_driver drains the host first
H100     | deb12  | installed | off  | 580.95/580.95/580.82 open serves | 13.0                 | pending 580 open package                | restart to make
H100     | deb12  | installed | off  | 580.95/580.95/580.95 open serves | 13.0                 | keep 580 open package                   |
H100     | deb12  | installed | off  | nothing                        | 13.0 source=file file=/r/nvidia-driver-local-repo-debian12-580.95.05_1.0-1_amd64.deb | install 580 open file | CUDA
H100     | deb12  | installed | off  | nothing                        | 13.0 source=file file=/r/nvidia-driver-local-repo-debian12-550.54.15_1.0-1_amd64.deb | refused | gpu_driver_file is of branch 550, needed is 580
H100     | deb12  | installed | off  | nothing                        | 13.0 source=file file=/r/NVIDIA-Linux-x86_64-580.95.05.run | refused | NVIDIA's local repository is wanted
H100     | fed    | installed | off  | nothing                        | 13.0                   | refused                                 | nvidia has nothing for Fedora 42
H100     | fed    | installed | off  | nothing                        | 13.0 packages=mine     | install 580 open distribution           |
GH200    | ub24   | installed | off  | nothing                        | 13.0                   | install 580 open distribution           | hopper
""".strip().splitlines()  # noqa: E501
HEADINGS = [cell.strip() for cell in MATRIX[0].split("|")]
ROWS = [dict(zip(HEADINGS, (cell.strip() for cell in line.split("|")))) for line in MATRIX[2:]]


def devices(text: str) -> tuple[tuple[int, ...], int]:
    """Device ids and switches of a cell like 8xH100+4."""
    found: list[int] = []
    names, _plus, switches = text.partition("+")
    for name in names.split(",") if names != "none" else []:
        count, _x, kind = name.partition("x") if re.match(r"\d+x", name) else ("1", "", name)
        found += [GPUS[kind]] * int(count)
    return tuple(found), int(switches or 0)


def host(row: dict[str, str]) -> Host:
    """The host of a row."""
    ids, switches = devices(row["gpus"])
    first, *words = row["there"].split()
    library, module, loaded = ("" if part == "-" else part for part in (first + "/-/-/-").split("/")[:3])
    more: dict[str, Any] = {"library": library, "module": module, "loaded": loaded}
    if first == "nothing":
        more = {}
    given = dict(word.split("=") for word in words if "=" in word)
    present = Present(
        **more,
        kind=next((word for word in words if word in ("open", "proprietary")), ""),
        way="" if first == "nothing" else "runfile" if "runfile" in words else "package",
        broken=(given["broken"],) if "broken" in given else (),
        fabric=given.get("fabric", ""),
        installed=data.TOOLS.get(SYSTEMS[row["system"]].split()[0], ()),
        nouveau="nouveau" in words,
    )
    return Host(
        SYSTEMS[row["system"]],
        ids,
        switches,
        "6.1.0-49-amd64",
        row["kernel"],
        row["boot"] != "off",
        "/var/lib/dkms/mok.pub" if row["boot"] == "key" else "",
        ("vllm@r0",) if "serves" in words else (),
        present,
        sliced="sliced" in words,
    )


def wish(text: str) -> Wish:
    """The wish of a row."""
    cuda, *words = text.split()
    given: dict[str, Any] = dict(word.split("=") for word in words)
    kinds = {"gpus": int, "branch": int, "packages": lambda value: (value,)}
    values = {name: kinds.get(name, str)(value) for name, value in given.items() if name != "generations"}
    if "generations" in given:
        values["generations"] = dict([given["generations"].split(":")])
    return Wish(cuda=cuda, **values)


def words(made: Decision) -> str:
    """A decision in the words of the table."""
    parts = [made.action, made.branch or "", made.kind, made.source, "reboot" if made.reboot else ""]
    return " ".join(str(part) for part in parts if part)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join([*row.values()][:6])[:90])
def test_decision(row: dict[str, str]) -> None:
    made = decide(host(row), wish(row["wish"]))
    expected = row["decision"]
    if expected.startswith("reboot"):
        expected += " reboot"
    if expected.startswith("pending") and "restart" in row["words"]:
        expected += " reboot"
    told = "; ".join([*made.reasons, made.reboot, *(f"fabric {name}" for name in made.fabric)])
    assert words(made) == expected, told
    assert row["words"] in told
    if made.source in ("package", "runfile"):
        assert made.packages + made.tools == (), "a driver that stays is not installed"
    else:
        assert bool(made.tools) == (made.action in ("install", "pending"))


def test_the_matrix_is_large_and_has_every_outcome() -> None:
    assert len(ROWS) >= 40
    assert {row["decision"].split()[0] for row in ROWS} == {"none", "keep", "install", "reboot", "refused", "pending"}


@pytest.mark.parametrize(
    ("system", "cuda", "more", "packages", "first"),
    [
        (
            "deb13", "12.4", {}, "nvidia-kernel-open-dkms nvidia-driver-cuda",
            "nvidia-driver-pinning-580",
        ),
        ("deb12", "12.2", {}, "nvidia-kernel-dkms nvidia-smi libcuda1", ""),
        (
            "deb12", "13.0", {}, "nvidia-kernel-open-dkms nvidia-driver-cuda",
            "nvidia-driver-pinning-580",
        ),
        ("ub24", "13.0", {}, "nvidia-headless-580-server-open nvidia-utils-580-server", ""),
        (
            "ub24", "13.0", {"source": "nvidia"}, "nvidia-dkms-580-open libnvidia-compute-580 nvidia-utils-580",
            "nvidia-driver-pinning-580",
        ),
        (
            "ub24", "13.2", {"source": "nvidia", "kind": "proprietary"}, "nvidia-dkms libnvidia-compute nvidia-utils",
            "nvidia-driver-pinning-595",
        ),
        ("ub24", "13.0", {"packages": ("a", "b")}, "", ""),
    ],
)  # fmt: skip
def test_packages(system: str, cuda: str, more: dict[str, Any], packages: str, first: str) -> None:
    made = decide(Host(SYSTEMS[system], (GPUS["A100"],)), Wish(cuda=cuda, **more))
    assert (" ".join(made.packages), " ".join(made.first)) == (packages, first)
    assert made.tools == more.get("packages", data.TOOLS[SYSTEMS[system].split()[0]])


KEPT = Present(
    "580.95", "580.95", "580.95", "open", "package", packages=("nvidia-dkms-580-open",), installed=("nvidia-utils-580",)
)
A100 = (GPUS["A100"],)


def test_a_driver_that_stays_gets_what_the_unit_of_the_role_runs() -> None:
    assert decide(Host("Debian 12", A100, present=KEPT), Wish()).tools == ("nvidia-modprobe",)
    assert decide(Host("Ubuntu 24", A100, present=KEPT), Wish()).tools == ("nvidia-modprobe",)
    there = replace(KEPT, installed=("nvidia-modprobe",))
    assert decide(Host("Ubuntu 24", A100, present=there), Wish()).tools == ()
    assert decide(Host("Ubuntu 24", A100, present=replace(KEPT, way="runfile")), Wish()).tools == ()
    assert decide(Host("Fedora 42", A100, present=KEPT), Wish()).tools == ()
    assert decide(Host("Ubuntu 24", A100, present=KEPT), Wish(packages=("mine",))).tools == (), "that is the user's"


@pytest.mark.parametrize(
    ("kernel", "present", "headers", "packages"),
    [
        ({"headers": "unknown"}, Present(), (), "linux-headers-6.1.0-49-amd64"),
        ({"headers": "installed"}, Present(), (), ""),
        ({"headers": "installed", "meta": ("linux-headers-amd64",)}, Present(), (), "linux-headers-amd64"),
        (
            {"headers": "available", "next": "6.1.0-50-amd64", "next_headers": "available", "meta": ("m",)},
            Present(), (), "linux-headers-6.1.0-49-amd64 linux-headers-6.1.0-50-amd64 m",
        ),
        ({"headers": "available", "next": "6.1.0-50-amd64", "next_headers": "installed"}, Present(), (),
         "linux-headers-6.1.0-49-amd64"),
        ({"headers": "missing", "meta": ("m",)}, Present(), ("mine",), "mine"),
        ({"headers": "available", "next": "6.1.0-50-amd64", "next_headers": "unknown", "meta": ("m",)}, KEPT, (),
         "linux-headers-6.1.0-50-amd64 m"),
        ({"headers": "available", "meta": ("m",)}, replace(KEPT, packages=()), (), ""),
        ({"headers": "available", "meta": ("m",)}, KEPT, ("mine",), ""),
    ],
)  # fmt: skip
def test_headers_of_kernels(kernel: dict[str, Any], present: Present, headers: tuple[str, ...], packages: str) -> None:
    made = decide(Host("Debian 12", A100, kernel="6.1.0-49-amd64", present=present, **kernel), Wish(headers=headers))
    assert " ".join(made.headers) == packages


def test_a_kernel_that_would_start_without_gpus_is_told() -> None:
    kernel: dict[str, Any] = {
        "kernel": "6.1.0-49-amd64",
        "headers": "installed",
        "next": "6.1.0-50-amd64",
        "next_headers": "missing",
    }
    for present in (KEPT, Present()):
        made = decide(Host("Debian 12", A100, present=present, **kernel), Wish())
        assert made.headers == ()
        assert "kernel 6.1.0-50-amd64 starts with the next restart" in made.reasons[-1]
    for other in (replace(KEPT, packages=()), replace(KEPT, way="runfile", packages=())):
        assert "next restart" not in "".join(decide(Host("Debian 12", A100, present=other, **kernel), Wish()).reasons)


@pytest.mark.parametrize(
    ("system", "gpus", "wish", "switched", "source"),
    [
        ("Ubuntu 24", "8xH100+4", Wish(), True, "distribution"),
        ("Debian 12", "8xH100+4", Wish(), True, "nvidia"),
        ("Debian 12", "8xB200", Wish(), True, "nvidia"),
        ("Debian 12", "8xH100", Wish(), False, ""),
    ],
)
@pytest.mark.parametrize("way", ["package", "runfile", ""])
def test_where_the_fabric_manager_comes_from(
    system: str, gpus: str, wish: Wish, switched: bool, source: str, way: str
) -> None:
    ids, switches = devices(gpus)
    present = replace(KEPT, way=way) if way else Present()
    made = decide(Host(system, ids, switches, headers="installed", present=present), wish)
    assert (made.switched, made.fabric_source) == (switched, source)
    assert bool(made.fabric) == switched
    assert made.source == (way or source or "nvidia")


def test_another_kind_of_module_goes_before_the_new_one_comes() -> None:
    there = Present("535.309", "535.309", "", "proprietary", "package", packages=("nvidia-kernel-dkms",))
    made = decide(Host("Debian 12", (GPUS["A100"],), present=there), Wish())
    assert made.remove == ("nvidia-kernel-dkms",)
    same = decide(Host("Debian 12", (GPUS["A100"],), present=there), Wish(kind="proprietary"))
    assert same.remove == (), "a package of the same name is upgraded"


@pytest.mark.parametrize("found", data.GENERATIONS_BY_ID, ids=lambda row: f"{row[0]:04x}")
def test_ranges_of_device_ids_do_not_overlap(found: tuple[int, int, str]) -> None:
    low, high, name = found
    assert low <= high
    assert name in data.GENERATIONS
    assert [row for row in data.GENERATIONS_BY_ID if row[0] <= high and low <= row[1]] == [found]


@pytest.mark.parametrize(("gpu", "generation"), [
    ("P100", "pascal"), ("V100", "volta"), ("T4", "turing"), ("A100", "ampere"), ("A10", "ampere"), ("L4", "ada"),
    ("L40S", "ada"), ("H100", "hopper"), ("GH200", "hopper"), ("B200", "blackwell"), ("B300", "blackwell"),
    ("RTX5090", "blackwell"), ("odd", ""), ("M60", "maxwell"),
])  # fmt: skip
def test_generation_of_a_device(gpu: str, generation: str) -> None:
    assert generation_of(GPUS[gpu], {}) == generation


def test_the_tables_fit_together() -> None:
    for source in data.SOURCES.values():
        assert set(source) <= set(data.BRANCHES)
    assert {rank for rank, _until in data.BRANCHES.values()} == set(data.RANKS)
    assert {name for name, _system in data.SOURCES} == {name for name, _system in data.PACKAGES}
    assert {cuda for _since, cuda in data.WHEEL_CUDA} <= set(data.CUDA_BRANCHES)
    assert not {id_ for id_ in data.SWITCHES if generation_of(id_, {})} - set(range(0x22A0, 0x22A8))


@pytest.mark.parametrize(
    ("version", "cuda"),
    [
        ("0.32.0", "13.0"),
        ("0.20.0", "13.0"),
        ("0.19.1", "12.9"),
        ("0.32.0+cu129", "12.9"),
        ("0.20.0rc1+cu130", "13.0"),
        ("0.10.2", "12.8"),
        ("0.8.5.post1", "12.4"),
        ("0.6.6", "12.1"),
        ("1.0.0", "13.0"),
        ("0.32.0+cpu", ""),
        ("", "13.0"),
        ("nightly", "13.0"),
    ],
)
def test_cuda_of_a_build(version: str, cuda: str) -> None:
    assert wheel_cuda(version) == cuda


def test_the_version_of_vllm_says_which_driver_unless_its_cuda_is_named() -> None:
    wishes = {"system": "Ubuntu 24"}
    told = [decision(found(), {**wishes, **more})["reasons"][0] for more in (
        {"version": "0.32.0+cu129"}, {"version": "0.32.0"}, {"version": "0.32.0", "cuda": "12.4"}, {"cuda": ""},
    )]  # fmt: skip
    assert told == [f"CUDA {cuda}" for cuda in (
        "12.9 needs branch 575 or newer", "13.0 needs branch 580 or newer", "12.4 needs branch 550 or newer",
        "13.0 needs branch 580 or newer",
    )]  # fmt: skip
    assert decision(found(), {**wishes, "version": "0.32.0+cpu"})["action"] == "none"


def test_branch_of_a_version() -> None:
    assert [branch_of(text) for text in ("580.95.05", "", "535.309.01-1~deb12u1")] == [580, 0, 535]


def found(**driver: Any) -> dict[str, Any]:
    """What gpu_info tells, as far as the decision reads it."""
    empty = {
        "library": "",
        "module": "",
        "loaded": "",
        "kind": "",
        "way": "",
        "broken": [],
        "packages": [],
        "installed": {},
    }
    return {
        "pci": [
            {"device": "2901", "driver": "nvidia"},
            {"device": "2901", "driver": "nvidia"},
            {"device": "1db5", "driver": "vfio-pci"},
        ],
        "switches": [],
        "gpus": [],
        "kernel": {
            "release": "6.8.0-60-generic", "headers": "installed", "next": "", "next_headers": "",
            "meta": ["linux-headers-generic"],
        },
        "secure_boot": {"on": None, "key": ""},
        "driver": {**empty, "fabric_manager": "", **driver},
    }  # fmt: skip


def test_documents_come_and_go() -> None:
    wishes = {"system": "Ubuntu 24", "gpus": "2", "cuda": "13.0", "branch": "", "source": "nvidia"}
    made = decision(found(), wishes)
    assert (made["action"], made["branch"], made["fabric"]) == ("install", 580, ["nvidia-fabricmanager"])
    assert made["tools"][-2:] == ["nvlsm", "infiniband-diags"], "NVSwitches behind ConnectX"
    assert made["headers"] == ["linux-headers-generic"]
    assert made["reasons"][0] == "CUDA 13.0 needs branch 580 or newer"


def test_headers_that_the_user_names_are_taken_on_trust() -> None:
    told = found()
    told["kernel"]["headers"] = "missing"
    wishes = {"system": "Ubuntu 24"}
    assert decision(told, wishes)["action"] == "refused"
    made = decision(told, {**wishes, "headers": ["linux-headers-mine"]})
    assert (made["action"], made["headers"]) == ("install", ["linux-headers-mine"])


def test_a_gpu_that_is_passed_on_does_not_count() -> None:
    told = found()
    told["pci"] = [{"device": "1db5", "driver": "vfio-pci"}]
    assert decision(told, {"system": "Ubuntu 24"})["action"] == "none"
