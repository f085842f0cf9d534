"""One step of stage one: the published order of work against this project's, on the same model, batch and draws.

    python benchmarks/stage_one_step.py            # prints a table, ends with one JSON line
    python benchmarks/stage_one_step.py --write    # docs/benchmarks/stage_one_step.md as well

The published loop rolls every sample out over all its steps, repeats the trained step with gradient, runs the
unconditional pass on every row and checkpoints gradients: 13 forward-equivalents for two steps. The loops take turns
in one process; a forward-equivalent is the network on the whole batch once, a backward counts as two.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_one.roles import FAKE_SCORE, STUDENT, FullCopies, SharedBackbone
from onex_distill.distill.stage_one.trainer import Matched, StageOneJob, StageOneTrainer, fake_score_loss
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.randomness import seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.flow.conversions import euler_step, renoise, velocity_to_x0
from onex_distill.flow.guidance import guided_velocity, is_guided
from onex_distill.flow.sigma_draws import Window
from onex_distill.losses.distribution_matching import distribution_matching_loss
from onex_distill.models.lora import LoraParams, add_lora
from onex_distill.models.prompts import read_prompts
from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.velocity import predict_velocity
from onex_distill.pretraining.architecture import ArchitectureParams, build_transformer
from onex_distill.recipe import RecipeConfigLoader
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TensorTable

PROJECT = Path(__file__).parents[1]
TOKENS, PROMPTS = 20, 64
BACKWARD = 2  # forward-equivalents
Update = Callable[[int], Any]

PUBLISHED = {"sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "joint_attention_dim": 4096}
PUBLISHED |= {"pooled_projection_dim": 2048, "pos_embed_max_size": 192, "attention_head_dim": 64}
SD3_MEDIUM = {**PUBLISHED, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
SD35_LARGE: dict[str, Any] = {**PUBLISHED, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432}
SD35_LARGE |= {"qk_norm": "rms_norm"}

TEMPLATE = """# One step of stage one

Written by `python benchmarks/stage_one_step.py --write`. Batch {batch_size}, two steps, float32, {device};
the loops take turns for {rounds} rounds in one process.

{loops}

`published` is the order of work of the published configuration, gradient checkpointing included. `forwards` is in
forward-equivalents per step: a backward counts as two, a checkpointed forward as one more. `seconds` is the median,
`spread` the standard deviation over rounds; `peak_mib` what a step allocates beyond the state. `difference` is the
largest relative difference of losses and gradient norms from the published loop in the first step, on the same draws.
The ratios of the JSON line are published over ours, without checkpointing.

## State: weights, gradients, AdamW's moments

Measured after one step on a random model of {count:.0f} million parameters, bf16 autocast, adapters of rank 16:
three copies {full:.0f} MiB, shared backbone {shared:.0f} MiB, **{ratio:.1f} times less**.

Computed for N parameters and A of one set of adapters. Three copies: 3 x 4 N of weights, 2 x 4 N of gradients and
2 x 8 N of moments, 36 N bytes. Shared backbone: 2 N frozen in bf16, and twice 4 A + 4 A + 8 A for the adapters.
Without autocast the backbone stays in float32, 4 N: 8.3 and 6.8 times less for SD3-Medium at ranks 16 and 64.

{computed}
"""


class Loop(NamedTuple):
    """One order of work: its trainer, its update, and whether the forward of a graph runs a second time."""

    trainer: StageOneTrainer
    update: Update
    checkpointed: bool


def published_update(trainer: StageOneTrainer, step: int) -> dict[str, float]:
    """The published order of work, with the draws and the losses of ``StageOneTrainer.update``."""
    drawn, levels, roles = trainer.draws.draw(step), trainer.draws.levels(step), trainer.roles
    drawn, levels = drawn.share(slice(None), trainer.ranks.device), levels.to(trainer.ranks.device)
    prompts = read_prompts(trainer.embeddings, trainer.rows[drawn.rows.cpu().numpy()], trainer.ranks.device)
    window = Window(levels[drawn.steps].float(), levels[drawn.steps + 1].float())
    starts, velocities, x = [], [], drawn.noise
    with torch.no_grad():
        for k in range(len(levels) - 1):
            starts.append(x)
            velocities.append(predict_velocity(roles.student, x, float(levels[k]), prompts))
            x = euler_step(x, velocities[-1], float(levels[k]), float(levels[k + 1]))
    rows = torch.arange(len(x), device=x.device)
    x_start, velocity = torch.stack(starts)[drawn.steps, rows], torch.stack(velocities)[drawn.steps, rows]
    x_end = euler_step(x_start, velocity, window.upper, window.lower)
    matched = Matched(x_end, velocity_to_x0(velocity, x_start, window.upper), window)
    fake = fake_score_loss(roles.fake_score, matched, prompts, drawn.fake_sigma, drawn.fake_noise)
    norms = {"fake_score_grad_norm": trainer.fake_stepper.step(fake.loss)}
    velocity = predict_velocity(roles.student, x_start, window.upper, prompts)
    x_end = euler_step(x_start, velocity, window.upper, window.lower)
    with torch.no_grad():
        x_real, x_fake = _published_scores(trainer, x_end, prompts, window.lower, drawn.sigma, drawn.student_noise)
    loss = distribution_matching_loss(x_end, x_real, x_fake)
    trainer.networks.before_backward(STUDENT)
    norms["student_grad_norm"] = trainer.student_stepper.step(loss)
    trainer.networks.update_average()
    return {"fake_score_loss": float(fake.loss.detach()), "student_loss": float(loss.detach()), **norms}


def _published_scores(
    trainer: StageOneTrainer, x_end: Tensor, prompts: Any, lower: Tensor, sigma: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Where either score goes from sigma; guidance is computed everywhere and dropped above alpha."""
    roles, guidance = trainer.roles, trainer.params.guidance
    x_sigma = renoise(x_end, lower, sigma, noise)
    conditional = predict_velocity(roles.teacher, x_sigma, sigma, prompts)
    unconditional = predict_velocity(roles.teacher, x_sigma, sigma, roles.empty.expand(len(x_sigma)))
    guided = is_guided(sigma, guidance.alpha, guidance.axis, trainer.shift)[:, None, None, None]
    real = torch.where(guided, guided_velocity(conditional, unconditional, guidance.scale), conditional)
    fake = predict_velocity(roles.fake_score, x_sigma, sigma, prompts)
    return euler_step(x_sigma, real, sigma, lower), euler_step(x_sigma, fake, sigma, lower)


def count_forwards(loop: Loop, step: int, batch_size: int) -> float:
    """Forward-equivalents of one step: rows through each network over the batch size; backwards count as two."""
    rows = {"plain": 0, "graph": 0}

    def count(module: nn.Module, _args: Any, inputs: dict[str, Any]) -> None:
        with_graph = torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters())
        rows["graph" if with_graph else "plain"] += len(inputs["hidden_states"])

    roles = loop.trainer.roles
    networks = {cast(nn.Module, role) for role in (roles.teacher, roles.student, roles.fake_score)}  # full copies
    handles = [network.register_forward_pre_hook(count, with_kwargs=True) for network in networks]
    loop.update(step)
    for handle in handles:
        handle.remove()
    return (rows["plain"] + rows["graph"] * (1 + BACKWARD + loop.checkpointed)) / batch_size


def peak_memory(loop: Loop, step: int) -> int:
    """Most bytes allocated during one step beyond what was there before it."""
    device = loop.trainer.ranks.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loop.update(step)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loop.update(step)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak


def seconds(loop: Loop, step: int) -> float:
    """Wall-clock time of one step."""
    synchronise = torch.cuda.synchronize if loop.trainer.ranks.device.type == "cuda" else lambda: None
    synchronise()
    began = time.perf_counter()
    loop.update(step)
    synchronise()
    return time.perf_counter() - began


def state_bytes(trainer: StageOneTrainer) -> int:
    """Weights of all roles, gradients of both that train, and AdamW's moments; the average left out."""
    networks = trainer.networks
    if isinstance(networks, FullCopies):
        modules = [networks.teacher, *networks.trained.values()]
    else:
        modules = [cast(SharedBackbone, networks).model]
    weights = {id(p): p for module in modules for p in module.parameters()}
    trained = [p for role in (STUDENT, FAKE_SCORE) for p in networks.parameters(role)]
    moments = [
        value
        for stepper in (trainer.student_stepper, trainer.fake_stepper)
        for state in stepper.optimizer.state.values()
        for value in state.values()
    ]
    return sum(t.numel() * t.element_size() for t in [*weights.values(), *trained, *moments])


def make_trainer(folder: Path, teacher: ModelFolder, params: StageOneParams, compute: ComputeParams) -> StageOneTrainer:
    """A trainer on random prompt embeddings."""
    config = teacher.build().config
    draws = torch.Generator().manual_seed(0)
    tables = {}
    for name, count in (("prompts", PROMPTS), ("empty", 1)):
        columns = {
            "prompt_embeds": torch.randn(count, TOKENS, config.joint_attention_dim, generator=draws),
            "pooled_prompt_embeds": torch.randn(count, config.pooled_projection_dim, generator=draws),
        }
        tables[name] = TensorTable.write(folder / name, pd.DataFrame({"split": ["train"] * count}), columns).handle
    job = StageOneJob(
        folder=folder,
        compute=compute,
        teacher=teacher,
        autoencoder=TeacherFolder(path=PROJECT / "data/01_raw/teacher").autoencoder,
        shift=3.0,
        embeddings=tables["prompts"],
        empty=tables["empty"],
        validation=None,
        real_latents=None,
        trajectories=None,
        params=params,
    )
    return StageOneTrainer(job, Run(folder, {}, Ranks(compute)))


def random_teacher(folder: Path, width: int, layers: int) -> ModelFolder:
    """A transformer of any size with random weights; random output weights too, or every velocity would be zero."""
    architecture = configuration()["architecture"]
    heads = width // architecture["attention_head_dim"]
    sizes = {**architecture, "num_attention_heads": heads, "num_layers": layers}
    with seeded(0):
        transformer = build_transformer(ArchitectureParams(**sizes))
        nn.init.normal_(transformer.proj_out.weight, std=0.02)
    save_model(transformer, folder)
    return ModelFolder(path=folder, class_name="diffusers.SD3Transformer2DModel")


def configuration() -> dict[str, Any]:
    """The parameters of conf/base."""
    loader = RecipeConfigLoader(str(PROJECT / "conf"), base_env="base", default_run_env="base")
    return loader["parameters"]


def parameters(changes: dict[str, Any]) -> tuple[StageOneParams, ComputeParams]:
    """conf/base's student with changes, on one process."""
    base = configuration()
    compute = ComputeParams(**{**base["compute"], "sharding": "none"})
    return StageOneParams(**{**base["tdm"]["stage_one"], **changes}), compute


def compare_loops(folder: Path, teacher: ModelFolder, batch_size: int, rounds: int) -> pd.DataFrame:
    """Forwards, seconds and peak memory per step of every loop, which take turns; a row per loop."""
    loops = {}
    for name, checkpointed in (("published", True), ("ours", False), ("ours, checkpointed", True)):
        params, compute = parameters({"batch_size": batch_size, "gradient_checkpointing": checkpointed})
        trainer = make_trainer(folder / name, teacher, params, compute)
        update = partial(published_update, trainer) if name == "published" else trainer.update
        loops[name] = Loop(trainer, update, checkpointed)
    values = {name: loop.update(0) for name, loop in loops.items()}  # also the warm-up
    times: dict[str, list[float]] = {name: [] for name in loops}
    for step in range(1, rounds + 1):
        for name, loop in loops.items():
            times[name].append(seconds(loop, step))
    counted = range(rounds + 1, 2 * rounds + 1)
    rows = []
    for name, loop in loops.items():
        forwards = [count_forwards(loop, step, batch_size) for step in counted]
        losses = ("fake_score_loss", "student_loss", "fake_score_grad_norm", "student_grad_norm")
        rows.append(
            {
                "loop": name,
                "forwards": statistics.mean(forwards),
                "seconds": statistics.median(times[name]),
                "spread": statistics.pstdev(times[name]),
                "peak_mib": peak_memory(loop, 2 * rounds + 1) / 2**20,
                "difference": max(abs(values[name][key] / values["published"][key] - 1) for key in losses),
            }
        )
    return pd.DataFrame(rows)


def measure_state(folder: Path, teacher: ModelFolder) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer state of either parametrization, after one real step."""
    sizes = {}
    for parametrization in ("full", "shared_backbone"):
        params, compute = parameters({"batch_size": 1, "parametrization": parametrization})
        compute = compute.model_copy(update={"mixed_precision": "bf16"})
        trainer = make_trainer(folder / parametrization, teacher, params, compute)
        trainer.update(0)
        sizes[parametrization] = state_bytes(trainer)
        del trainer
    return sizes


def computed_state(config: dict[str, Any], rank: int) -> dict[str, float | int]:
    """The same bytes by arithmetic: 36 per parameter for three copies; 2 for a frozen backbone, 32 for adapters."""
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**config)
        count = sum(p.numel() for p in transformer.parameters())
        adapted = add_lora(transformer, LoraParams(rank=rank, alpha=rank))
        adapter = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    full, shared = 3 * 4 * count + 2 * (4 + 8) * count, 2 * count + 2 * (4 + 4 + 8) * adapter
    gib = 2**30
    return {
        "parameters": count,
        "rank": rank,
        "adapter": adapter,
        "full_gib": full / gib,
        "shared_gib": shared / gib,
        "ratio": full / shared,
    }


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--state-width", type=int, default=1536, help="width of the model whose state is measured")
    parser.add_argument("--state-layers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/stage_one_step.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher = ModelFolder(
            path=PROJECT / "data/01_raw/teacher/transformer", class_name="diffusers.SD3Transformer2DModel"
        )
        loops = compare_loops(folder, teacher, arguments.batch_size, arguments.rounds)
        large = random_teacher(folder / "large", arguments.state_width, arguments.state_layers)
        count = sum(p.numel() for p in large.build().parameters())
        state = measure_state(folder / "state", large)
    models = {"SD3-Medium": SD3_MEDIUM, "SD3.5-Large": SD35_LARGE}
    computed = pd.DataFrame(
        [{"model": name, **computed_state(config, rank)} for name, config in models.items() for rank in (16, 64)]
    )
    text = TEMPLATE.format(
        batch_size=arguments.batch_size,
        rounds=arguments.rounds,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads",
        loops=_markdown(loops),
        count=count / 1e6,
        full=state["full"] / 2**20,
        shared=state["shared_backbone"] / 2**20,
        ratio=state["full"] / state["shared_backbone"],
        computed=_markdown(computed),
    )
    print(text)
    if arguments.write:
        (PROJECT / "docs/benchmarks").mkdir(exist_ok=True)
        (PROJECT / "docs/benchmarks/stage_one_step.md").write_text(text)
    published, ours = (loops[loops["loop"] == name].iloc[0] for name in ("published", "ours"))
    summary = {
        "time_ratio": published["seconds"] / ours["seconds"],
        "peak_memory_ratio": published["peak_mib"] / ours["peak_mib"],
        "state_memory_ratio": state["full"] / state["shared_backbone"],
        "forwards": ours["forwards"],
        "forwards_published": published["forwards"],
    }
    print(json.dumps({name: round(float(value), 4) for name, value in summary.items()}))


def _markdown(table: pd.DataFrame) -> str:
    lines = [" | ".join(table.columns), " | ".join("---" for _ in table.columns)]
    for row in table.itertuples(index=False):
        lines.append(" | ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
