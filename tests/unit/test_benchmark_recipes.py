"""Recipes: each fits its profile and itself, grows with the replicas, and takes no figures that measure nothing."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.recipes import RECIPES, RecipeError, recipe
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.profiles import PROFILES


def test_each_profile_has_one_and_it_says_why():
    assert list(RECIPES) == list(PROFILES)
    for one in RECIPES.values():
        one.check()
        assert len(one.why) > 60
        assert one.warmups < one.requests


@pytest.mark.parametrize("profile", RECIPES)
def test_a_recipe_asks_no_more_at_a_time_than_its_profile_takes(profile):
    most = next((flag.value for flag in PROFILES[profile].flags if flag.name == "max-num-seqs"), 256)
    assert RECIPES[profile].concurrency <= most


def test_load_grows_with_the_replicas_and_lengths_do_not():
    one, three = RECIPES["multi_turn"], RECIPES["multi_turn"].load(3)
    assert (three.requests, three.request_rate, three.conversations) == (600, 6.0, 60)
    assert (three.input_tokens, three.shared_tokens, three.output_tokens) == (2176, 2048, 256)
    assert one.load(1) == one


def test_a_change_is_seen_in_the_digest_and_words_are_not():
    one = recipe("baseline")
    assert one.changed({"requests": "160"}).digest() == one.digest()
    assert one.changed({"goodput_ms": {"ttft": 1000, "tpot": "100"}}).digest() == one.digest()
    assert one.changed({"requests": 80}).digest() != one.digest()
    assert "why" not in one.data()


def test_goodput_can_be_changed_and_taken_away():
    assert recipe("baseline", {"goodput_ms": {"ttft": "300"}}).goodput_ms == {"ttft": 300.0}
    assert recipe("baseline", {"goodput_ms": {}}).goodput_ms is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prompts": 3}, "recipe.prompts is unknown: a recipe has burstiness"),
        ({"why": "x"}, "recipe.why is unknown"),
        ({"requests": "many"}, "recipe.requests is 'many': give a number"),
        ({"requests": 0}, "recipe.requests is 0: give 1 or more"),
        ({"output_tokens": 1}, "recipe.output_tokens is 1: give 2 or more"),
        ({"request_rate": "inf"}, "recipe.request_rate is 'inf': give a number from 0"),
        ({"request_rate": "nan"}, "recipe.request_rate is 'nan': give a number from 0"),
        ({"concurrency": -1}, "recipe.concurrency is -1: give a number from 0"),
        ({"concurrency": 0}, "all requests would come at once"),
        ({"shared_tokens": 5}, "give both or neither"),
        ({"shared_tokens": 2048, "conversations": 8}, "and less shared than input"),
        ({"shared_tokens": 8, "conversations": 7}, "give a multiple of the 7 conversations"),
        ({"request_rate": 1, "burstiness": 0}, "recipe.burstiness is 0: give a number above 0"),
        ({"goodput_ms": {"itl": 3}}, "give milliseconds for some of ttft, tpot, e2el"),
        ({"goodput_ms": {"ttft": "soon"}}, "recipe.goodput_ms.ttft is 'soon': give milliseconds above 0"),
    ],
)
def test_what_measures_nothing_is_refused(given, words):
    with pytest.raises(RecipeError, match=".*") as refused:
        recipe("baseline", given)
    assert words in str(refused.value)


def test_a_load_is_bounded():
    with pytest.raises(RecipeError, match="20480 requests, 5120 at a time, for 20 replicas: at most 20000 and 4096"):
        recipe("batch").load(20)
    with pytest.raises(RecipeError, match="replicas is 0: give 1 or more"):
        recipe("batch").load(0)
    with pytest.raises(RecipeError, match="profile is 'fast': there are recipes for baseline, "):
        recipe("fast")


def test_the_page_shows_the_recipes_as_they_are():
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "benchmark.md").read_text()
    for one in RECIPES.values():
        good = ", ".join(f"{name.upper()} {limit:.0f} ms" for name, limit in (one.goodput_ms or {}).items())
        cells = [f"`{one.name}`", one.input_tokens, one.shared_tokens, one.output_tokens, one.requests]
        cells += [one.concurrency or "-", f"{one.request_rate:g}" if one.request_rate else "-", good]
        assert f"| {' | '.join(map(str, cells))} |" in page
        assert f"- **{one.name}**:" in page
