"""Time a 1.67-evaluation student against its teacher's 28 guided steps, in one run, on the same random model.

The model has Stable Diffusion 3's shape (24 blocks, 8 of them cached); sizes, threads and device are arguments. Writes
a table to docs/benchmarks/sampling.md and ends with one JSON line, where a ratio is the lowest of the batch sizes.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch
from diffusers import StableDiffusion3Pipeline

from onex_distill import FractionalStableDiffusion3Pipeline
from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import CachePlan, effective_nfe, reuse_after_first
from onex_distill.engine.randomness import seeded
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.metrics.cost import flops_of
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import sample_latents
from onex_distill.models.text import encode_prompts
from onex_distill.models.velocity import predict_velocity
from onex_distill.pretraining import architecture as tiny

REPORT = Path(__file__).parents[1] / "docs/benchmarks/sampling.md"
TEACHER_STEPS, GUIDANCE, SHIFT = 28, 7.0, 3.0
PROMPT = "a photo of a cat"
PAIRS = 20  # of forwards, per repeat
MEASURES = ("transformer", "image")
Ratios = list[float]
Pairs = dict[str, Ratios]


def parse_arguments() -> argparse.Namespace:
    """Sizes, repeats and where to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--band", type=int, nargs=2, default=(2, 10), help="cached blocks, a half-open range")
    parser.add_argument("--heads", type=int, default=6, help="attention heads of width 64; the model is 64 heads wide")
    parser.add_argument("--latent-size", type=int, default=48, help="height and width of the latents")
    parser.add_argument("--tokens", type=int, default=12, help="text tokens of CLIP, and again of T5")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 8))
    parser.add_argument(
        "--repeats", type=int, default=3, help="teacher calls per batch size; 20 times it, pairs of forwards"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--report", type=Path, default=REPORT)
    return parser.parse_args()


def build_student(arguments: argparse.Namespace) -> FractionalStableDiffusion3Pipeline:
    """A random student with text encoders and autoencoder; the teacher is the same without compensation."""
    params = tiny.ArchitectureParams(
        latent_size=arguments.latent_size,
        latent_channels=16,
        autoencoder_channels=(32, 64, 64, 64),
        num_layers=arguments.blocks,
        attention_head_dim=64,
        num_attention_heads=arguments.heads,
        patch_size=2,
        qk_norm=None,
        dual_attention_layers=(),
        clip_dim=64,
        t5_dim=256,
        text_layers=6,
        max_tokens=arguments.tokens,
        shift=SHIFT,
    )
    tokenizers = tiny.build_tokenizers(PROMPT.split(), arguments.tokens)
    with seeded(0):
        clip, clip_2, t5 = tiny.build_text_encoders(params, tokenizers[0], tokenizers[2])
        autoencoder = tiny.build_autoencoder(params)
        autoencoder.register_to_config(shift_factor=0.0, scaling_factor=1.0)
        pipeline = FractionalStableDiffusion3Pipeline(
            transformer=tiny.build_transformer(params),
            scheduler=tiny.build_scheduler(params),
            vae=autoencoder,
            text_encoder=clip,
            tokenizer=tokenizers[0],
            text_encoder_2=clip_2,
            tokenizer_2=tokenizers[1],
            text_encoder_3=t5,
            tokenizer_3=tokenizers[2],
            compensation=Compensation(64 * arguments.heads, [(tuple(arguments.band),)], "residual_mlp"),
            max_sequence_length=arguments.tokens,
        )
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(arguments.device, getattr(torch, arguments.dtype))


def teacher_of(student: FractionalStableDiffusion3Pipeline) -> StableDiffusion3Pipeline:
    """The plain pipeline of the same parts."""
    teacher = StableDiffusion3Pipeline(**{k: v for k, v in student.components.items() if k != "compensation"})
    teacher.set_progress_bar_config(disable=True)
    return teacher


def now() -> float:
    """Seconds, once everything that was started has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def time_call(pipeline: StableDiffusion3Pipeline, call: Callable[[], object]) -> tuple[float, float]:
    """Seconds inside the transformer, and of the whole call with text encoding and decoding."""
    spans: list[float] = []
    handles = [
        pipeline.transformer.register_forward_pre_hook(lambda *_: spans.append(-now()), prepend=True),
        pipeline.transformer.register_forward_hook(lambda *_: spans.append(now())),
    ]
    began = now()
    call()
    whole = now() - began
    for handle in handles:
        handle.remove()
    return sum(spans), whole


def time_calls(student: FractionalStableDiffusion3Pipeline, batch: int, repeats: int) -> Pairs:
    """Seconds per image of teacher and student, called in turn."""
    teacher, prompts = teacher_of(student), [PROMPT] * batch
    length = student.config.max_sequence_length
    calls: dict[str, tuple[StableDiffusion3Pipeline, Callable[[int], object]]] = {
        "student": (student, lambda steps: student(prompts, num_inference_steps=steps, output_type="pt")),
        "teacher": (
            teacher,
            lambda steps: teacher(
                prompts,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                max_sequence_length=length,
                output_type="pt",
            ),
        ),
    }
    seconds: Pairs = {f"{who} {what}": [] for who in calls for what in MEASURES}
    for _, call in calls.values():
        call(2)  # warm up
    for _ in range(repeats):
        for who, (pipeline, call) in calls.items():
            steps = TEACHER_STEPS if who == "teacher" else 2
            # the student is called more often, so that its short time is as certain
            runs = [time_call(pipeline, lambda: call(steps)) for _ in range(1 if who == "teacher" else 5)]  # noqa: B023
            seconds[f"{who} transformer"].append(median(run[0] for run in runs) / batch)
            seconds[f"{who} image"].append(median(run[1] for run in runs) / batch)
    return seconds


def encode(student: FractionalStableDiffusion3Pipeline, batch: int) -> tuple[torch.Tensor, PromptBatch]:
    """Noise and prompt embeddings as the transformer takes them."""
    embeds, pooled = encode_prompts(student, [PROMPT] * batch, student.config.max_sequence_length)
    transformer = student.transformer
    prompts = PromptBatch(embeds.to(transformer.device), pooled.to(transformer.device))
    size = transformer.config.sample_size
    noise = torch.randn((batch, 16, size, size), generator=torch.Generator().manual_seed(0))
    return noise.to(transformer.device, transformer.dtype), prompts


@torch.no_grad()
def count_flops(student: FractionalStableDiffusion3Pipeline, plan: CachePlan) -> float:
    """Operations of the teacher's evaluations over the student's, its compensation included."""
    noise, prompts = encode(student, 2)
    guided_step = flops_of(lambda: predict_velocity(student.transformer, noise, 1.0, prompts))
    noise, prompts = encode(student, 1)
    cache = BlockCache(student.transformer, plan, student.compensation).attach()
    sigmas = step_sigmas(2, SHIFT)
    sampled = flops_of(
        lambda: sample_latents(student.transformer, noise, sigmas, prompts, before_step=cache.begin_step)
    )
    cache.detach()
    return TEACHER_STEPS * guided_step / sampled


def in_pairs(plain: Callable[[], object], other: Callable[[], object], pairs: int) -> Ratios:
    """Time of one call over that of another, called in turn, order swapped; the first pair warms up."""
    ratios = []
    for pair in range(1 + pairs):
        seconds = {}
        for call in (plain, other) if pair % 2 else (other, plain):
            began = now()
            call()
            seconds[call] = now() - began
        ratios.append(seconds[other] / seconds[plain])
    return ratios[1:]


@torch.no_grad()
def time_hooks(student: FractionalStableDiffusion3Pipeline, plan: CachePlan, pairs: int) -> Ratios:
    """Time of a forward with the cache attached but inactive over that of the plain model."""
    noise, prompts = encode(student, 1)
    cache = BlockCache(student.transformer, plan, student.compensation)

    def plain() -> None:
        predict_velocity(student.transformer, noise, 1.0, prompts)

    def attached() -> None:
        cache.attach()
        plain()
        cache.detach()

    return in_pairs(plain, attached, pairs)


@torch.no_grad()
def time_rows(student: FractionalStableDiffusion3Pipeline, batch: int, pairs: int) -> Ratios:
    """Time of a forward of twice the rows, as a guided teacher takes it, over that of a batch."""
    once, twice = encode(student, batch), encode(student, 2 * batch)
    network = student.transformer
    return in_pairs(
        lambda: predict_velocity(network, once[0], 1.0, once[1]),
        lambda: predict_velocity(network, twice[0], 1.0, twice[1]),
        pairs,
    )


def spread(values: Ratios, digits: int = 2) -> str:
    """Median, and the quartiles (of two values, the extremes)."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def measure_batch(student: FractionalStableDiffusion3Pipeline, batch: int, repeats: int) -> tuple[list[str], Pairs]:
    """Cells of the table, and the ratios of teacher to student in every repeat."""
    seconds = time_calls(student, batch, repeats)
    pairs = {
        what: [t / s for t, s in zip(seconds[f"teacher {what}"], seconds[f"student {what}"], strict=True)]
        for what in MEASURES
    }
    times = [spread(seconds[f"{who} {what}"], 4) for what in MEASURES for who in ("teacher", "student")]
    return [str(batch), *times, *(spread(pairs[what]) for what in MEASURES)], pairs


def write_report(
    arguments: argparse.Namespace, rows: list[list[str]], parameters: int, nfe: float, flops_ratio: float, hooks: Ratios
) -> None:
    """The report as markdown, to the terminal and to its file."""
    header = ["batch", *(f"{who} {what}, s" for what in MEASURES for who in ("teacher", "student"))]
    header += [*(f"{what} ratio" for what in MEASURES), "share of FLOPs ratio", "two rows' time by one row's"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
    first, last = arguments.band[0], arguments.band[1] - 1
    side, text_tokens = arguments.latent_size, 2 * arguments.tokens
    text = f"""# Sampling time

`python benchmarks/sampling.py` on {arguments.device} ({platform.machine()}, {arguments.threads} threads), in
{arguments.dtype}, torch {torch.__version__}. A random model of Stable Diffusion 3's shape: {arguments.blocks} blocks of
width {64 * arguments.heads}, {parameters / 1e6:.0f} million parameters, latents {side} x {side}, {text_tokens} text
tokens. The teacher takes {TEACHER_STEPS} guided steps; the student {nfe:.2f} evaluations, blocks {first} to {last}
cached, with its compensation. Seconds per image, median and quartiles of {arguments.repeats} calls in turn; an image is
text encoding, transformer and decoding, and the first and the last have small networks here.

{table}

By block count the ratio is at most {2 * TEACHER_STEPS / nfe:.1f}, by FLOPs, compensation included, {flops_ratio:.2f}.
A guided teacher evaluates two rows per image at once, which share what a call pays once (reading the weights,
conditioning, launching operations): where two take less than twice the time of one, the ratio stays as far below that
of FLOPs.
A cache that is attached but inactive costs {spread([100 * (ratio - 1) for ratio in hooks])} % of a forward
({len(hooks)} pairs).
"""
    print(text)
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    arguments.report.write_text(text)


def main() -> None:
    """Measure, write the report, print the JSON line."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    student = build_student(arguments)
    plan = reuse_after_first([arguments.band], 2)
    flops_ratio = count_flops(student, plan)
    rows, medians = [], []
    for batch in arguments.batches:
        cells, pairs = measure_batch(student, batch, arguments.repeats)
        medians.append({what: median(values) for what, values in pairs.items()})
        two_rows = spread(time_rows(student, batch, PAIRS * arguments.repeats // batch))
        rows.append([*cells, f"{medians[-1]['transformer'] / flops_ratio:.1%}", two_rows])
    hooks = time_hooks(student, plan, PAIRS * arguments.repeats)
    parameters = sum(parameter.numel() for parameter in student.transformer.parameters())
    write_report(arguments, rows, parameters, effective_nfe(plan, arguments.blocks), flops_ratio, hooks)
    result = {f"{what}_ratio": round(min(ratios[what] for ratios in medians), 3) for what in MEASURES}
    print(json.dumps({**result, "flops_ratio": round(flops_ratio, 3), "hook_overhead": round(median(hooks) - 1, 5)}))


if __name__ == "__main__":
    main()
