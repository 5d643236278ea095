"""Other versions of ansible-core, against hosts where everything is in place: nothing to change, nothing to warn of.

The gate tests/gates/test_core_matrix.py runs the same on bare hosts; only here do they read every file they manage.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig

import pytest
from conftest import INVENTORY

from tools import environments
from tools.sandbox.environment import for_ansible


@pytest.mark.parametrize("playbook", ["site", "status"])
@pytest.mark.parametrize("version", ["2.17", "2.21"])
def test_dry_run_changes_nothing_and_warns_of_nothing(version: str, playbook: str) -> None:
    try:
        programs = environments.ensure(f"core-{version}") / "bin"
    except environments.NoInterpreter as reason:
        pytest.skip(str(reason))
    env = for_ansible()
    # The connection to the hosts is a plugin of a collection that the development environment has.
    env["ANSIBLE_COLLECTIONS_PATH"] += f":{sysconfig.get_path('purelib')}"
    env |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_DEPRECATION_WARNINGS": "true", "PATH": f"{programs}:{env['PATH']}"}
    for name in ("ANSIBLE_FORCE_COLOR", "PY_COLORS"):
        env.pop(name, None)
    command = [str(programs / "ansible-playbook"), "-i", str(INVENTORY), f"llmops.vllm.{playbook}", "--check", "--diff"]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-6000:]
    assert re.findall(r"^\[(?:DEPRECATION )?WARNING\].*(?:\n.+)*", told, re.MULTILINE) == []
    counts = re.findall(r"^\S+ +: ok=\d+ +changed=(\d+) ", done.stdout, re.MULTILINE)
    assert counts
    assert set(counts) == {"0"}, told[-6000:]
