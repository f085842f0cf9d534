import math

import pytest
import torch
from pydantic import ValidationError

from onex_distill.distill.stage_one.latent_gan import LatentGanParams
from onex_distill.distill.stage_one.roles import FAKE_SCORE, STUDENT
from onex_distill.distill.stage_one.trainer import StageOneTrainer
from onex_distill.engine.run import Run

GAN = LatentGanParams(student_weight=0.1, fake_score_weight=0.2, hidden=4)


@pytest.fixture
def trainer(jobs, inputs, ranks, tmp_path):
    """The trainer of a tiny job whose stored latents are those of the validation."""
    job = jobs("stage_one", tmp_path / "run", latent_gan=GAN, real_latents=inputs.validation, matched="x0")
    return StageOneTrainer(job, Run(job.folder, {}, ranks))


@pytest.fixture
def drawn(noise) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Levels to start from and to go to, and noise."""
    return torch.zeros(3), torch.tensor([0.3, 0.5, 0.7]), noise.flip(0)


def biased(gan, bias: float) -> None:
    """Make every logit the same number."""
    with torch.no_grad():
        gan.head.out.weight.zero_()
        gan.head.out.bias.fill_(bias)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_terms_are_cross_entropies_with_their_weights(trainer, prompts, noise, drawn):
    biased(trainer.gan, 0.7)
    lower, sigma, fresh = drawn
    tokens = torch.randn(3, 16, trainer.gan.fake_score.inner_dim)
    head = trainer.gan.fake_score_term(tokens, sigma, step=0, count=3)
    student = trainer.gan.student_term(noise, lower, sigma, fresh, prompts)
    assert head.item() == pytest.approx(0.2 * (softplus(-0.7) + softplus(0.7)))
    assert student.item() == pytest.approx(0.1 * softplus(-0.7))


def test_the_head_takes_the_students_tokens_for_fake(trainer):
    sigma, losses = torch.tensor([0.3, 0.5, 0.7]), []
    for value in (2.0, -1.0):
        tokens = torch.full((3, 16, trainer.gan.fake_score.inner_dim), value)
        trainer.gan.head = lambda seen: seen.mean((1, 2))[:, None]
        losses.append(trainer.gan.fake_score_term(tokens, sigma, step=0, count=3).item())
    assert losses[0] - losses[1] == pytest.approx(0.2 * (softplus(2) - softplus(-1)), rel=1e-4)


def test_stored_latents_are_looked_at_from_clean_ones_with_their_own_prompts(trainer, monkeypatch):
    seen, sigma = [], torch.tensor([0.3, 0.5, 0.7])

    def note(x, lower, sigma, noise, prompts):
        seen.append((x, lower, sigma, noise, prompts))
        return torch.zeros(len(x), 1)

    monkeypatch.setattr(trainer.gan, "_logits", note)
    tokens = torch.zeros(3, 16, trainer.gan.fake_score.inner_dim)
    for step in (0, 1):
        trainer.gan.fake_score_term(tokens, sigma, step=step, count=3)
    (x, lower, levels, noise, prompts), (others, *_) = seen
    stored, captions = trainer.gan.real.column("latent"), trainer.embeddings.column("pooled_prompt_embeds")
    rows = [int((stored - one).abs().flatten(1).sum(1).argmin()) for one in x]
    assert torch.equal(x, stored[rows])
    assert torch.equal(prompts.pooled, captions[trainer.gan.real.index["prompt_row"].iloc[rows].to_numpy()])
    assert lower == 0.0
    assert torch.equal(levels, sigma)
    assert not torch.equal(x, others)
    assert len(noise.flatten(1).unique(dim=0)) == 3


def test_the_students_gradient_leads_to_latents_that_look_stored(trainer, prompts, noise, drawn):
    torch.nn.init.normal_(trainer.gan.fake_score.proj_out.weight)
    x = noise.clone().requires_grad_()
    lower, sigma, fresh = drawn
    before = trainer.gan.student_term(x, lower, sigma, fresh, prompts)
    before.backward()
    assert x.grad.abs().max() > 0
    with torch.no_grad():
        way = 0.1 * x.grad / x.grad.norm()
        down, up = (trainer.gan.student_term(moved, lower, sigma, fresh, prompts) for moved in (x - way, x + way))
    assert down < before < up


def test_an_update_trains_the_head_and_leaves_no_gradient_behind(trainer):
    before = [p.detach().clone() for p in trainer.gan.head.parameters()]
    values = trainer.update(0)
    assert {"latent_head_loss", "latent_gan_loss", "latent_head_grad_norm"} <= values.keys()
    moved = [not torch.equal(a, b) for a, b in zip(before, trainer.gan.head.parameters(), strict=True)]
    assert all(moved)
    for parameters in (trainer.gan.head.parameters(), *map(trainer.networks.parameters, (STUDENT, FAKE_SCORE))):
        assert all(p.grad is None for p in parameters)


def test_the_head_learns_to_tell_them_apart(trainer):
    losses = [trainer.update(step)["latent_head_loss"] for step in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_terms_weight_reaches_the_student(jobs, inputs, ranks, tmp_path):
    students = []
    for weight in (1e-9, 10.0):
        gan = LatentGanParams(student_weight=weight, fake_score_weight=0.2, hidden=4)
        job = jobs("stage_one", tmp_path / str(weight), latent_gan=gan, real_latents=inputs.validation)
        run = StageOneTrainer(job, Run(job.folder, {}, ranks))
        run.update(0)
        students.append(torch.cat([p.detach().flatten() for p in run.networks.parameters(STUDENT)]))
    assert not torch.allclose(*students, atol=1e-4)


def test_a_run_without_stored_latents_is_refused(jobs, tmp_path):
    with pytest.raises(ValidationError, match=r"latent_gan needs stored latents .* set latent_gan to null here"):
        jobs("stage_one", tmp_path / "run", latent_gan=GAN)
