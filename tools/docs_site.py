"""Builds the documentation site: the guides of docs/ and the pages of every module, filter and role.

``python -m tools.docs_site`` writes HTML below ``.cache/docs-site`` and ends with 1 where the builder warns. The site
refers to Ansible's own documentation, whose index is fetched: without a network those references stay plain text.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

from .checkout import ROOT, lean_environment

COLLECTION = "llmops.vllm"
PLACE = ROOT / ".cache" / "docs-site"
HTML = PLACE / "build" / "html"
_NO_INDEX = "failed to reach any of the inventories"
_CONF = """
# Guides are Markdown; their links name headings as GitHub does.
extensions.append("myst_parser")
myst_heading_anchors = 4
"""


class SiteError(Exception):
    """What a builder said."""


def guides(source: pathlib.Path, target: pathlib.Path) -> list[str]:
    """Copy the Markdown pages and pictures, return the pages' names; links that leave lead to the repository."""
    galaxy = (ROOT / "galaxy.yml").read_text()
    repository = re.search(r"^repository: (\S+)$", galaxy, re.MULTILINE)
    if repository is None:
        raise SiteError("galaxy.yml names no repository")
    target.mkdir()
    if (source / "images").is_dir():
        shutil.copytree(source / "images", target / "images")
    (target / "runbooks").mkdir()
    pages = sorted(page.relative_to(source) for folder in ("", "runbooks") for page in (source / folder).glob("*.md"))
    for page in pages:
        out = "](" + "../" * len(page.parts)
        text = (source / page).read_text().replace(out, f"]({repository[1]}/blob/main/")
        # the site's highlighter takes a colon, which names of recorded series have, for an error
        (target / page).write_text(text.replace("```promql", "```text"))
    return [str(page.with_suffix("")) for page in pages]


def _index(pages: list[str]) -> str:
    lines = [COLLECTION, "=" * len(COLLECTION), ""]
    if pages:
        lines += [".. toctree::", "   :maxdepth: 1", "   :caption: Guides", "", *[f"   guides/{p}" for p in pages], ""]
    lines += [".. toctree::", "   :maxdepth: 1", "   :caption: Reference", "   :glob:", ""]
    lines += [f"   collections/{COLLECTION.replace('.', '/')}/index", "   collections/index", "   collections/index_*"]
    lines += ["   collections/environment_variables", ""]
    return "\n".join(lines)


def _run(*command: str) -> str:
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    env = dict(os.environ, PATH=path, **lean_environment())
    done = subprocess.run(command, cwd=PLACE, env=env, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SiteError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done.stderr


def unexpected(told: str) -> list[str]:
    """Return the builder's warnings, without those that a missing network alone makes."""
    lines = [line for line in told.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL):", line)]
    if _NO_INDEX not in told:
        return lines
    foreign = re.compile(rf"undefined label: '(?!ansible_collections\.{re.escape(COLLECTION)}\.)")
    return [line for line in lines if _NO_INDEX not in line and not foreign.search(line)]


def build() -> str:
    """Build the site anew and return what is to be told about it; raise SiteError with the warnings."""
    shutil.rmtree(PLACE, ignore_errors=True)
    rst = PLACE / "rst"
    rst.mkdir(parents=True)
    for folder in (PLACE, rst):
        folder.chmod(0o700)  # antsibull-docs refuses another
    options = ["--use-current", "--fail-on-error", "--dest-dir"]
    words = ["--project", COLLECTION, "--title", COLLECTION, "--copyright", f"{COLLECTION} maintainers"]
    _run("antsibull-docs", "sphinx-init", "--lenient", *words, *options, str(PLACE), COLLECTION)
    _run("antsibull-docs", "--config-file", "antsibull-docs.cfg", "collection", *options, str(rst), COLLECTION)
    (rst / "index.rst").write_text(_index(guides(ROOT / "docs", rst / "guides")))
    with open(PLACE / "conf.py", "a", encoding="utf-8") as conf:
        conf.write(_CONF)
    told = _run("sphinx-build", "-M", "html", str(rst), str(PLACE / "build"), "-q", "-c", ".")
    if problems := unexpected(told):
        raise SiteError("\n".join(problems))
    pages = len(list(HTML.rglob("*.html")))
    offline = "; no network: references to Ansible's own documentation are plain text" if _NO_INDEX in told else ""
    return f"{HTML}/index.html: {pages} pages{offline}"


def main() -> int:
    """Build the site and print where it is."""
    try:
        print(build())
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
