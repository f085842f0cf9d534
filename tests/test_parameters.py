import pytest
from pydantic import PositiveInt, ValidationError

from onex_distill.parameters import ParameterError, Params, Seed, unknown_name


class Inner(Params):
    """A nested group."""

    num_inference_steps: PositiveInt = 2


class Outer(Params):
    """A group with a group inside."""

    batch_size: PositiveInt
    inner: Inner = Inner()


def test_parameters_cannot_be_changed():
    params = Outer(batch_size=4)
    with pytest.raises(ValidationError, match="frozen"):
        params.batch_size = 5
    assert params.batch_size == 4


def test_equal_parameters_are_interchangeable():
    assert Outer(batch_size=4) == Outer.model_validate({"batch_size": 4, "inner": {"num_inference_steps": 2}})
    assert len({Inner(), Inner(num_inference_steps=2), Inner(num_inference_steps=3)}) == 2


def test_parameters_survive_a_dump():
    params = Outer(batch_size=4, inner=Inner(num_inference_steps=8))
    assert Outer.model_validate(params.model_dump()) == params
    assert Outer.model_validate_json(params.model_dump_json()) == params


def test_a_mistyped_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValidationError, match=r"unknown parameter 'batchsize'; did you mean 'batch_size'\?"):
        Outer(batch_size=4, batchsize=5)


def test_a_mistyped_name_inside_a_group_is_found_too():
    with pytest.raises(ValidationError, match=r"did you mean 'num_inference_steps'\?") as error:
        Outer(batch_size=4, inner={"num_inference_step": 2})
    assert error.value.errors()[0]["loc"] == ("inner",)


def test_a_name_like_no_other_is_answered_with_all_known_ones():
    with pytest.raises(ValidationError, match="unknown parameter 'xyz'; known: batch_size, inner"):
        Outer(batch_size=4, xyz=1)


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", None])
def test_a_value_of_the_wrong_kind_is_refused(value):
    with pytest.raises(ValidationError, match="batch_size"):
        Outer(batch_size=value)


def test_something_that_is_no_group_is_refused():
    with pytest.raises(ParameterError, match="valid dictionary"):
        Outer.model_validate(7)


def test_a_suggestion_is_one_line_and_does_not_depend_on_the_order():
    forwards = unknown_name("method", "student", ["students", "teacher"])
    assert forwards == unknown_name("method", "student", ["teacher", "students"])
    assert forwards == "unknown method 'student'; did you mean 'students'?"
    assert unknown_name("method", "qqq", ["b", "a"]) == "unknown method 'qqq'; known: a, b"


@pytest.mark.parametrize("seed", [-1, 2**62, 2**64])
def test_a_seed_that_no_generator_takes_names_its_parameter(seed):
    class Sampling(Params):
        seed: Seed

    assert Sampling(seed=2**62 - 1).seed == 2**62 - 1
    with pytest.raises(ValidationError, match="seed\n"):
        Sampling(seed=seed)


def test_what_is_read_is_refused_in_one_line_that_names_every_fault():
    with pytest.raises(ParameterError) as error:
        Outer.model_validate({"batch_size": 0, "inner": {"num_inference_steps": "many"}})
    first, second = str(error.value).split("; ")
    assert first == "batch_size Input should be greater than 0 (got 0)"
    assert second.startswith("inner.num_inference_steps Input should be a valid integer")
    assert second.endswith("(got 'many')")
