"""``generate``: the generate pipeline with its captions and settings on the command line."""

import tempfile
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.utils import _split_params, env_option
from kedro.framework.session import KedroSession

from onex_distill.cli.errors import OneLineErrors

PIPELINES = {"student": "generate", "dial": "generate_dial"}


def _size(_context: click.Context, _option: click.Parameter, value: str | None) -> list[int] | None:
    """``HEIGHTxWIDTH`` or one number for both."""
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise click.BadParameter(f"{value!r} is no size in pixels; write 1024, or 768x1024 for height and width")
    return [int(sides[0]), int(sides[-1])]


@click.command(name="generate", cls=OneLineErrors)
@click.argument("texts", nargs=-1)
@click.option("--captions", type=click.Path(path_type=Path), help="A captions file instead of texts.")
@click.option("--student", type=click.Choice(list(PIPELINES)), default="student", show_default=True)
@click.option("--nfe", type=float, help="A budget of evaluations that the student was trained for.")
@click.option("--steps", type=int, help="Steps, if not those that the student was trained for.")
@click.option("--seed", type=int, help="Of all images; an image's noise follows from it, its caption and its number.")
@click.option("--images", type=int, help="Images per caption.")
@click.option("--size", callback=_size, help="Pixels: 1024, or HEIGHTxWIDTH.")
@click.option("--teacher", nargs=2, type=float, metavar="STEPS GUIDANCE", help="The teacher beside the student.")
@env_option
@click.option("--params", default="", callback=_split_params, help="As of `kedro run`, for example data=FOLDER.")
def generate(
    texts: tuple[str, ...],
    captions: Path | None,
    student: str,
    env: str | None,
    params: dict[str, Any],
    teacher: tuple[float, float] | None,
    **settings: Any,
) -> None:
    """Images of TEXTS, or of a captions file, with the newest exported student.

    \f

    Args:
        texts: What images show.
        captions: A file of captions; None where texts are given.
        student: Which of the exported students.
        env: The Kedro environment; None for the default.
        params: Runtime parameters.
        teacher: Steps and guidance scale of the teacher beside the student; None for none.
        **settings: Settings of the generation; None leaves the configured one.

    Raises:
        ValueError: Both texts and a file are given, or a text is empty.
    """
    if texts and captions:
        raise ValueError(f"both texts and the captions file {captions} are given; give one of them")
    if any(not text.strip() for text in texts):
        raise ValueError("a text is empty; say what the image shows")
    names = {"steps": "num_inference_steps", "images": "images_per_caption"}
    given = {names.get(name, name): value for name, value in settings.items() if value is not None}
    if teacher:
        given["teacher"] = {"num_inference_steps": int(teacher[0]), "guidance_scale": teacher[1]}
    with tempfile.TemporaryDirectory() as folder:
        if texts:
            captions = Path(folder) / "captions.txt"
            captions.write_text("\n".join(" ".join(text.split()) for text in texts), encoding="utf-8")
        paths = {"generation_captions": str(captions.absolute())} if captions else {}
        runtime = {**params, **paths, "generation": {**params.get("generation", {}), **given}}
        session = KedroSession.create(env=env, runtime_params=runtime)
        with session:
            session.run(pipeline_names=[PIPELINES[student]])
