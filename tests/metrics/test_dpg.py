import pytest
import torch

from onex_distill.metrics.dpg import category_scores, image_scores, proposition_scores, read_propositions

HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)
ROWS = (
    "a,a red cat,,1,0,entity,whole,entity - whole (cat),Is there a cat?",
    'a,a red cat,,2,1,attribute,color,"attribute - color (cat, red)",Is the cat red?',
    'a,a red cat,,3,"1,2",relation,spatial,"relation (red cat, left)",Is the red cat on the left?',
    "b,a dog and a hat,,1,0,entity,whole,entity - whole (dog),Is there a dog?",
    "b,a dog and a hat,,2,0,entity,whole,entity - whole (hat),Is there a hat?",
)


@pytest.fixture
def written(tmp_path):
    def write(*rows, header=HEADER):
        (tmp_path / "dpg.csv").write_text("\n".join([header, *rows]))
        return tmp_path / "dpg.csv"

    return write


def test_propositions_and_their_parents(written):
    table = read_propositions(written(*ROWS))
    assert [one.parents for one in table] == [(), (1,), (1, 2), (), ()]
    assert table[2] == ("a", "a red cat", 3, (1, 2), "relation", "Is the red cat on the left?")


def test_what_depends_on_a_false_proposition_is_false(written):
    table = read_propositions(written(*ROWS))
    answers = torch.tensor([[0.9, 0.2, 0.8], [0.1, 0.9, 0.9], [1.0, 1.0, 1.0]])
    scores = proposition_scores(table, ["a", "a", "a"], answers, "corrected")
    assert scores["answer"].tolist() == [1, 0, 1, 0, 1, 1, 1, 1, 1]
    assert scores["score"].tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 1]
    assert image_scores(scores).tolist() == pytest.approx([1 / 3, 0, 1])
    assert category_scores(scores, "corrected") == pytest.approx(
        {"entity": 200 / 3, "attribute": 100 / 3, "relation": 100 / 3}
    )


def test_the_published_protocol_takes_answers_of_the_last_image_alone(written):
    table = read_propositions(written("z,z,,1,0,other,x,t,Is it?", *ROWS))
    answers = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    scores = proposition_scores(table, ["a", "a", "b"], answers, "published")
    assert category_scores(scores, "published") == pytest.approx(
        {"entity": 100 / 3, "attribute": 100, "relation": 0}  # a's second image says no, yes, no; b's yes, no
    )
    assert image_scores(scores).tolist() == pytest.approx([1, 0, 1 / 2])


def test_the_published_protocol_loses_the_first_proposition_and_the_images_that_depend_on_it(written):
    table = read_propositions(written(*ROWS))
    answers = torch.ones(2, 3)
    assert proposition_scores(table, ["a", "b"], answers, "published")["item_id"].unique().tolist() == ["b"]
    assert len(proposition_scores(table, ["a", "b"], answers, "corrected")) == 5
    unconnected = read_propositions(written(*ROWS[3:], *ROWS[:3]))
    scores = proposition_scores(unconnected, ["b"], answers[:1], "published")
    assert scores["proposition_id"].tolist() == [2]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER + ",keyword", [row + ",x" for row in ROWS], "unknown column 'keyword'; did you mean 'keywords'"),
        (HEADER.replace(",dependency", ""), ["a,t,,1,entity,whole,t,Q?"], "has no column 'dependency'"),
        (HEADER, [ROWS[0], ROWS[0]], "has proposition 1 of a twice"),
        (HEADER, [ROWS[1]], "proposition 2 of a depends on 1, which is not there"),
        (HEADER, ["a,t,,one,0,entity,whole,t,Q?"], "no whole number"),
        (HEADER, ["a,t,,1,0,entity,whole,t,"], "an empty question_natural_language in line 2"),
    ],
)
def test_a_broken_csv_is_one_line(written, header, rows, message):
    with pytest.raises(ValueError, match=message):
        read_propositions(written(*rows, header=header))


def test_an_absent_csv_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="cannot be read as csv"):
        read_propositions(tmp_path / "no.csv")


def test_items_and_answers_must_fit(written):
    table = read_propositions(written(*ROWS))
    with pytest.raises(ValueError, match="no item 'c'"):
        proposition_scores(table, ["c"], torch.ones(1, 3), "corrected")
    with pytest.raises(ValueError, match="a has 3 propositions and 2 answers"):
        proposition_scores(table, ["a"], torch.ones(1, 2), "corrected")
