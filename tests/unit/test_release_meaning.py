"""What a release means: what is refused, what its id is made of, and the texts of its files."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.vllm.plugins.module_utils._release import meaning as subject

KEYS = ["first-key-0123456789abcdef0123456789", "second-key-0123456789abcdef012345678"]


@pytest.fixture
def args() -> dict[str, Any]:
    return {
        "settings": {"model": "M", "max-model-len": 1024, "port": 8000},
        "environment": {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": 75},
        "unit": "[Service]\nTimeoutStopSec=90\n",
        "env": "/opt/env",
        "model": "/srv/model",
        "model_name": "tiny",
        "model_revision": "a" * 40,
        "version": "0.32.0",
        "secrets": {"api-key": KEYS},
    }


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"settings": {"port": 8000, "max_model_len": 1024, "model": "M"}}, True),
        ({"settings": {"port": "8000", "max-model-len": 1024, "model": "M"}}, True),
        ({"settings": {"port": 8001, "max-model-len": 1024, "model": "M"}}, False),
        ({"unit": "# a comment\n\n[Service]\n  TimeoutStopSec=90"}, True),
        ({"unit": "[Service]\nTimeoutStopSec=91\n"}, False),
        ({"environment": {"A": "1"}}, False),
        ({"environment": {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75"}}, True),
        ({"version": "0.32.1"}, False),
        ({"model_revision": "b" * 40}, False),
        ({"model": "/srv/other"}, False),
        ({"env": "/elsewhere/env"}, True),
        ({"env": "/opt/env2"}, False),
        ({"secrets": {"api_key": KEYS}}, True),
        ({"secrets": {"api-key": list(reversed(KEYS))}}, False),
    ],
)
def test_the_id_is_a_digest_of_the_meaning(args: dict[str, Any], change: dict[str, Any], same: bool) -> None:
    before = subject.release_from(args).id
    assert (subject.release_from({**args, **change}).id == before) is same


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"max-num-seqs": None}}, "settings.max-num-seqs is null"),
        ({"settings": {"max-num-seqs": 1, "max_num_seqs": 2}}, "max-num-seqs twice, once with '-' and once with '_'"),
        ({"settings": {"api-key": "x"}}, "settings holds api-key: give it in secrets"),
        ({"settings": {"a": float("nan")}}, "give a finite one"),
        ({"environment": {"VLLM_API_KEY": "x"}}, "environment holds VLLM_API_KEY"),
        ({"environment": {"A B": "x"}}, "environment has the name 'A B'"),
        ({"environment": {"A": "x\ny"}}, "environment.A holds a line break"),
        ({"environment": {"A": ["x"]}}, "give a text or a number"),
        ({"secrets": {"api-key": [""]}}, "secrets.api-key holds an empty text"),
        ({"env": "opt/env"}, "env is 'opt/env': give the absolute path"),
        ({"secrets": {"port": ["x"]}}, "port stands in settings and in secrets"),
    ],
)
def test_what_vllm_would_misread_is_refused(args: dict[str, Any], change: dict[str, Any], words: str) -> None:
    with pytest.raises(subject.ReleaseError, match=re.escape(words)):
        subject.release_from({**args, **change}).files()


@pytest.mark.parametrize(
    "value",
    [
        1,
        -1,
        0.9,
        1e-05,
        1e16,
        True,
        False,
        "off",
        "1.0",
        "12:30",
        "null",
        'say "hi" \\ there',
        "tab\tline\nbell\x07 del\x7f nel\x85 nbsp\xa0 sep\u2028 bom\ufeff",
        "größe 模型 😀",
        ["a", "b@c", 3],
        [],
        {"mode": 3, "pass_config": {"x": True, "y": None, "z": 1e-06}},
        "# not a comment: {}",
    ],
)
def test_yaml_reads_back_what_was_written(value: Any) -> None:
    assert yaml.safe_load(subject.config_text({"key": value})) == {"key": value}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("75", '"75"'),
        ("a b", '"a b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("$HOME `x` \\", '"\\$HOME \\`x\\` \\\\"'),
        ("#;'", '"#;\'"'),
    ],
)
def test_environment_values_are_quoted_for_systemd(value: str, text: str) -> None:
    assert subject.systemd_quote(value) == text
