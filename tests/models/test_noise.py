import torch

from onex_distill.models.noise import latent_shape, noise_from_seeds

SHAPE = (4, 8, 8)


def test_noise_of_a_seed_does_not_depend_on_its_batch():
    together = noise_from_seeds([7, 8, 9], SHAPE)
    assert torch.equal(noise_from_seeds([9, 7], SHAPE), together[[2, 0]])


def test_noise_does_not_touch_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    noise_from_seeds([3], SHAPE)
    assert torch.equal(torch.rand(1), expected)


def test_noise_is_standard_normal_in_the_latent_shape():
    noise = noise_from_seeds(range(200), SHAPE)
    assert noise.shape == (200, *SHAPE)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert len(noise.flatten(1).unique(dim=0)) == 200


def test_the_shape_is_that_of_the_latents_that_the_transformer_takes(transformer):
    assert latent_shape(transformer) == SHAPE
