"""``ansible-test`` over this checkout, as a collection's own gate demands: each of its verbs and targets is a test."""

from __future__ import annotations

import pytest

from tools import ansible_test
from tools.ansible_test import CONTROLLER_PYTHON, OLDEST_TARGET_PYTHON, ROOT, oldest_python

# The words of each target's aliases; a hidden one only prepares something for others.
TARGETS = {path.parent.name: path.read_text().split() for path in ROOT.glob("tests/integration/targets/*/aliases")}
needs_oldest = pytest.mark.skipif(
    not oldest_python(),
    reason=f"this machine has no Python {OLDEST_TARGET_PYTHON}, the oldest for targets: what needs one ran with "
    f"{CONTROLLER_PYTHON}, or not at all",
)


def run(verb: str, *arguments: str) -> str:
    done = ansible_test.run(verb, "--color", "no", *arguments, capture=True)
    lines = [line for line in done.stdout.splitlines() if "is ignored" not in line]  # pip, of this machine's mirrors
    code = done.returncode  # by itself: pytest would print the whole output a second time
    assert code == 0, f"ansible-test {verb} {' '.join(arguments)}\n" + "\n".join(lines[-120:])
    return "\n".join(lines)


def test_sanity_finds_nothing() -> None:
    run("sanity")


def test_no_finding_of_sanity_is_ignored() -> None:
    assert [path.name for path in ROOT.glob("tests/sanity/ignore-*.txt")] == []


@needs_oldest
def test_code_for_targets_is_imported_by_the_oldest_python() -> None:
    said = run("sanity", "--test", "compile", "--test", "import", "--python", OLDEST_TARGET_PYTHON)
    assert f'Running sanity test "import" on Python {OLDEST_TARGET_PYTHON}' in said


@needs_oldest
def test_units_of_code_for_targets_pass_with_the_oldest_python() -> None:
    # With the newer one, they are what plain pytest runs anyway.
    assert " passed" in run("units")


@pytest.mark.parametrize("target", sorted(name for name, words in TARGETS.items() if "hidden" not in words))
def test_integration(target: str) -> None:
    run("integration", target)
