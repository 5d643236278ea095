"""What Galaxy says of the archive when it is uploaded: nothing that could be mended."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

from tools import environments

CONFIG = """[galaxy-importer]
CHECK_REQUIRED_TAGS = True
RUN_FLAKE8 = True
"""
# Warnings that stay, as patterns, each with the reason.
KEPT = {
    r"plugins/filter/\w+\.yml:\d+:\d+: E999 SyntaxError": (
        "the importer gives flake8 every file of plugins/filter as Python; documentation beside a filter is YAML"
    ),
}


def test_importer_has_no_warning_that_could_be_mended(archive: pathlib.Path, tmp_path: pathlib.Path) -> None:
    place = environments.ensure("importer")
    (tmp_path / "importer.cfg").write_text(CONFIG)
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    env |= {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "GALAXY_IMPORTER_CONFIG": str(tmp_path / "importer.cfg"),
    }
    command = [str(place / "bin" / "python"), "-m", "galaxy_importer.main", str(archive)]
    done = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    told = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, "\n".join(told)
    assert "Importer processing completed successfully" in told
    warnings = [line.removeprefix("WARNING: ") for line in told if line.startswith(("WARNING", "ERROR"))]
    assert [line for line in warnings if not any(re.match(pattern, line) for pattern in KEPT)] == []
    unused = [pattern for pattern in KEPT if not any(re.match(pattern, line) for line in warnings)]
    assert unused == [], "no longer said: remove it from KEPT"
