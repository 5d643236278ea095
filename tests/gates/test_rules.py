"""Rules under promtool: every case passes, every mutant of an alert is noticed by its cases, runbooks ask what parses.

Each gate runs under promtool 2.42 (Debian 12) and under a 3.x, whose ranges are open at their left end.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
import pytest

from tests.rules.cases import Case, all_cases, failures
from tools import promtool
from tools.debian_packages import NoPackage, unpacked
from tools.rules.source import TARGET, dumped

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
MESSAGES = ROOT / "roles" / "llm_monitoring" / "templates" / "llm.tmpl.j2"


@pytest.fixture(params=promtool.VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def program(version: str) -> pathlib.Path:
    try:
        return promtool.ensure(version)
    except NoPackage as problem:
        pytest.skip(f"promtool {version}: {problem}")


def test_files_are_valid(program: pathlib.Path) -> None:
    files = [str(path) for path in sorted(TARGET.glob("*.yml"))]
    command = [program, "check", "rules", "--lint=all", "--lint-fatal", *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_passes(program: pathlib.Path, version: str, tmp_path: pathlib.Path) -> None:
    runs = {f"case-{number}": (case, case.rule.body) for number, case in enumerate(all_cases(version))}
    failed = failures(program, tmp_path, runs)
    reasons = [f"{runs[name][0].rule.name}: {runs[name][0].text}\n{told}" for name, told in failed.items()]
    assert not reasons, "\n".join(reasons)


def test_every_mutant_is_noticed(program: pathlib.Path, version: str, tmp_path: pathlib.Path) -> None:
    runs: dict[str, tuple[Case, Mapping[str, Any]]] = {}
    mutants: dict[str, list[str]] = {}
    for case in all_cases(version):
        if case.rule.is_alert:
            for what, body in mutated(case.rule.body):
                name = f"run-{len(runs)}"
                runs[name] = (case, body)
                labels = ",".join(case.rule.labels.values())
                mutants.setdefault(f"{case.rule.name} ({labels}): {what}", []).append(name)
    failed = failures(program, tmp_path, runs)
    print(f"{len(mutants)} mutants, {len(runs)} runs")
    survivors = [what for what, names in mutants.items() if failed.keys().isdisjoint(names)]
    assert not survivors, "\n".join(survivors)


def mutated(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what was done to an alert and what it is then."""
    yield "never fires", {**body, "expr": f"({body['expr']}) and on () vector(1) < 0"}
    if body["expr"] != "vector(1)":  # the watchdog always does
        yield "always fires", {**body, "expr": "vector(1)"}
    if "for" in body:
        yield "does not wait", {name: value for name, value in body.items() if name != "for"}
    lines = body["expr"].splitlines()
    for number, line in enumerate(lines):
        if re.match(r" *(and|or|unless)\b", line):
            end = number + 1
            while end < len(lines) and _depth(lines[end]) > _depth(line):
                end += 1
            yield f"without {line.strip()!r}", {**body, "expr": "\n".join(lines[:number] + lines[end:])}


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def test_queries_of_the_runbooks_are_valid(program: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pages = [page.read_text() for page in RUNBOOKS.glob("*.md")]
    asked = [query for page in pages for query in re.findall(r"```promql\n(.*?)```", page, re.DOTALL)]
    assert len(asked) > 30
    rules = [{"record": f"asked:{number}", "expr": query} for number, query in enumerate(asked)]
    file = tmp_path / "asked.yml"
    file.write_text(dumped({"groups": [{"name": "asked", "rules": rules}]}))
    done = subprocess.run([program, "check", "rules", str(file)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


ALERT = {
    "status": "firing",
    "labels": {"alertname": "LLMReplicaDown", "pool": "chat", "replica": "gpu1/r0", "host": "gpu1"},
    "annotations": {"summary": "s", "description": "d", "dashboard": "llmops-replica", "panel": "2"},
}


@pytest.mark.parametrize(
    ("without", "link"),
    [
        ((), "/d/llmops-replica?viewPanel=panel-2&var-pool=chat&var-replica=gpu1%2Fr0&var-host=gpu1"),
        (("pool", "replica"), "/d/llmops-replica?viewPanel=panel-2&var-host=gpu1"),
        (("panel", "host"), "/d/llmops-replica?&var-pool=chat&var-replica=gpu1%2Fr0"),  # a rule of the user's own
    ],
    ids=["of a replica", "of a host", "of a rule without a panel"],
)
def test_messages_lead_to_the_panel(without: tuple[str, ...], link: str, tmp_path: pathlib.Path) -> None:
    try:
        amtool = unpacked("prometheus-alertmanager") / "usr" / "bin" / "amtool"
    except NoPackage as problem:
        pytest.skip(f"amtool: {problem}")
    jinja = jinja2.Environment(trim_blocks=True)
    jinja.filters["comment"] = str
    text = jinja.from_string(MESSAGES.read_text()).render(__llm_monitoring_urls={"grafana": "https://g"})
    (tmp_path / "llm.tmpl").write_text(text)
    alert = {
        name: {key: text for key, text in part.items() if key not in without} if isinstance(part, dict) else part
        for name, part in ALERT.items()
    }
    (tmp_path / "data.json").write_text(json.dumps({"status": "firing", "alerts": [alert]}))
    command = [amtool, "template", "render", "--template.glob=llm.tmpl", "--template.data=data.json"]
    command += ['--template.text={{ template "llm.text" . }}']
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("Dashboard: ")] == [
        f"Dashboard: https://g{link}"
    ]
