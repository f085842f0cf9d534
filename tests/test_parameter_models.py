"""Every parameter model of the project, with random values."""

import inspect
import pkgutil
import types
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import onex_distill
from onex_distill.datasets.captions import CaptionFilters
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_one.params import ImportanceParams, StageOneParams
from onex_distill.distill.stage_one.trainer import StageOneJob
from onex_distill.distill.stage_two.backbones import TimmParams
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.anything.params import ScoreParams
from onex_distill.evaluation.features import ScorersParams
from onex_distill.evaluation.scorers.weights import File, Source
from onex_distill.evaluation.studies.ablation_params import AblationParams
from onex_distill.evaluation.studies.params import BandSearchParams
from onex_distill.evaluation.studies.recovery_params import RecoveryParams
from onex_distill.parameters import Params
from onex_distill.storage.records import NodeRecord, RunRecord


def subclasses(base: type) -> set[type]:
    return {base}.union(*map(subclasses, base.__subclasses__()))


def models() -> list[type[Params]]:
    """All that can be made, from every module of the package."""
    for module in pkgutil.walk_packages(onex_distill.__path__, "onex_distill."):
        import_module(module.name)
    others = {NodeRecord, RunRecord, CaptionFilters}  # records of runs, and options of the catalog
    found = [m for m in subclasses(Params) - {Params, *others} if m.__module__.startswith("onex_distill.")]
    return sorted((m for m in found if not inspect.isabstract(m)), key=lambda m: (m.__module__, m.__name__))


MODELS = models()
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def values_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy:
    """Values that a field takes."""
    if inspect.isclass(annotation) and issubclass(annotation, Params):
        return instances(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values_of, arguments))
    if origin is Annotated:
        own = [bound for argument in arguments[1:] for bound in getattr(argument, "metadata", [argument])]
        return values_of(arguments[0], (*own, *metadata))
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if annotation is Path:
        return st.text(min_size=1, max_size=20).map(Path)
    if annotation is float:
        return st.from_type(Annotated[float, *metadata] if metadata else float).filter(lambda x: abs(x) < float("inf"))
    return st.from_type(Annotated[annotation, *metadata] if metadata else annotation)


def agreeing_compute(fields: dict[str, Any]) -> dict[str, Any]:
    least = {"none": {"processes": 1, "machines": 1}, "hsdp": {"processes": 2, "machines": 3}}
    alone = least.get(fields["sharding"], {})
    offload = fields["cpu_offload"] and fields["sharding"] in ("fsdp2", "hsdp")
    return fields | alone | {"cpu_offload": offload, "rendezvous": f"host:{len(fields['rendezvous'])}"}


def agreeing_importance(fields: dict[str, Any]) -> dict[str, Any]:
    if isinstance(fields["curve"], str):
        return fields
    knots = {position: 1 + abs(density) for position, density in fields["curve"]}
    return fields | {"curve": tuple(sorted(knots.items())) if len(knots) > 1 else "c"}


def agreeing_stage_one(fields: dict[str, Any]) -> dict[str, Any]:
    updates = min(fields["fake_updates"], fields["loop"].steps)
    gan = fields["latent_gan"] if fields["parametrization"] == "full" else None
    steps = fields["num_inference_steps"] or 2
    regression = fields["regression"] if isinstance(steps, int) or len(steps) == 1 else None
    agreed = {"num_inference_steps": steps, "fake_updates": updates, "latent_gan": gan, "regression": regression}
    return fields | agreed


def agreeing_stage_one_job(fields: dict[str, Any]) -> dict[str, Any]:
    needs = {"latent_gan": "real_latents", "regression": "trajectories"}
    changes = {name: None for name, table in needs.items() if fields[table] is None}
    return fields | {"params": fields["params"].model_copy(update=changes)}


def agreeing_adversarial(fields: dict[str, Any]) -> dict[str, Any]:
    weights = ("adversarial_weight", "perceptual_weight", "output_weight", "feature_weight")
    return fields if any(fields[name] for name in weights) else fields | {"adversarial_weight": 1.0}


def agreeing_cotraining(fields: dict[str, Any]) -> dict[str, Any]:
    sets = tuple(tuple((4 * i + 1, 4 * i + 3) for i in range(len(bands))) for bands in fields["candidates"])
    fields = agreeing_adversarial(fields) | {"candidates": sets if any(sets) else (((1, 3),),)}
    reusing = fields["num_inference_steps"] > 1 and fields["compensation_function"].kind != "identity"
    return fields if reusing else fields | {"fitting_steps": 0}


def agreeing_recovery(fields: dict[str, Any]) -> dict[str, Any]:
    alone, steps = fields["alone"], fields["alone"].num_inference_steps
    one_set = {"candidates": alone.candidates[:1] if alone.candidates[0] else (((1, 3),),)}
    warmup = {"compensation_warmup": alone.loop.steps}
    same = {"num_inference_steps": steps}
    return {
        "seeds": (*fields["seeds"], 1, 2),
        "alone": alone.model_copy(update=one_set | warmup),
        "cotraining": fields["cotraining"].model_copy(update=one_set | same | {"fitting_steps": 0}),
        "uncached": fields["uncached"].model_copy(update=same),
    }


def agreeing_scorers(fields: dict[str, Any]) -> dict[str, Any]:
    distinct = {network.name: network for network in fields["networks"]}
    return fields | {"networks": tuple(distinct.values())}


def agreeing_ablation(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"training": fields["training"].model_copy(update={"select": "last"})}


def agreeing_search(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"nfe": fields["nfe"] or 1.5, "nfe_flops": None}


def agreeing_source(fields: dict[str, Any]) -> dict[str, Any]:
    files = fields["files"] or (File(name="f"),)
    pinned = fields["hub"] == "local" or bool(fields["revision"])
    hashed = fields["hub"] != "url" or all(file.download()[1] for file in files)
    return fields | {"hub": fields["hub"] if pinned and hashed else "local", "files": files}


def agreeing_timm(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"levels": fields["levels"] or (0,)}


def agreeing_score(fields: dict[str, Any]) -> dict[str, Any]:
    images = tuple(Path(f"images-{number}") for number in range(len(fields["images"])))
    named = [one.model_copy(update={"name": f"pipeline-{n}"}) for n, one in enumerate(fields["pipelines"])]
    return fields | {"captions": Path("captions.txt"), "images": images, "pipelines": tuple(named)}


def with_whole_batches(fields: dict[str, Any]) -> dict[str, Any]:
    """A job's parameters without micro-batches, which would have to divide the rows of a rank."""
    params = fields.get("params")
    if params is None or "micro_batch_size" not in type(params).model_fields:
        return fields
    return fields | {"params": params.model_copy(update={"micro_batch_size": None})}


AGREEING = {
    AblationParams: agreeing_ablation,
    ScorersParams: agreeing_scorers,
    BandSearchParams: agreeing_search,
    ComputeParams: agreeing_compute,
    ImportanceParams: agreeing_importance,
    StageOneJob: agreeing_stage_one_job,
    StageOneParams: agreeing_stage_one,
    AdversarialParams: agreeing_adversarial,
    CotrainingParams: agreeing_cotraining,
    RecoveryParams: agreeing_recovery,
    ScoreParams: agreeing_score,
    Source: agreeing_source,
    TimmParams: agreeing_timm,
}


@cache
def instances(model: type[Params]) -> st.SearchStrategy[Params]:
    """Random valid instances; where the fields of a model may contradict each other, they are made to agree."""
    fields = {name: values_of(field.annotation, tuple(field.metadata)) for name, field in model.model_fields.items()}
    agree = AGREEING.get(model, dict)
    return st.fixed_dictionaries(fields).map(lambda drawn: model(**with_whole_batches(agree(drawn))))


def test_the_models_are_found():
    names = {model.__name__ for model in MODELS}
    assert {"StageOneParams", "LoopParams", "ComputeParams", "MethodParams", "TeacherFolder", "CotrainingJob"} <= names
    assert "Job" not in names


@every_model
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_random_valid_values_survive_json(model, data):
    params = data.draw(instances(model))
    again = model.model_validate_json(params.model_dump_json())
    assert again == params
    assert type(again) is model
    assert hash(again) == hash(params)
    assert model.model_validate(params.model_dump(mode="json")) == params


def misspelt(name: str, place: int, letter: str, how: str) -> str:
    place %= len(name)
    if how == "left out":
        return name[:place] + name[place + 1 :]
    if how == "doubled":
        return name[:place] + name[place] + name[place:]
    if how == "swapped":
        return name[:place] + name[place : place + 2][::-1] + name[place + 2 :]
    return name[:place] + letter + name[place + 1 :]


MISTAKES = st.tuples(
    st.integers(0, 40), st.sampled_from("abcxyz_9"), st.sampled_from(["left out", "doubled", "swapped", "replaced"])
)


@every_model
@settings(deadline=None, max_examples=15)
@given(data=st.data(), mistake=MISTAKES)
def test_an_unknown_name_is_refused_with_a_suggestion(model, data, mistake):
    name = data.draw(st.sampled_from(sorted(model.model_fields)))
    wrong = misspelt(name, *mistake)
    assume(wrong not in model.model_fields)
    params = dict(data.draw(instances(model)))
    with pytest.raises(ValidationError) as error:
        model(**{**params, wrong: params[name]})
    message = error.value.errors()[0]["msg"]
    assert f"unknown parameter {wrong!r}" in message
    assert "\n" not in message
    close = get_close_matches(wrong, sorted(model.model_fields), n=1)
    if len(name) > 4:
        assert close, wrong
    known = ", ".join(sorted(model.model_fields))
    assert message.endswith(f"did you mean {close[0]!r}?" if close else f"known: {known}")


def required(model: type[Params]) -> list[str]:
    """The fields without a default."""
    return sorted(name for name, field in model.model_fields.items() if field.is_required())


@pytest.mark.parametrize("model", list(filter(required, MODELS)), ids=lambda model: model.__name__)
@settings(deadline=None, max_examples=5)
@given(data=st.data())
def test_a_name_that_is_left_out_is_refused(model, data):
    params = dict(data.draw(instances(model)))
    name = data.draw(st.sampled_from(required(model)))
    del params[name]
    with pytest.raises(ValidationError, match=name):
        model(**params)


@every_model
@settings(deadline=None, max_examples=5)
@given(data=st.data())
def test_no_value_can_be_changed(model, data):
    params = data.draw(instances(model))
    name = data.draw(st.sampled_from(sorted(model.model_fields)))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(params, name, getattr(params, name))


def outside(bound: Any) -> float | None:
    """A value just outside a bound; None for what is no bound."""
    if isinstance(bound, Gt):
        return bound.gt
    if isinstance(bound, Lt):
        return bound.lt
    if isinstance(bound, Ge):
        return bound.ge - 1
    return bound.le + 1 if isinstance(bound, Le) else None


BOUNDED = [
    pytest.param(model, name, outside(bound), id=f"{model.__name__}.{name}={outside(bound)}")
    for model in MODELS
    for name, field in model.model_fields.items()
    for bound in field.metadata
    if outside(bound) is not None
]


@pytest.mark.parametrize(("model", "name", "value"), BOUNDED)
@settings(deadline=None, max_examples=3)
@given(data=st.data())
def test_a_value_outside_its_range_is_refused_by_name(model, name, value, data):
    params = dict(data.draw(instances(model)))
    with pytest.raises(ValidationError) as error:
        model(**{**params, name: value})
    assert error.value.errors()[0]["loc"] == (name,)


FLOATS = [(model, name) for model in MODELS for name, field in model.model_fields.items() if field.annotation is float]


def takes(model: type[Params], name: str, value: float) -> bool:
    """Whether a field takes a value, whatever the others are."""
    try:
        model(**{name: value})
    except ValidationError as error:
        return (name,) not in [problem["loc"] for problem in error.errors()]
    return True


def test_numbers_that_are_not_finite_are_refused():
    values = float("inf"), float("nan")
    assert not [(model.__name__, name) for model, name in FLOATS if any(takes(model, name, bad) for bad in values)]


@pytest.mark.parametrize("budget", [{"nfe": 1.7, "nfe_flops": 1.7}, {"nfe": None, "nfe_flops": None}])
def test_a_band_search_has_one_budget(budget):
    rest = {"num_inference_steps": 2, "max_bands": 1, "images": 1, "measured": 1, "fixed": [], "random": 0, "seed": 0}
    with pytest.raises(ValidationError, match=r"either nfe or nfe_flops, got .*; set one of them") as error:
        BandSearchParams(**rest, **budget)
    assert "\n" not in error.value.errors()[0]["msg"]
