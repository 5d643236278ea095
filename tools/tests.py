"""``make test``: everything that CI runs, with pytest as the outermost runner, quick checks first.

Tests and gates run on all cores, a file at a time on each; the scenarios follow, whose hosts need the machine whole.

``make test-quick`` (``--quick``) is for daily work: less than two minutes on two cores. It leaves out

- what takes five seconds and more, most of it waiting for servers, processes and time limits: ``UNHURRIED``;
- gates that run a tool over the built archive or all documentation, or in environments of their own: ``gates``;
- the scenarios on real systemd hosts.

``--table FILE`` adds the table of gates, which each of both prints at its end, to a Markdown file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from .sandbox import environment
from .sandbox.layout import ROOT, STATE

LINT = "tests/gates/test_lint.py"
QUICK = (LINT, "tests/repo", "tests/unit")
UNHURRIED = (
    f"{LINT}::test_linter_finds_nothing[ansible-lint]",
    *(
        f"tests/repo/test_{name}.py"
        for name in (
            "benchmark",
            "check",
            "cost_report",
            "docs",
            "docs_pages",
            "drain",
            "inventories",
            "plan",
            "rollout",
            "silences",
        )
    ),
    *(
        f"tests/unit/{name}.py"
        for name in (
            "agent/test_daemon",
            "agent/test_judge_bounds",
            "test_benchmark_module",
            "test_canary_module",
            "test_dashboards",
            "test_dashboards_live",
            "test_fake_vllm",
            "test_golden_module",
            "test_load_client",
            "test_load_hostile",
            "test_model_hub",
            "test_model_peers",
            "test_model_proofs",
            "test_model_sources",
            "test_model_store",
            "test_role_gpu_driver",
            "test_role_llm_model",
            "test_role_llm_monitoring",
            "test_role_llm_monitoring_live",
            "test_role_llm_monitoring_native",
            "test_role_llm_monitoring_pair",
            "test_shadow_module",
            "watchdog/test_watchdog",
        )
    ),
)


def gates() -> list[str]:
    """Return the gates that take longer than the linters, in the order of their names."""
    paths = sorted(path.relative_to(ROOT) for path in (ROOT / "tests" / "gates").glob("test_*.py"))
    return [str(path) for path in paths if str(path) != LINT]


# Files go to the cores in the order of the command line, whole: what a file makes for its tests is made once.
ON_ALL_CORES = ("--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder")
SCENARIOS = ("tests/scenarios",)


def main() -> int:
    """Run pytest; a test that fails stops the run, since what follows is slower and would mostly say the same."""
    parser = argparse.ArgumentParser(prog="python -m tools.tests", description="further arguments go to pytest")
    parser.add_argument("--quick", action="store_true", help="what takes less than two minutes")
    arguments, others = parser.parse_known_args()
    STATE.mkdir(exist_ok=True)
    if arguments.quick:
        parts = [[*ON_ALL_CORES, *QUICK, *(f"--deselect={path}" for path in UNHURRIED)]]
    else:
        parts = [[*ON_ALL_CORES, *QUICK, *gates()], [*SCENARIOS]]
    # The hub's own command is tested against the fake hub: it comes with the development environment.
    env = dict(environment.for_ansible(), LLMOPS_TEST_VLLM_ENV=str(ROOT / ".venv"))
    for words in parts:
        command = [sys.executable, "-m", "pytest", "--exitfirst", "-p", "no:cacheprovider", *words, *others]
        print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores: {' '.join(words)}", flush=True)
        if code := subprocess.run(command, cwd=ROOT, env=env, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
