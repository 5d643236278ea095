# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver a host gets: from what is there and what is wanted to a decision. It looks at nothing itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._gpu import driver_data as data

NEWEST = 10_000  # above every branch


@dataclass(frozen=True)
class Present:
    """The driver that is there. A version is like 580.95.05, empty where there is none."""

    library: str = ""  # of what programs load: libnvidia-ml, libcuda
    module: str = ""  # of the kernel module on disk, for the kernel that is meant
    loaded: str = ""  # of the kernel module that runs
    kind: str = ""  # of the module: open, proprietary, empty when nobody can tell
    way: str = ""  # package, runfile
    broken: tuple[str, ...] = ()  # what is half there, in words with the mend
    packages: tuple[str, ...] = ()  # that hold a kernel module
    fabric: str = ""  # version of the fabric manager
    installed: tuple[str, ...] = ()  # packages of a driver
    nouveau: bool = False  # the other driver of these GPUs holds them


@dataclass(frozen=True)
class Host:
    """What matters of a host."""

    system: str  # Debian 12
    devices: tuple[int, ...]  # PCI device ids of its GPUs
    switches: int = 0  # NVSwitches on the PCI bus
    kernel: str = ""
    headers: str = "unknown"  # installed, available, missing, unknown
    secure_boot: bool = False
    key: str = ""  # with which modules built here are signed, if that key is enrolled
    serving: tuple[str, ...] = ()  # units that serve now
    present: Present = field(default_factory=Present)
    next: str = ""  # the kernel that starts with the next restart, if it is another
    next_headers: str = ""
    sliced: bool = False  # into several each, by MIG
    meta: tuple[str, ...] = ()  # packages with the headers of kernels to come, if they are not there


@dataclass(frozen=True)
class Wish:
    """What the user wants; empty or ``auto`` leaves it to the decision."""

    gpus: int = 1
    cuda: str = data.WHEEL_CUDA[0][1]
    branch: int = 0
    kind: str = "auto"
    source: str = "auto"
    file: str = ""
    packages: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    generations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """``action``: none, keep, install, reboot, refused; pending where the host serves and something is to be done."""

    action: str
    branch: int = 0
    kind: str = ""
    source: str = ""
    packages: tuple[str, ...] = ()  # at a version of the branch
    tools: tuple[str, ...] = ()  # packages at any version
    headers: tuple[str, ...] = ()  # packages with headers of kernels
    remove: tuple[str, ...] = ()
    first: tuple[str, ...] = ()  # packages that come before all others
    fabric: tuple[str, ...] = ()  # packages at the very version of the driver
    fabric_source: str = ""
    switched: bool = False  # the GPUs want a fabric manager
    reboot: str = ""  # why the host must be restarted before the driver works
    reasons: tuple[str, ...] = ()


class Refused(LlmopsError):
    """Why nothing can be done, with the mend."""


def decide(host: Host, wish: Wish) -> Decision:
    """Decide; what must not be done comes as ``refused``, never as an exception."""
    try:
        decision = _decide(host, wish)
    except Refused as problem:
        return Decision("refused", reasons=(str(problem),))
    if decision.action in ("install", "reboot") and host.serving:
        what = "driver to install" if decision.action == "install" else "restart to make"
        text = (
            f"{what}, but {', '.join(host.serving)} serves: the playbook llmops.vllm.gpu_driver drains the host first"
        )
        return replace(decision, action="pending", reasons=(text, *decision.reasons))
    return decision


def wheel_cuda(version: str) -> str:
    """Return the CUDA that a build of vLLM was made with: its label's (0.32.0+cu129), else its wheel's; none for +cpu.

    A version that tells nothing is taken for the newest.
    """
    release, _plus, label = version.partition("+")
    if named := re.fullmatch(r"cu(\d+)(\d)", label):
        return f"{named[1]}.{named[2]}"
    if label.startswith("cpu"):
        return ""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    since = (int(numbers[1]), int(numbers[2])) if numbers else data.WHEEL_CUDA[0][0]
    return next(cuda for first, cuda in data.WHEEL_CUDA if since >= first)


@dataclass(frozen=True)
class Need:
    """Branches and kinds of module that do, and why."""

    lowest: int
    last: int
    kinds: tuple[str, ...]
    fabric: bool
    reasons: tuple[str, ...]

    def branches(self) -> str:
        """The range in words."""
        return f"{self.lowest} or newer" if self.last == NEWEST else f"{self.lowest} to {self.last}"


def _decide(host: Host, wish: Wish) -> Decision:
    if not wish.gpus or not wish.cuda:
        return Decision("none", reasons=("the host serves from its CPU (vllm_gpus: 0)",))
    if not host.devices:
        return Decision("none", reasons=("there is no NVIDIA GPU on the PCI bus",))
    if wish.gpus > len(host.devices) and not host.sliced:
        raise Refused(
            f"vllm_gpus is {wish.gpus}, and {len(host.devices)} of the host's own NVIDIA GPUs are on the PCI bus: look"
            " for one that fell off the bus (lspci, journalctl -k), or correct vllm_gpus; if slices are meant, set"
            " gpu_driver_mig: enabled"
        )
    if host.present.broken:
        raise Refused(f"a driver is half there: {'; '.join(host.present.broken)}")
    need = _need(host, wish)
    present = host.present
    if present.library and present.module and present.library != present.module:
        raise Refused(
            f"module and libraries do not agree: the module for {host.kernel} is {present.module}, the libraries are"
            f" {present.library}: install both from one source (apt-get install --reinstall, or remove both), then run"
            " again"
        )
    why = _unfit(present, need, wish)
    if not why and need.fabric and present.fabric != present.library:
        return _with_fabric(host, need, wish)
    if not why:
        return _keep(host, need, wish)
    if present.way == "runfile":
        raise Refused(
            f"driver {present.library} was installed by NVIDIA's .run file and cannot stay ({why}): run"
            " nvidia-uninstall on the host, or leave the driver to yourself with gpu_driver_manage: false"
        )
    if present.library:
        need = replace(need, reasons=(f"driver {present.library} cannot stay: {why}", *need.reasons))
    return _install(host, need, wish)


def branch_of(version: str) -> int:
    """The branch of a version; 0 for none."""
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def generation_of(device: int, more: Mapping[str, str]) -> str:
    """The generation of a PCI device id; empty when the table does not know it. ``more``: generations by id."""
    given = {int(str(ident), 16): name for ident, name in more.items()}
    if device in given:
        return given[device]
    return next((name for low, high, name in data.GENERATIONS_BY_ID if low <= device <= high), "")


# --- what the GPUs and the build need ----------------------------------------------------------------------------


def _need(host: Host, wish: Wish) -> Need:
    names = {device: generation_of(device, wish.generations) for device in host.devices}
    for device, name in names.items():
        if name not in data.GENERATIONS:
            raise Refused(
                f"GPU {data.VENDOR}:{device:04x} is not in the table"
                f"{f' ({name} is no generation of it)' if name else ''}: name its generation, one of"
                f" {', '.join(data.GENERATIONS)}, in gpu_driver_generations: {{'{device:04x}': ...}}"
            )
    if wish.cuda not in data.CUDA_BRANCHES:
        raise Refused(f"gpu_driver_cuda is {wish.cuda}: known are {', '.join(data.CUDA_BRANCHES)}")
    mine = {name: data.GENERATIONS[name] for name in sorted(set(names.values()))}
    _new_enough(mine, wish.cuda)
    cuda = data.CUDA_BRANCHES[wish.cuda]
    lowest = max([cuda, *(one.lowest for one in mine.values())] + [data.LOWEST_BY_ID.get(id_, 0) for id_ in names])
    last = min(one.last or NEWEST for one in mine.values())
    kinds = [kind for kind in ("open", "proprietary") if all(kind in one.kinds for one in mine.values())]
    if not kinds:
        raise Refused(f"no kernel module drives {' and '.join(mine)} at once: move the GPUs to hosts of their own")
    if wish.kind != "auto" and wish.kind not in kinds:
        raise Refused(
            f"gpu_driver_kind is {wish.kind}, but {' and '.join(mine)} takes {kinds[0]} alone: set"
            f" gpu_driver_kind: {kinds[0]}"
        )
    if lowest > last:
        raise Refused(
            f"CUDA {wish.cuda} needs driver branch {lowest}, but {' and '.join(mine)} is driven up to {last}: take a"
            " build for an older CUDA (gpu_driver_cuda says which)"
        )
    fabric = host.switches > 0 or (len(host.devices) > 1 and bool({*host.devices} & data.SWITCHED_GPUS))
    reasons = (
        f"CUDA {wish.cuda} needs branch {cuda} or newer",
        *(f"{name} takes {one.lowest} {f'to {one.last}' if one.last else 'or newer'}" for name, one in mine.items()),
    )
    return Need(lowest, last, tuple(kinds if wish.kind == "auto" else [wish.kind]), fabric, reasons)


def _new_enough(generations: Mapping[str, data.Generation], cuda: str) -> None:
    """The build holds code for the GPUs."""
    oldest = data.OLDEST_GENERATION.get(cuda) or data.OLDEST_GENERATION[cuda.partition(".")[0]]
    for name, one in generations.items():
        if one.order < data.GENERATIONS[oldest].order:
            raise Refused(
                f"builds of vLLM for CUDA {cuda} hold no code for {name}, the oldest is {oldest}: use other GPUs, set"
                " vllm_gpus: 0, or name the CUDA of a build of your own in gpu_driver_cuda"
            )


# --- what is there -----------------------------------------------------------------------------------------------


def _unfit(present: Present, need: Need, wish: Wish) -> str:
    """Why the driver that is there cannot stay; empty when it can."""
    branch = branch_of(present.library)
    if not present.library:
        return "there is none"
    if wish.branch and branch != wish.branch:
        return f"gpu_driver_branch is {wish.branch}"
    if not need.lowest <= branch <= need.last:
        return f"needed is {need.branches()}"
    if present.kind and present.kind not in need.kinds:
        return f"its module is {present.kind}, needed is {need.kinds[0]}"
    if not (present.module or present.loaded):
        return "it has no module for the kernel that runs"
    return ""


def _keep(host: Host, need: Need, wish: Wish) -> Decision:
    """The driver stays, and gets what the role's own unit and the next kernel need."""
    present = host.present
    built = bool(present.packages)
    decision = Decision(
        "keep",
        branch_of(present.library),
        present.kind,
        present.way,
        tools=_tools(host, wish),
        headers=_later(host, wish) if built else (),
        switched=need.fabric,
        reasons=(*need.reasons, *(_unready(host, wish) if built else ())),
    )
    if present.loaded == present.library:
        return decision
    _signed(host)
    reboot = _why_reboot(present)
    return replace(decision, action="reboot" if reboot else "keep", reboot=reboot)


def _tools(host: Host, wish: Wish) -> tuple[str, ...]:
    """What the driver that stays lacks; one of NVIDIA's .run file brings all, and what the user names is the user's."""
    present, names = host.present, data.TOOLS.get(host.system.partition(" ")[0], ())
    if present.way == "runfile" or wish.packages or data.NODES in present.installed or data.NODES not in names:
        return ()
    return (data.NODES,)


def _with_fabric(host: Host, need: Need, wish: Wish) -> Decision:
    """The driver stays, and gets the fabric manager of its version."""
    branch = branch_of(host.present.library)
    source, _branch, _kind = _choice(host, replace(need, lowest=branch, last=branch), replace(wish, kind="auto"))
    why = f"the fabric manager is {host.present.fabric or 'not there'}, the driver is {host.present.library}"
    kept = _keep(host, need, wish)
    return replace(
        kept,
        action="install",
        fabric=_fabric(_names(host, source), branch),
        fabric_source=source,
        reasons=(why, *kept.reasons),
    )


def _why_reboot(present: Present) -> str:
    """Why a new module cannot be loaded beside what runs."""
    if present.loaded:
        return f"module {present.loaded} runs until then"
    return "nouveau holds the GPUs until then" if present.nouveau else ""


def _signed(host: Host) -> None:
    """The kernel will take a module that is built here."""
    if host.secure_boot and not host.key:
        raise Refused(
            "secure boot is on, and no key that signs modules built here is enrolled: make one and enrol it (the"
            " hardware guide, Secure boot, has the commands), name it in gpu_driver_signing_keys, or turn secure boot"
            " off in the firmware"
        )


# --- headers of kernels ------------------------------------------------------------------------------------------


def _headers(host: Host, wish: Wish) -> tuple[str, ...]:
    """Packages with which a module is built for the kernel that is meant, and for those after it."""
    mine = () if host.headers == "installed" else (f"linux-headers-{host.kernel}",)
    return wish.headers or (*mine, *_later(host, wish))


def _later(host: Host, wish: Wish) -> tuple[str, ...]:
    """Packages with which a module is built for the kernels after that; none where the user names the headers."""
    later = (f"linux-headers-{host.next}",) if host.next_headers in ("available", "unknown") else ()
    return () if wish.headers else (*later, *host.meta)


def _unready(host: Host, wish: Wish) -> tuple[str, ...]:
    """What is wrong with the kernel that starts next."""
    if host.next_headers != "missing" or wish.headers:
        return ()
    return (
        f"kernel {host.next} starts with the next restart, and no repository of the host has its headers: it will have"
        " no GPUs; upgrade the kernel, or name packages with its headers in gpu_driver_headers",
    )


# --- what is installed -------------------------------------------------------------------------------------------


def _install(host: Host, need: Need, wish: Wish) -> Decision:
    _signed(host)
    if host.headers == "missing" and not wish.headers:
        raise Refused(
            f"no repository of the host has the headers of its kernel {host.kernel}: restart it with the newest"
            " kernel, or name their packages in gpu_driver_headers"
        )
    if wish.branch and not need.lowest <= wish.branch <= need.last:
        raise Refused(
            f"gpu_driver_branch is {wish.branch}, needed is {need.branches()} ({'; '.join(need.reasons)}): set one of"
            " these, or gpu_driver_cuda to the CUDA of the build that you install"
        )
    if wish.branch:
        need = replace(need, lowest=wish.branch, last=wish.branch)
    elif host.present.library and need.lowest <= branch_of(host.present.library) <= need.last:
        # what is there is mended, and not exchanged for another branch
        need = replace(need, lowest=branch_of(host.present.library), last=branch_of(host.present.library))
    source, branch, kind = _choice(host, need, wish)
    names = _names(host, source)
    packages = () if wish.packages else _packages(names, branch, kind)
    tools = wish.packages or data.TOOLS[names[1]]
    fabric = _fabric(names, branch) if need.fabric else ()
    return Decision(
        "install",
        branch,
        kind,
        source,
        packages,
        tools,
        _headers(host, wish),
        remove=tuple(one for one in host.present.packages if one not in (*packages, *tools)),
        first=(data.PINNING.format(branch=branch),) if source == "nvidia" and not wish.packages else (),
        fabric=fabric,
        fabric_source=source if fabric else "",
        switched=need.fabric,
        reboot=_why_reboot(host.present),
        reasons=(*need.reasons, *_unready(host, wish)),
    )


def _choice(host: Host, need: Need, wish: Wish) -> tuple[str, int, str]:
    """Source, branch and kind: the distribution before NVIDIA, long-term branches before others, older before newer."""
    if wish.source == "file":
        return _from_file(need, wish)
    sources = ("distribution", "nvidia") if wish.source == "auto" else (wish.source,)
    if wish.packages:
        return sources[0], need.lowest, need.kinds[0]
    found, had = [], []
    for place, name in enumerate(sources):
        source = data.SOURCES.get((name, host.system), {})
        had.append(f"{name} has {', '.join(map(str, sorted(source))) or 'nothing'} for {host.system}")
        if need.fabric and (name, host.system.partition(" ")[0]) not in data.FABRIC_MANAGER:
            had[-1] += ", without the fabric manager that the NVSwitches need"
            continue
        for branch, kinds in source.items():
            kind = next((kind for kind in need.kinds if kind in kinds), "")
            if kind and need.lowest <= branch <= need.last:
                rank = data.RANKS.index(data.BRANCHES[branch][0])
                found.append(((place, rank, branch), name, branch, kind))
    if not found:
        raise Refused(
            f"needed is branch {need.branches()} with the {' or '.join(need.kinds)} module; {'; '.join(had)}: set"
            " gpu_driver_source, gpu_driver_branch or gpu_driver_kind, or give a file (gpu_driver_file)"
        )
    _key, name, branch, kind = min(found)
    return name, branch, kind


def _from_file(need: Need, wish: Wish) -> tuple[str, int, str]:
    match = re.search(r"[-_](\d{3})\.\d[\w.-]*\.deb$", wish.file)
    if match is None:
        raise Refused(
            f"gpu_driver_file is '{wish.file}': NVIDIA's local repository is wanted, such as"
            " nvidia-driver-local-repo-debian12-580.95.05_1.0-1_amd64.deb"
        )
    branch = int(match[1])
    if not need.lowest <= branch <= need.last:
        raise Refused(f"gpu_driver_file is of branch {branch}, needed is {need.branches()}: {'; '.join(need.reasons)}")
    kinds = ("open",) if branch >= data.OPEN_ALONE_FROM else need.kinds
    return "file", branch, next(kind for kind in need.kinds if kind in kinds)


def _names(host: Host, source: str) -> tuple[str, str]:
    """Whose names packages have; a file is a repository of NVIDIA's."""
    return "distribution" if source == "distribution" else "nvidia", host.system.partition(" ")[0]


def _packages(names: tuple[str, str], branch: int, kind: str) -> tuple[str, ...]:
    rows = data.PACKAGES.get(names)
    if rows is None:
        raise Refused(f"the packages of a driver for {names[1]} are not known: name them in gpu_driver_packages")
    module, rest = next((kinds[kind], rest) for first, kinds, rest in rows if branch >= first)
    return tuple(name.format(branch=branch) for name in (module, *rest))


def _fabric(names: tuple[str, str], branch: int) -> tuple[str, ...]:
    rows = data.FABRIC_MANAGER.get(names)
    if rows is None:
        raise Refused(
            "the GPUs are joined by NVSwitches, whose fabric manager the distribution does not have: set"
            " gpu_driver_source: nvidia"
        )
    return next(tuple(name.format(branch=branch) for name in given) for first, given in rows if branch >= first)


# --- from and to documents ---------------------------------------------------------------------------------------


def decision(found: Mapping[str, Any], wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Decide by what the module gpu_info found and the variables of the role, without their prefix."""
    mine = [one for one in found["pci"] if one["driver"] != "vfio-pci"]  # passed on to a virtual machine
    driver, kernel = found["driver"], found["kernel"]
    host = Host(
        system=str(wishes.get("system", "")),
        devices=tuple(int(str(one["device"]), 16) for one in mine),
        switches=len(found["switches"]),
        kernel=kernel["release"],
        headers=kernel["headers"],
        next=kernel["next"],
        next_headers=kernel["next_headers"],
        meta=_texts(kernel["meta"]),
        sliced=wishes.get("mig") == "enabled" or any(one["mig"]["current"] == "Enabled" for one in found["gpus"]),
        secure_boot=bool(found["secure_boot"]["on"]),
        key=found["secure_boot"]["key"],
        serving=_texts(wishes.get("serving", ())),
        present=Present(
            library=driver["library"],
            module=driver["module"],
            loaded=driver["loaded"],
            kind=driver["kind"],
            way=driver["way"],
            broken=_texts(driver["broken"]),
            packages=_texts(driver["packages"]),
            fabric=driver["fabric_manager"],
            installed=_texts(driver["installed"]),
            nouveau=any(one["driver"] == "nouveau" for one in mine),
        ),
    )
    wish = Wish(
        gpus=int(wishes.get("gpus", 1)),
        cuda=str(wishes.get("cuda") or wheel_cuda(str(wishes.get("version", "")))),
        branch=int(wishes.get("branch") or 0),
        kind=str(wishes.get("kind", "auto")),
        source=str(wishes.get("source", "auto")),
        file=str(wishes.get("file", "")),
        packages=_texts(wishes.get("packages", ())),
        headers=_texts(wishes.get("headers") or ()),
        generations=dict(wishes.get("generations") or {}),
    )
    made = decide(host, wish)
    subnet = bool({*host.devices} & data.SWITCHED_GPUS) and bool(made.fabric)
    made = replace(made, tools=(*made.tools, *(data.SUBNET_MANAGER if subnet else ())))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(made).items()}


def _texts(values: Iterable[Any] | Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
