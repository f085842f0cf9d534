"""Bands as text: both ends of 1-4 are included, and that is the list [1, 5]."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onex_distill.cache.band_text import TypedBands, TypedSets
from onex_distill.cli.run import run
from onex_distill.parameters import Params


class Typed(Params):
    bands: TypedBands = ()
    candidates: TypedSets = ()


@pytest.mark.parametrize(
    ("text", "bands"),
    [("1-4", ((1, 5),)), ("1-3,5-7", ((1, 4), (5, 8))), (" 1-3 , 5 ", ((1, 4), (5, 6))), (3, ((3, 4),)), ("", ())],
)
def test_text_becomes_half_open_ranges(text, bands):
    assert Typed(bands=text).bands == bands


def test_lists_stay_what_they_are():
    assert Typed(bands=[[1, 5]]).bands == ((1, 5),)
    assert Typed(candidates=[[[1, 5]], [], "1-2"]).candidates == (((1, 5),), (), ((1, 3),))


def test_sets_are_separated_by_semicolons():
    assert Typed(candidates="1-4;1-2,4-5;").candidates == (((1, 5),), ((1, 3), (4, 6)), ())


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)).map(sorted), max_size=4))
def test_every_list_of_bands_can_be_typed(blocks):
    text = ",".join(f"{first}-{last}" for first, last in blocks)
    assert Typed(bands=text).bands == tuple((first, last + 1) for first, last in blocks)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:4", "'1:4' is no band; write first and last block, both included: 1-4 is blocks 1 to 4"),
        ("4-1", "band '4-1' ends before it begins; write 1-4 for blocks 1 to 4"),
        ("-1", "'-1' is no band"),
        (True, "valid tuple"),
    ],
)
def test_what_is_no_band_is_refused(text, message):
    with pytest.raises(ValidationError, match=message):
        Typed(bands=text)


@pytest.mark.parametrize(
    ("typed", "value"),
    [("1-3,5-7", "1-3,5-7"), ("[[[1,7]]]", [[[1, 7]]]), ("1-4;1-2", "1-4;1-2"), ("1-6", "1-6")],
)
def test_bands_can_be_typed_on_the_command_line(typed, value):
    context = run.make_context("run", [f"--params=a.candidates={typed},b=1,data=x"])
    assert context.params["params"] == {"a": {"candidates": value}, "b": 1, "data": "x"}
