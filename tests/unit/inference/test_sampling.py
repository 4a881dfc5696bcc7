"""The samplers' order, the presets, and what is out of range."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from desktop_app.errors import KnownError
from desktop_app.inference.sampling import MAX_SEED, PRESETS, Sampling, preset

EVERYTHING = Sampling(
    temperature=0.9,
    top_k=10,
    top_p=0.8,
    min_p=0.1,
    typical_p=0.7,
    repetition_penalty=1.1,
)


def test_hugging_faces_order() -> None:
    steps = replace(EVERYTHING, order="huggingface").steps()
    assert steps == ("penalties", "temperature", "top_k", "top_p", "min_p", "typical_p")


def test_the_neutral_order_cuts_before_it_heats() -> None:
    steps = EVERYTHING.steps()
    assert steps == ("penalties", "top_k", "typical_p", "top_p", "min_p", "temperature")


def test_steps_that_do_nothing_are_left_out() -> None:
    off = Sampling(temperature=1, top_k=0, top_p=1, min_p=0, typical_p=1, repetition_penalty=1)
    assert off.steps() == ()
    assert replace(off, top_k=5).steps() == ("top_k",)


def test_temperature_zero_takes_the_likeliest() -> None:
    assert replace(EVERYTHING, temperature=0).steps() == ("penalties",)


def test_open_assistants_default_preset() -> None:
    k50 = preset("oa-k50")
    assert (k50.temperature, k50.top_k, k50.top_p, k50.repetition_penalty) == (0.75, 50, 0.95, 1.2)
    assert (k50.min_p, k50.typical_p, k50.max_tokens, k50.penalty_last_n) == (0, 1, 1024, -1)
    assert k50.steps() == ("penalties", "temperature", "top_k", "top_p")
    assert preset("oa-typical2").steps() == ("penalties", "temperature", "typical_p")


def test_the_default_is_balanced() -> None:
    assert preset("balanced") == Sampling()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_in_range(name: str) -> None:
    assert preset(name).checked() == PRESETS[name]


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(KnownError, match="balanced"):
        preset("nope")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 1.1),
        ("min_p", -1),
        ("typical_p", 2),
        ("repetition_penalty", 0),
        ("penalty_last_n", -2),
        ("max_tokens", -1),
        ("seed", -1),
        ("seed", 2**32 - 1),
        ("order", "alphabetical"),
    ],
)
def test_options_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(KnownError) as caught:
        replace(Sampling(), **{name: value}).checked()  # type: ignore[arg-type] # wrong on purpose
    assert caught.value.code == "sampling-invalid"


def test_drafts_have_seeds_of_their_own() -> None:
    sampling = Sampling(seed=MAX_SEED)
    assert [sampling.for_draft(n).seed for n in range(3)] == [MAX_SEED, 0, 1]
    assert Sampling().for_draft(2).seed is None
