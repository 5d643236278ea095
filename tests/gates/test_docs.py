"""Documentation as tools see it: pages of modules, filters and roles without a finding, and a site that builds."""

from __future__ import annotations

import os
import pathlib
import subprocess

from tools import docs_site
from tools.checkout import lean_environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The rest of what the linter could look at is reStructuredText below docs/docsite/rst, and the guides are Markdown.
LINT = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", "--skip-rstcheck"]


def test_no_finding_in_the_documentation_of_plugins_and_roles() -> None:
    env = dict(os.environ, **lean_environment())
    done = subprocess.run([*LINT, "."], cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_site_builds_without_a_warning() -> None:
    print(docs_site.build())
    page = (docs_site.HTML / "collections" / "llmops" / "vllm" / "vllm_wait_module.html").read_text()
    assert "Wait until a vLLM replica really generates" in page
