"""What a method costs, counted on the meta device, against one evaluation on real numbers."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from onex_distill.evaluation.cost import cost_of
from onex_distill.evaluation.params import MethodParams
from onex_distill.models.teacher import TeacherFolder


@pytest.mark.parametrize(
    ("steps", "guidance_scale", "alpha", "evaluations"),
    [(1, 1.0, 1.0, 1), (2, 1.0, 1.0, 2), (2, 4.0, 1.0, 4), (2, 4.0, 0.75, 3), (2, 4.0, 0.74, 2), (4, 4.0, 0.9, 7)],
)
def test_gflops_are_those_of_the_evaluations(stored_teacher, prompt_tables, steps, guidance_scale, alpha, evaluations):
    """Levels of two steps are 1 and 0.75, of four 1, 0.9, 0.75 and 0.5."""
    teacher = TeacherFolder(path=stored_teacher).check()
    method = MethodParams(name="one", steps=steps, guidance_scale=guidance_scale, alpha=alpha, nfe=None)
    embeddings = prompt_tables.prompts
    cost = cost_of(teacher.transformer, method, teacher.shift, embeddings)
    network = teacher.transformer.load()
    config = network.config
    latents = torch.zeros(1, config.in_channels, config.sample_size, config.sample_size)
    prompt = {name: embeddings.read(name, [0]).float() for name in ("prompt_embeds", "pooled_prompt_embeds")}
    # in plain products, since torch does not count the CPU's own attention
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(latents, prompt["prompt_embeds"], prompt["pooled_prompt_embeds"], torch.tensor([1000.0]))
    assert cost["nfe"] == evaluations
    assert cost["nfe_flops"] == pytest.approx(evaluations, rel=1e-3)
    assert cost["gflops_per_image"] == pytest.approx(evaluations * counter.get_total_flops() / 1e9, rel=1e-3)
