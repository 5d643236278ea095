"""``make test``: everything that CI runs, with pytest as the outermost runner, quick checks first."""

from __future__ import annotations

import os
import subprocess
import sys

from .sandbox import environment
from .sandbox.layout import ROOT, STATE

# A stage that fails stops the run: what follows is slower and would mostly say the same.
STAGES = ("tests/gates", "tests/repo", "tests/unit", "tests/scenarios")


def main() -> int:
    """Run pytest over the stages in this order; further arguments go to pytest."""
    STATE.mkdir(exist_ok=True)
    stages = [stage for stage in STAGES if (ROOT / stage).is_dir()]
    command = [sys.executable, "-m", "pytest", "--exitfirst", "-p", "no:cacheprovider", *stages, *sys.argv[1:]]
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores: {' '.join(stages)}", flush=True)
    # The hub's own command is tested against the fake hub: it comes with the development environment.
    env = dict(environment.for_ansible(), LLMOPS_TEST_VLLM_ENV=str(ROOT / ".venv"))
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
