"""Every option of the parameters is used by a configuration that is shipped, or by conf/choices, which a test runs."""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from onex_distill.context import DEFAULT
from onex_distill.parameters import Params
from support import PROJECT

Option = tuple[str, str, Any]  # model, field, value

LPIPS = ("lpips256", "lpips512")  # sizes of images
CHOICES = ("choices", "choices_plain")

ELSEWHERE: dict[tuple[str, str], tuple[Any, ...]] = {  # what no small run on a processor shows
    # of a GPU, or of several machines: tests/engine
    ("ComputeParams", "attention"): ("cudnn", "flash"),
    ("ComputeParams", "compile"): ("blocks",),
    ("ComputeParams", "cpu_offload"): (True,),
    ("ComputeParams", "sharding"): ("hsdp",),
    # of weights that are not shipped: tests/evaluation/scorers, tests/metrics/test_dpg, tests/distill/stage_two
    ("ClipParams", "preparation"): ("clean299", "crop299", "hps224_unantialiased", "square224", "square384", *LPIPS),
    ("LpipsParams", "preparation"): ("lpips256",),
    ("LpipsParams", "net"): ("vgg",),
    ("MetricParams", "protocol"): ("published",),
    ("Source", "hub"): ("modelscope",),
    ("TimmParams", "size"): ("some",),
    ("TimmParams", "weights"): ("some",),
    # a fourth kind, in place of the three that run: tests/cache
    ("FunctionParams", "kind"): ("linear",),
    # each loss in the one of the two trainings that has not the other
    ("AdversarialParams", "adversarial_loss"): ("relativistic",),
    ("CotrainingParams", "adversarial_loss"): ("hinge",),
    # the dial's sets of bands: tests/pipelines/test_pareto
    ("MethodParams", "nfe"): ("some",),
    # of a user's own images: tests/pipelines/test_score, tests/evaluation/test_anything
    ("ScoreParams", "captions"): ("some",),
    ("ScoreParams", "reference"): ("some",),
    ("ScoreParams", "skip_unreadable"): (True,),
}


def used(value: Any) -> Iterator[tuple[type[Params], str, Any]]:
    """Model, field and value of everything that is set."""
    if isinstance(value, Params):
        for name, item in value:
            yield type(value), name, item
            yield from used(item)
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from used(item)


def leaves(annotation: Any) -> Iterator[Any]:
    """The literals, None and models of an annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from arguments
    elif origin is Annotated:
        yield from leaves(arguments[0])
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from leaves(argument)
    elif annotation in (bool, type(None)):
        yield from (True, False) if annotation is bool else (None,)
    else:
        yield annotation


def offered(model: type[Params]) -> set[Option]:
    """The choices of a model: literals, yes and no, and of an optional setting none and some."""
    found: set[Option] = set()
    for name, field in model.model_fields.items():
        for leaf in leaves(field.annotation):
            if isinstance(leaf, str | bool) or leaf is None:
                found.add((model.__name__, name, leaf))
        if None in leaves(field.annotation):
            found.add((model.__name__, name, "some"))
    return found


def settings_of(env: str) -> tuple[set[type[Params]], set[Option]]:
    """The models that the pipelines of an environment fill, and what it sets in them."""
    with KedroSession.create(PROJECT, env=env) as session:
        context = session.load_context()
        context._pipelines_to_validate = [name for name in pipelines if name != DEFAULT]
        found = list(used(context.params))
    chosen = {(model.__name__, name, item) for model, name, item in found if isinstance(item, str | bool | None)}
    some = {(model.__name__, name, "some") for model, name, item in found if item is not None}
    return {model for model, _, _ in found}, chosen | some


def environments() -> list[str]:
    """All that can be run."""
    files = [path for path in PROJECT.glob("conf/*/globals.yml") if "shared: true" not in path.read_text()]
    return sorted(path.parent.name for path in files)


def test_every_option_is_used_by_a_configuration():
    bootstrap_project(PROJECT)
    found = {env: settings_of(env) for env in environments()}
    options = set().union(*(offered(model) for models, _ in found.values() for model in models))
    chosen = set().union(*(options for _, options in found.values()))
    assert len(options) > 160
    elsewhere = {(model, name, value) for (model, name), values in ELSEWHERE.items() for value in values}
    assert sorted(map(str, options - chosen)) == sorted(map(str, elsewhere))


@pytest.mark.slow
@pytest.mark.parametrize("env", CHOICES)
def test_choices_run_whole(tmp_path, env):
    bootstrap_project(PROJECT)

    def run(*names: str, **options: Any) -> None:
        with KedroSession.create(PROJECT, env=env, runtime_params={"data": str(tmp_path)}) as session:
            session.run(pipeline_names=list(names), **options)

    run("distill")
    for name in ("metrics.csv", "report.html"):
        assert len(list((tmp_path / "08_reporting" / name).glob(f"*/{name}"))) == 1
    if env == "choices":  # the other leaves these options as they are
        run("pareto", to_nodes=["plot_band_search"])
        run("generate")
        run("teacher")
