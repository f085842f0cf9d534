"""DPG-Bench and GenEval-style as columns: values by hand from answers and objects, and reasons of empty cells."""

import json
import math

import pandas as pd
import pytest
import torch

from onex_distill.evaluation.measures import measure
from onex_distill.evaluation.scored import ConfidenceParams, MetricParams, Scored
from onex_distill.storage.tensor_table import TensorTable

CONFIDENCE = ConfidenceParams(level=0.95, draws=200, groups=4, seed=0)
CSV = """item_id,text,proposition_id,dependency,category_broad,question_natural_language
one,a black cat,1,0,entity,is there a cat?
one,a black cat,2,1,attribute,is the cat black?
two,a dog,1,0,entity,is there a dog?
"""
CASES = [
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a black cat"},
    {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "a dog"},
]
TEXTS = ["a black cat", "a black cat", "a dog", "a dog"]


@pytest.fixture
def make(tmp_path):
    """``make(row, values, texts)``: images of two captions with one row of a network ``net``, and its notes."""

    def build(row: str, values: torch.Tensor, texts: list[str] = TEXTS) -> Scored:
        folder = tmp_path / row
        index = pd.DataFrame({"prompt_row": [0, 0, 1, 1], "text": texts, "noise_seed": range(4), "method": "student"})
        table = TensorTable.write(folder, index, {f"net.{row}": values.float(), "row": torch.arange(4)})
        identity = {"model": "net", "recipe": "plain", "weights_sha256": "abc"}
        (folder / "networks.json").write_text(json.dumps([{"name": "net", "identity": identity, "rows": {}}]))
        (folder / "net.propositions.csv").write_text(CSV)
        (folder / "net.cases.jsonl").write_text("\n".join(map(json.dumps, CASES)))
        (folder / "net.classes.json").write_text(json.dumps({"0": "cat", "1": "dog"}))
        return Scored("student", table)

    return build


def measured(metric: str, scored: Scored, row: str, protocol: str = "corrected") -> pd.DataFrame:
    params = MetricParams(features=f"net.{row}", neighbours=5, protocol=protocol)
    return measure(metric, [scored], None, params, CONFIDENCE).set_index("metric")


# the second image has no cat, so that its black counts for nothing; the last has no dog
ANSWERS = torch.tensor([[0.9, 0.8], [0.1, 0.9], [0.7, -1.0], [0.2, -1.0]])


def test_dpg_is_overall_and_by_category_with_the_name_of_its_judge(make):
    table = measured("dpg", make("yes", ANSWERS), "yes")
    assert table["value"].to_dict() == pytest.approx(
        {
            "dpg_by_net": 100 * (1 + 0 + 1 + 0) / 4,
            "dpg_entity_by_net": 100 * 2 / 4,
            "dpg_attribute_by_net": 100 * 1 / 2,
        }
    )
    assert table["reason"].eq("").all()
    assert table.loc["dpg_by_net", "units"] == [50, 50]


def test_the_published_protocol_loses_what_its_script_loses(make):
    table = measured("dpg", make("yes", ANSWERS), "yes", "published")
    # the first proposition goes, with it the item whose second depends on it; of the other the last image counts
    assert table["value"].to_dict() == pytest.approx({"dpg_by_net": 50, "dpg_entity_by_net": 0})
    assert "published" in table["settings"].iloc[0]


@pytest.mark.parametrize(("metric", "row", "shape"), [("dpg", "yes", (4, 2)), ("geneval_style", "objects", (4, 3, 7))])
def test_images_of_other_captions_have_an_empty_cell(make, metric, row, shape):
    values = torch.zeros(shape)
    values[2:] = torch.nan
    table = measured(metric, make(row, values, [*TEXTS[:2], "a bird", "a bird"]), row)
    assert math.isnan(table.loc[f"{metric}_by_net", "value"])
    assert table.loc[f"{metric}_by_net", "reason"] == "it does not apply to 2 of 4 captions, such as 'a bird'"


def objects(*images: list[int]) -> torch.Tensor:
    """Surely found objects by their class, side by side."""
    rows = torch.full((len(images), 3, 7), -1.0)
    for image, found in enumerate(images):
        for place, label in enumerate(found):
            rows[image, place] = torch.tensor([0.95, label, 50.0 * place, 0, 50.0 * place + 40, 40, -1])
    return rows


def test_geneval_is_the_mean_over_tags(make):
    scored = make("objects", objects([0], [1], [1, 1], [1, 1]))
    table = measured("geneval_style", scored, "objects")
    assert table["value"].to_dict() == {
        "geneval_style_by_net": 0.75,
        "geneval_style_single_object_by_net": 0.5,
        "geneval_style_counting_by_net": 1.0,
    }


def test_a_class_that_the_detector_does_not_know_leaves_the_cell_empty(make):
    scored = make("objects", objects([0], [0], [0], [0]))
    scored.note("net.objects", "classes.json").write_text(json.dumps({"0": "cat"}))
    assert "does not know 'dog'" in measured("geneval_style", scored, "objects")["reason"].iloc[0]


def test_without_a_judge_nothing_is_measured(make):
    none = MetricParams(features=None, neighbours=5)
    assert measure("dpg", [make("yes", ANSWERS)], None, none, CONFIDENCE).empty
