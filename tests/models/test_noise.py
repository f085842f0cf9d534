import torch

from onex_distill.models.noise import noise_from_seeds


def test_noise_of_a_seed_does_not_depend_on_its_batch(transformer):
    together = noise_from_seeds([7, 8, 9], transformer)
    assert torch.equal(noise_from_seeds([9, 7], transformer), together[[2, 0]])


def test_noise_does_not_touch_the_global_generator(transformer):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    noise_from_seeds([3], transformer)
    assert torch.equal(torch.rand(1), expected)


def test_noise_is_standard_normal_in_the_latent_shape(transformer):
    noise = noise_from_seeds(range(200), transformer)
    assert noise.shape == (200, 4, 8, 8)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert len(noise.flatten(1).unique(dim=0)) == 200
