"""Golden prompts without a replica: what a file may hold, what a schema says, what an answer is judged by."""

from __future__ import annotations

import re
import time

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._gate import golden, golden_file
from ansible_collections.llmops.vllm.plugins.module_utils._gate import json_schema as _json_schema
from ansible_collections.llmops.vllm.plugins.module_utils._gate.completion import Answer
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError

SECRET = "text of a prompt that nobody else may read"


def entry(**more):
    return {"name": "capital", "prompt": SECRET, "expect": {"contains": "Paris"}, **more}


def expecting(**expect):
    return entry(expect=expect)


def answer(text):
    return Answer(text, "stop", 3, 5, 0.1, 0.2)


def judged(text, recorded=None, **expect):
    (prompt,) = golden_file.read_prompts([expecting(**expect)])
    return [failure.words() for failure in golden.judge(prompt, answer(text), recorded)]


# --- the file


def test_everything_that_may_be_expected_is_read():
    expect = {
        "contains": ["a", "b"],
        "regex": "^x",
        "json_schema": {"type": "object"},
        "length": {"min": 1, "max": 9},
        "similarity": 1,
    }
    chat = {"name": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "expect": expect}
    text, second = golden_file.read_prompts([entry(), chat])
    assert (text.name, text.question.prompt, text.question.max_tokens) == ("capital", SECRET, 64)
    assert text.question.path == "/v1/completions" and second.question.path == "/v1/chat/completions"
    assert second.question.body() == {"messages": chat["messages"], "max_tokens": 9, "temperature": 0, "seed": 0}
    assert second.expect == golden_file.Expectation(
        ("a", "b"), (re.compile("^x"),), {"type": "object"}, 1, 9, similarity=1.0
    )


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("- name: x", "prompts is a text, needed is a list of prompts: give the parsed file, such as"),
        (None, "prompts is nothing, needed is a list"),
        ({"prompts": []}, "prompts is a mapping, needed is a list"),
        ([], "prompts holds 0 prompts: give 1 to 1000"),
        ([entry()] * 1001, "prompts holds 1001 prompts"),
        (["x"], "prompt 1 of the list: found a text, needed is a mapping with the keys name, prompt"),
        ([{}], "prompt 1 of the list: is empty: give it the keys name"),
        ([entry(name=3)], "prompt 1 of the list: name: found 3, needed is a text of 1 to 100 characters"),
        ([entry(name="a\x1b[31m")], "prompt 1 of the list: name: found a text, needed is a text of 1 to 100"),
        ([entry(), entry()], "prompt capital: name: 2 prompts have it: give each a name of its own"),
        ([entry(expects={})], "prompt capital: expects: is not known: did you mean expect?"),
        ([entry(colour=1)], "prompt capital: colour: is not known: use name, prompt, messages, max_tokens, expect"),
        ([entry(prompt=7)], "prompt capital: prompt: found 7, needed is a text: put it into quotes"),
        ([entry(prompt="")], "prompt capital: prompt: found an empty text"),
        ([entry(messages=[])], "prompt capital: prompt: give either prompt (a text to go on with) or messages"),
        ([{"name": "x", "expect": {"contains": "a"}}], "prompt x: prompt: give either prompt"),
        ([{**entry(), "max_tokens": True}], "prompt capital: max_tokens: found true, needed is a whole number from 1"),
        ([entry(max_tokens=4097)], "prompt capital: max_tokens: found 4097, needed is a whole number from 1 to 4096"),
        ([entry(expect={})], "prompt capital: expect: found an empty mapping, needed is a mapping with at least one"),
        ([expecting(contain="a")], "prompt capital: expect.contain: is not known: did you mean contains?"),
        ([expecting(contains=True)], "prompt capital: expect.contains: found true, needed is a text or a list of them"),
        ([expecting(contains=["a", 4])], "prompt capital: expect.contains: found 4, needed is a text"),
        ([expecting(contains="")], "prompt capital: expect.contains: found an empty text"),
        ([expecting(regex="(a")], "prompt capital: expect.regex: '(a' is no regular expression of Python: missing )"),
        ([expecting(length=5)], "prompt capital: expect.length: found 5, needed is a mapping with min, max or both"),
        ([expecting(length={"min": -1})], "prompt capital: expect.length.min: found -1, needed is a number of"),
        ([expecting(length={"min": 2, "max": 1})], "prompt capital: expect.length: min 2 is above max 1"),
        ([expecting(length={"most": 2})], "prompt capital: expect.length.most: is not known: use min, max"),
        ([expecting(similarity=80)], "prompt capital: expect.similarity: found 80, needed is a number above 0 and up"),
        (
            [expecting(json_schema={"type": "object", "pattern": "x"})],
            "prompt capital: expect.json_schema: pattern is not among the keywords that are judged: use only type",
        ),
    ],
)
def test_what_is_wrong_is_told_with_prompt_key_and_mend(document, words):
    with pytest.raises(golden_file.GoldenError) as told:
        golden_file.read_prompts(document)
    assert words in str(told.value)
    assert SECRET not in str(told.value)


@pytest.mark.parametrize("messages", ["hi", [], ["hi"], [{"role": "user"}], [{"role": "user", "content": 3}]])
def test_messages_of_a_chat_are_judged(messages):
    with pytest.raises(golden_file.GoldenError, match="prompt x: messages: needed is a list of mappings with role"):
        golden_file.read_prompts([{"name": "x", "messages": messages, "expect": {"contains": "a"}}])


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(golden_file.GoldenError) as told:
        golden_file.read_prompts([entry(max_tokens=0), entry(name="b", expect={"regex": "["}), entry(name="c", x=1)])
    lines = str(told.value).splitlines()
    assert lines[0] == "prompts: 3 problems, nothing was asked:" and len(lines) == 4
    with pytest.raises(golden_file.GoldenError, match=r"\n\.\.\. and 30 more$"):
        golden_file.read_prompts([entry(name=f"p{number}", max_tokens=0) for number in range(50)])


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ({}, "no answer of it is recorded: record with state=recorded"),
        ({"capital": "Paris"}, "its entry in recorded is damaged"),
        ({"capital": {"text": "Paris"}}, "its entry in recorded is damaged"),
        ({"capital": {"text": "Paris", "question": "0"}}, "prompt or max_tokens were changed since its answer was"),
    ],
)
def test_similarity_needs_the_recorded_answer_of_the_same_question(recorded, words):
    prompts = golden_file.read_prompts([expecting(similarity=0.9), entry(name="other")])
    with pytest.raises(golden_file.GoldenError, match=f"prompt capital: expect.similarity: {words}"):
        golden_file.check_recorded(prompts, recorded)
    good = {"capital": {"text": "Paris", "question": prompts[0].question.digest()}, "gone": {}}
    golden_file.check_recorded(prompts, good)


# --- the schema

ORDER = {
    "title": "An order",
    "type": "object",
    "required": ["item", "count"],
    "additionalProperties": False,
    "properties": {
        "item": {"type": "string", "enum": ["tea", "coffee"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "notes": {"type": ["array", "null"], "items": {"type": "string"}},
    },
}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('{"item": "tea", "count": 2}', ""),
        ('{"item": "tea", "count": 2.0, "notes": null}', ""),
        ('{"item": "tea", "count": 2, "notes": ["hot"]}', ""),
        ("[]", "$: is array, expected object"),
        ('{"item": "tea"}', "$: count is missing"),
        ('{"item": "beer", "count": 2}', '$.item: is "beer", expected one of ["tea", "coffee"]'),
        ('{"item": "tea", "count": 0}', "$.count: is 0, expected at least 1"),
        ('{"item": "tea", "count": 10}', "$.count: is 10, expected at most 9"),
        ('{"item": "tea", "count": 1.5}', "$.count: is number, expected integer"),
        ('{"item": "tea", "count": true}', "$.count: is boolean, expected integer"),
        ('{"item": "tea", "count": 1, "notes": [1]}', "$.notes[0]: is number, expected string"),
        ('{"item": "tea", "count": 1, "table": 7}', "$.table: must not be there"),
    ],
)
def test_a_value_is_judged_by_its_schema(text, wrong):
    assert _json_schema.schema_problems(ORDER) == []
    assert _json_schema.mismatch(_json_schema.parse(text), ORDER) == wrong


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"enum": [1]}, True, False),
        ({"enum": [1]}, 1.0, True),
        ({"enum": [{"a": [1]}]}, {"a": [1]}, True),
        ({"enum": [{"a": [1]}]}, {"a": [True]}, False),
        ({"enum": [None]}, None, True),
        ({"additionalProperties": {"type": "number"}}, {"a": 1}, True),
        ({"additionalProperties": {"type": "number"}}, {"a": "1"}, False),
        ({"minimum": 3}, "not a number", True),
        ({"items": True}, [1], True),
        ({}, 1, True),
    ],
)
def test_the_finer_points_of_a_schema(schema, value, fits):
    assert (_json_schema.mismatch(value, schema) == "") is fits


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([], "json_schema: found [], needed is a mapping of keywords"),
        (True, "json_schema: found true, needed is a mapping"),
        ({"type": "text"}, 'json_schema.type: found "text", needed is one of array, boolean'),
        ({"type": []}, "json_schema.type: found [], needed"),
        ({"type": [1]}, "json_schema.type: found [1], needed"),
        ({"enum": []}, "json_schema.enum: found [], needed is a list of values"),
        ({"required": "a"}, 'json_schema.required: found "a", needed is a list of names'),
        ({"minimum": "1"}, 'json_schema.minimum: found "1", needed is a number'),
        ({"properties": []}, "json_schema.properties: found [], needed is a mapping of names"),
        ({"items": [{}]}, "json_schema.items: found [{}], needed is a mapping"),
        ({"properties": {"a": {"items": {"oneOf": []}}}}, "json_schema.properties.a.items: oneOf is not among"),
    ],
)
def test_a_schema_that_cannot_be_judged_is_refused(schema, words):
    assert any(words in problem for problem in _json_schema.schema_problems(schema))


def test_a_schema_without_end_is_refused():
    schema = {}
    for _step in range(500):
        schema = {"items": schema}
    assert _json_schema.schema_problems(schema)[0].endswith("nests deeper than 32 levels: judge less of the answer")


# --- the verdict


@pytest.mark.parametrize(
    ("text", "expect", "failures"),
    [
        ("Paris, of course", {"contains": ["Paris", "course"]}, []),
        ("paris", {"contains": "Paris"}, ['capital: contains: expected "Paris", found "paris"']),
        ("a\n\x1b[31mb", {"contains": "c"}, ['capital: contains: expected "c", found "a ?[31mb"']),
        ("x" * 500, {"contains": "c"}, [f'capital: contains: expected "c", found "{"x" * 160} ..."']),
        ("No. 42", {"regex": [r"\d+", "^No"]}, []),
        ("No.", {"regex": r"\d+"}, [r'capital: regex: expected "\\d+", found "No."']),
        (' {"a": 1}\n', {"json_schema": {"type": "object"}}, []),
        (
            "Sure: {}",
            {"json_schema": {"type": "object"}},
            [
                "capital: json_schema: expected JSON that fits the schema, "
                'found no JSON (Expecting value at character 1): "Sure: {}"'
            ],
        ),
        (
            "[1]",
            {"json_schema": {"items": {"type": "string"}}},
            ['capital: json_schema: expected JSON that fits the schema, found $[0]: is number, expected string: "[1]"'],
        ),
        ("NaN", {"json_schema": {"type": "number"}}, None),
        ("[" * 100000, {"json_schema": {"type": "array"}}, None),
        ("four", {"length": {"min": 4, "max": 4}}, []),
        ("four", {"length": {"min": 5}}, ['capital: length: expected at least 5 characters, found 4: "four"']),
        ("four", {"length": {"max": 3}}, ['capital: length: expected at most 3 characters, found 4: "four"']),
    ],
)
def test_an_answer_is_judged(text, expect, failures):
    found = judged(text, **expect)
    assert found == failures if failures is not None else "found no JSON (" in found[0]


def test_all_expectations_that_fail_are_told():
    assert len(judged("x", contains=["a", "b"], regex="c", length={"min": 2})) == 4


@pytest.mark.parametrize(
    ("left", "right", "low", "high"),
    [
        ("", "", 1, 1),
        ("same", "same", 1, 1),
        ("a", "b", 0, 0),
        ("", "abc", 0, 0.5),
        ("The capital is Paris.", "The capital is Paris!", 0.8, 0.95),
        ("The capital is Paris.", "!!!!!!!!!!!!!!!!!!!!!", 0, 0),
        ("one two three four", "one two five six", 0.3, 0.7),
    ],
)
def test_similarity_is_what_two_texts_have_in_common(left, right, low, high):
    for one, other in ((left, right), (right, left)):
        assert low <= golden.similarity(one, other) <= high


def test_similarity_of_long_texts_is_quick():
    began = time.monotonic()
    assert golden.similarity("ab " * 20000, "ab " * 19999 + "c") > 0.99
    assert time.monotonic() - began < 2


def test_an_answer_far_from_the_recorded_one_fails():
    (told,) = judged("!!!!!!!", recorded="Paris", similarity=0.8)
    assert told == 'capital: similarity: expected at least 0.8 to "Paris", found 0.00: "!!!!!!!"'
    assert judged("Paris", recorded="Paris", similarity=1) == []


def test_an_expression_that_would_search_for_ever_ends(monkeypatch):
    monkeypatch.setattr(golden, "REGEX_SECONDS", 0.1)
    (told,) = judged("a" * 60 + "!", regex="^(a+)+$")
    assert told.endswith("found no end of the search within 0.1 s: write it without nested repetition")


def test_no_answer_is_a_failure_of_its_own():
    (prompt,) = golden_file.read_prompts([entry()])
    (failure,) = golden.judge(prompt, ApiError("POST http://192.0.2.1: timed out after 1 s"), None)
    assert (
        failure.words() == "capital: answer: expected a whole answer, found POST http://192.0.2.1: timed out after 1 s"
    )


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"parallel": 0}, "parallel is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"request_timeout": -1}, "request_timeout"),
    ],
)
def test_limits_are_limits(limits, words):
    with pytest.raises(golden_file.GoldenError, match=words):
        golden.Limits(**limits)
