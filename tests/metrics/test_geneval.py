import json

import pytest

from onex_distill.metrics.geneval import Case, Detection, Wanted, is_correct, read_cases, relations, tag_scores


def case(tag="single_object", include=(), exclude=()):
    return Case(tag=tag, prompt="", include=tuple(include), exclude=tuple(exclude))


def found(name, score=0.95, box=(0, 0, 10, 10), colour=""):
    return Detection(name, score, box, colour)


def test_an_object_must_be_found_with_the_score():
    wanted = case(include=[Wanted(name="cat", count=1)])
    assert is_correct(wanted, [found("dog"), found("cat", 0.31)])
    assert not is_correct(wanted, [found("dog"), found("cat", 0.3)])


def test_counts_are_exact_because_one_more_is_excluded():
    two = case("counting", [Wanted(name="cat", count=2)], [Wanted(name="cat", count=3)])
    assert not is_correct(two, [found("cat")])
    assert is_correct(two, [found("cat"), found("cat")])
    assert not is_correct(two, [found("cat")] * 3)
    assert is_correct(two, [found("cat"), found("cat"), found("cat", 0.9)])  # counting needs a higher score


def test_only_the_best_objects_are_asked_for_their_colour():
    red = case("colors", [Wanted(name="cat", count=1, colour="red")])
    assert is_correct(red, [found("cat", 0.5, colour="blue"), found("cat", 0.9, colour="red")])
    assert not is_correct(red, [found("cat", 0.95, colour="blue"), found("cat", 0.9, colour="red")])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((100, 0, 120, 20), {"right of"}),
        ((-100, 0, -80, 20), {"left of"}),
        ((0, -100, 20, -80), {"above"}),
        ((0, 100, 20, 120), {"below"}),
        ((100, 100, 120, 120), {"right of", "below"}),
        ((3, 3, 23, 23), set()),  # nearer than a tenth of both boxes
        ((100, 40, 120, 60), {"right of"}),
    ],
)
def test_relations_of_boxes(box, expected):
    assert relations(box, (0, 0, 20, 20)) == expected


def test_positions_hold_to_what_was_matched_before():
    beside = case("position", [Wanted(name="dog", count=1), Wanted(name="cat", count=1, position=("left of", 0))])
    dog, cat = found("dog", box=(100, 0, 120, 20)), found("cat", box=(0, 0, 20, 20))
    assert is_correct(beside, [dog, cat])
    assert not is_correct(beside, [found("dog", box=(0, 0, 20, 20)), found("cat", box=(100, 0, 120, 20))])
    assert not is_correct(beside, [cat])


def test_the_overall_is_the_mean_over_tags():
    cases = [case("a"), case("a"), case("a"), case("b")]
    assert tag_scores(cases, [True, False, False, True]) == pytest.approx({"overall": 2 / 3, "a": 1 / 3, "b": 1})


def test_cases_are_read_as_the_benchmark_writes_them(tmp_path):
    path = tmp_path / "evaluation_metadata.jsonl"
    written = {
        "tag": "position",
        "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a cat left of a dog",
    }
    coloured = {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "pink"}], "prompt": "a pink car"}
    path.write_text(json.dumps(written) + "\n" + json.dumps(coloured) + "\n")
    first, second = read_cases(path)
    assert first.include[1] == Wanted(name="cat", count=1, position=("left of", 0))
    assert second.include[0].colour == "pink"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tag": "a", "prompt": "p"', "line 1 is no case"),
        ('{"tag": "a", "prompt": "p", "include": [{"class": "x", "count": 0}]}', "line 1 is no case"),
        (
            '{"tag": "a", "prompt": "p", "include": [{"class": "x", "count": 1, "position": ["above", 0]}]}',
            "a later object",
        ),
        ("[]", "line 1 is no case"),
        ("", "has no cases"),
    ],
)
def test_broken_cases_are_one_line(tmp_path, line, message):
    path = tmp_path / "cases.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        read_cases(path)
