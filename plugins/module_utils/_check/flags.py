# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with vLLM's flags, judged by the catalogue of the version that a replica is to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._vllm import flags as _flags
from .._vllm.settings import canonical, name_problems, settings
from .problem import Problem, is_secret, shown, value_of


def problems(replica: Mapping[str, Any], host_flags: Any) -> Iterator[Problem]:
    """Yield what the catalogue says of the host's flags, the replica's own and those that its profile adds."""
    host, version = replica["host"], replica["version"]
    own = f"vllm_replicas[{replica['name']}].flags"
    wrong = [*name_problems(host_flags, "vllm_flags"), *name_problems(replica["flags"], own)]
    yield from (Problem(host, problem.variable, problem.value, problem.message) for problem in wrong)
    if wrong or _flags.catalogue(version) is None:
        return
    on_host, on_replica = canonical(host_flags, "vllm_flags"), canonical(replica["flags"], own)
    for variable, flags in (("vllm_flags", on_host), (own, on_replica)):
        for found in _flags.problems({name: value for name, value in flags.items() if value is not None}, version):
            yield _problem(host, f"{variable}.{found['flag']}", found)
    given = {**on_host, **on_replica}
    chosen = settings([replica], flags=host_flags)[0]["settings"]
    profile = {name: value for name, value in chosen.items() if name not in given}
    for found in _flags.problems(profile, version):
        text = (
            f"is {replica['profile']!r} and sets {found['flag']}: {found['value']} for replica {replica['name']}; "
            f"{found['message']}: set {found['flag']}: null in vllm_flags, or another vllm_version"
        )
        yield Problem(host, "llmops_profile", repr(replica["profile"]), text)


def messages(replicas: Sequence[Mapping[str, Any]], host_flags: Mapping[str, Any]) -> list[str]:
    """Return the problems of a host's replicas as lines for people, each once."""
    found = [problem for replica in replicas for problem in problems(replica, host_flags)]
    return list(dict.fromkeys(f"{problem.variable} {problem.message}" for problem in found))


def _problem(host: str, variable: str, found: Mapping[str, Any]) -> Problem:
    if is_secret(found["flag"]):
        return Problem(host, variable, "", f"is no flag as vLLM takes it: {found['mend']}")
    text = f"{shown(found['flag'], found['value'])}; {found['message']}: {found['mend']}"
    return Problem(host, variable, value_of(found["flag"], found["value"]), text)
