# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a replica runs with: vLLM's settings and its process environment, from the inventory's values."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .._check.problem import Problem, is_secret, kind_of, value_of
from .._errors import LlmopsError
from .profiles import COMMON, PROFILES

SERVED_REVISION_CHARACTERS = 12
_TLS = "nothing: balancers end TLS, and the firewall admits nobody else (llm_balancer_tls_certificate)"

# Flags that the role sets, with the variable that changes them.
OWNED: dict[str, str] = {
    "host": "vllm_listen_address",
    "port": "vllm_port, or port of an entry of vllm_replicas",
    "uds": "vllm_listen_address and vllm_port",
    "model": "llmops_model_source and llmops_model_revision",
    "model-tag": "llmops_model_source and llmops_model_revision",
    "revision": "llmops_model_revision",
    "download-dir": "llm_model_root",
    "served-model-name": "llmops_model_name",
    "api-key": "llmops_backend_keys",
    "tensor-parallel-size": "vllm_tensor_parallel_size",
    "config": "vllm_flags",
    "ssl-keyfile": _TLS,
    "ssl-certfile": _TLS,
    "ssl-ca-certs": _TLS,
    "ssl-cert-reqs": _TLS,
}


class SettingsError(LlmopsError):
    """Flags that cannot be merged, or that are not the user's to set."""


def settings(
    replicas: Iterable[Mapping[str, Any]],
    *,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    listen_address: str = "",
    model_root: str = "/srv/llm-models",
    state_dir: str = "/var/lib/vllm",
    cache_dir: str = "/var/cache/vllm",
) -> list[dict[str, Any]]:
    """Return the replicas, each with ``model``, ``settings``, ``environment``, ``dropped``, ``url`` and ``alias``."""
    return [
        _one(replica, flags or {}, environment or {}, listen_address, model_root, state_dir, cache_dir)
        for replica in replicas
    ]


def _one(
    replica: Mapping[str, Any],
    host_flags: Mapping[str, Any],
    host_environment: Mapping[str, Any],
    listen_address: str,
    model_root: str,
    state_dir: str,
    cache_dir: str,
) -> dict[str, Any]:
    on_host = canonical(host_flags, "vllm_flags")
    on_replica = canonical(replica.get("flags") or {}, f"vllm_replicas[{replica['name']}].flags")
    model = f"{model_root}/{replica['model_name']}/{replica['model_revision']}"
    alias = f"{replica['model_name']}@{str(replica['model_revision'])[:SERVED_REVISION_CHARACTERS]}"
    listen = str(listen_address or replica["address"])
    own = {
        "host": listen,
        "port": int(replica["port"]),
        "model": model,
        "served-model-name": [str(replica["model_name"]), alias],
        "tensor-parallel-size": int(replica["tensor_parallel_size"]),
    }
    adapters = [f"{one['name']}={model_root}/{one['name']}/{one['revision']}" for one in replica.get("adapters") or []]
    if adapters:
        own.update({"enable-lora": True, "lora-modules": adapters})
    user = {**on_host, **on_replica}
    chosen, dropped = _profile(str(replica["profile"]), user, cpu=not replica["gpus"])
    merged = {**own, **chosen, **user}
    return {
        **replica,
        "model": model,
        "alias": alias,
        "url": url(listen, replica["address"], int(replica["port"])),
        "settings": {name: merged[name] for name in sorted(merged) if merged[name] is not None},
        "environment": process_environment(replica, host_environment, state_dir, cache_dir),
        "dropped": dropped,
    }


def canonical(flags: Mapping[str, Any], variable: str) -> dict[str, Any]:
    """Return the flags under their one name (``max_num_seqs`` and ``--max-num-seqs`` are ``max-num-seqs``).

    ``no-x: true`` becomes ``x: false``, so that it meets the profile's ``x``. Raises SettingsError for the first of
    ``name_problems``.
    """
    for problem in name_problems(flags, variable):
        raise SettingsError(str(problem))
    return dict(renamed(written, given) for written, given in flags.items())


def name_problems(flags: Any, variable: str) -> Iterator[Problem]:
    """Yield the flags that are not the user's to set, and those that are given twice in different spellings."""
    if not isinstance(flags, Mapping):
        text = f"is {kind_of(flags)}: give a mapping of vLLM's long flag names to values"
        yield Problem("", variable, kind_of(flags), text)
        return
    seen: dict[str, Any] = {}
    for written, given in flags.items():
        name, value = renamed(written, given)
        if name in OWNED:
            text = f"is set by the role: remove it there and use {OWNED[name]}"
            yield Problem("", f"{variable}.{written}", value_of(name, given), text)
        elif name in seen and seen[name] != value:
            both = "" if is_secret(name) else f" ({seen[name]!r} and {value!r})"
            yield Problem("", f"{variable}.{name}", value_of(name, value), f"is given twice{both}: keep one")
        seen[name] = value


def flag_names(flags: Any) -> set[str]:
    """Return the names of the flags that a mapping sets, whatever their spelling; none of what is no mapping."""
    return {renamed(written, value)[0] for written, value in flags.items()} if isinstance(flags, Mapping) else set()


def renamed(written: Any, value: Any) -> tuple[str, Any]:
    """Return a flag under its one name, with what it means there: ``no-enable-x: true`` is ``enable-x: false``."""
    name = str(written).strip().lstrip("-").replace("_", "-")
    return (name[3:], not value) if name.startswith("no-enable-") and isinstance(value, bool) else (name, value)


def _profile(name: str, user: Mapping[str, Any], *, cpu: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the profile's flags that apply, and those that do not with the reason."""
    if name not in PROFILES:
        raise SettingsError(f"llmops_profile is {name!r}: known profiles are {', '.join(PROFILES)}")
    profile = PROFILES[name]
    chosen: dict[str, Any] = {}
    dropped: list[dict[str, Any]] = []
    length = user.get("max-model-len")
    for flag in (*COMMON, *profile.flags):
        # vLLM 0.33 pairs enable-x with disable-x: the user's negation wins over the profile, too.
        if flag.name in user or (flag.name.startswith("enable-") and f"disable-{flag.name[7:]}" in user):
            continue
        why = flag.not_on_cpu if cpu else ""
        if flag.name == "long-prefill-token-threshold" and isinstance(length, int) and flag.value > length:
            why = f"no prompt is longer than max-model-len {length}, and vLLM refuses a larger threshold"
        if why:
            dropped.append({"flag": flag.name, "value": flag.value, "why": why})
        else:
            chosen[flag.name] = flag.value
    sequences = _whole({**chosen, **user}.get("max-num-seqs"))
    if profile.queue_depth is not None and "max-num-queued-reqs" not in user and sequences is not None:
        # vLLM counts running and waiting requests together, over all data-parallel ranks.
        ranks = _whole(user.get("data-parallel-size"))
        chosen["max-num-queued-reqs"] = (1 if ranks is None else ranks) * sequences + profile.queue_depth
    return chosen, dropped


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def process_environment(
    replica: Mapping[str, Any], given: Mapping[str, Any], state_dir: str, cache_dir: str
) -> dict[str, str]:
    """Return the variables of the replica's process; what the user gives wins, null removes."""
    base: dict[str, Any] = {
        "HOME": state_dir,
        # Caches outlive a restart; PrivateTmp and an unset HOME would lose them.
        "XDG_CACHE_HOME": cache_dir,
        "VLLM_CACHE_ROOT": f"{cache_dir}/vllm",
        "VLLM_CONFIG_ROOT": f"{state_dir}/config",
        "HF_HOME": f"{cache_dir}/huggingface",
        "TRITON_CACHE_DIR": f"{cache_dir}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache_dir}/inductor",
        # Weights are on disk: a missing file fails at once instead of hanging in a download.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Longer than the balancer keeps idle connections, so that the balancer closes first.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
        # Large models load longer than vLLM's 600 s.
        "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
        "NO_COLOR": "1",
        # The processes of one replica talk to each other; on any other address these ports would be open to the net.
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if replica["gpus"]:
        base["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        base["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in replica["gpus"])
        base["NCCL_SOCKET_IFNAME"] = "lo"
    merged = {**base, **{str(name): value for name, value in given.items()}}
    return {name: _text(merged[name]) for name in sorted(merged) if merged[name] is not None}


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def url(listen: str, address: str, port: int) -> str:
    """Return where this host reaches its own replica: the address it binds, or its own name for a wildcard."""
    host = address if listen in ("0.0.0.0", "::", "*") else listen
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def addresses(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> list[str]:
    """Return the private address of each host: ``llmops_address``, else ``ansible_host``, else its name."""
    found = [str(hostvars[host].get("llmops_address") or hostvars[host].get("ansible_host") or host) for host in hosts]
    return list(dict.fromkeys(found))


def by_family(values: Sequence[str]) -> dict[str, list[str]]:
    """Return addresses and networks as ``ipv4`` and ``ipv6``, and what is neither as ``names``."""
    found: dict[str, list[str]] = {"ipv4": [], "ipv6": [], "names": []}
    for value in values:
        try:
            network = ipaddress.ip_network(str(value), strict=False)
        except ValueError:
            found["names"].append(str(value))
            continue
        short = str(network.network_address) if network.num_addresses == 1 else str(network)
        found[f"ipv{network.version}"].append(short)
    return {family: sorted(set(members)) for family, members in found.items()}
