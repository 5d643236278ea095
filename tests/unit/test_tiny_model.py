"""The tiny model: the same bytes every time, and what its readers expect."""

from __future__ import annotations

import json
import os
import pathlib
import string
import struct
import subprocess
import sys

import pytest

from tools import tiny_model


def content(directory: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("variant", tiny_model.VARIANTS)
def test_same_bytes_every_time(tmp_path: pathlib.Path, variant: str) -> None:
    assert content(tiny_model.write(tmp_path / "1", variant)) == content(tiny_model.write(tmp_path / "2", variant))


def test_an_adapter_has_the_same_bytes_every_time_and_its_rank(tmp_path: pathlib.Path) -> None:
    one, two = (content(tiny_model.write_adapter(tmp_path / name, rank=4)) for name in "12")
    assert one == two
    assert json.loads(one["adapter_config.json"])["r"] == 4


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


def test_only_letters_and_the_space_can_be_spoken(tmp_path: pathlib.Path) -> None:
    raw = (tiny_model.write(tmp_path / "a", "a") / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    begin, end = json.loads(raw[8 : 8 + length])["lm_head.weight"]["data_offsets"]
    rows = raw[8 + length :][begin:end]
    row = len(rows) // tiny_model.VOCABULARY
    loud = {chr(n) for n in range(tiny_model.VOCABULARY) if any(rows[row * n : row * (n + 1)])}
    assert loud == set(string.ascii_letters + " ")


def test_files_can_be_read_by_a_service_user(tmp_path: pathlib.Path) -> None:
    before = os.umask(0o077)
    try:
        target = tiny_model.write(tmp_path / "a", "a")
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in target.iterdir()} == {"0o644"}


def test_three_gpus_do_not_divide_the_heads_and_the_context_is_long_enough() -> None:
    for variant in tiny_model.VARIANTS:
        shape = tiny_model.config(variant)
        assert shape["num_attention_heads"] % 3
        assert shape["max_position_embeddings"] >= 2048


@pytest.mark.parametrize(
    ("arguments", "layers", "weights"),
    [([], 2, True), (["--revision", "b"], 2, True), (["--slow"], 16, False), (["--slow", "--layers", "4"], 4, False)],
)
def test_command_line(tmp_path: pathlib.Path, arguments: list[str], layers: int, weights: bool) -> None:
    command = [sys.executable, "-I", "-S", tiny_model.__file__, str(tmp_path / "m"), *arguments]  # nothing installed
    assert subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode() == f"{tmp_path / 'm'}\n"
    assert json.loads((tmp_path / "m" / "config.json").read_text())["num_hidden_layers"] == layers
    assert (tmp_path / "m" / "model.safetensors").exists() == weights


def test_layers_without_slow_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="only the slow one"):
        tiny_model.write(tmp_path / "a", "a", layers=4)
