import pytest
import torch

from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.world import VALUES


def build(**sizes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ShapesReader(**sizes).eval()


def pictures(count=3):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def reader():
    return build(channels=(8, 16, 16), feature_dim=12)


@torch.no_grad()
def test_there_is_a_logit_for_every_value(reader):
    logits = reader(pictures())
    assert {name: tuple(head.shape) for name, head in logits.items()} == {
        name: (3, len(values)) for name, values in VALUES.items()
    }


@torch.no_grad()
def test_levels_halve_in_size_after_the_first():
    shapes = [tuple(level.shape) for level in build().levels(pictures(2))]
    assert shapes == [(2, 24, 32, 32), (2, 48, 16, 16), (2, 96, 8, 8)]
    assert build().features(pictures(2)).shape == (2, 64)


@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 8, 16, 16)])
@torch.no_grad()
def test_any_number_of_stages_works(channels):
    reader = build(channels=channels, feature_dim=5)
    assert reader.features(pictures()).shape == (3, 5)
    assert [level.shape[1] for level in reader.levels(pictures())] == list(channels)


@torch.no_grad()
def test_reading_takes_the_largest_logit(reader):
    logits, read = reader(pictures()), reader.read(pictures())
    for name in VALUES:
        chosen = logits[name].gather(1, read[name][:, None])[:, 0]
        assert torch.equal(chosen, logits[name].max(1).values)


@torch.no_grad()
def test_an_image_is_read_alike_alone_and_in_a_batch(reader):
    together = reader.features(pictures())
    alone = torch.cat([reader.features(image[None]) for image in pictures()])
    torch.testing.assert_close(together, alone)


@torch.no_grad()
def test_a_saved_reader_reads_the_same(reader, tmp_path):
    reader.save_pretrained(tmp_path)
    loaded = ShapesReader.from_pretrained(tmp_path, local_files_only=True).eval()
    assert tuple(loaded.config.channels) == (8, 16, 16)
    for name, logits in reader(pictures()).items():
        assert torch.equal(loaded(pictures())[name], logits)


def test_pixels_receive_a_gradient_through_every_level(reader):
    for number in range(3):
        images = pictures().requires_grad_()
        reader.levels(images)[number].square().mean().backward()
        assert images.grad.abs().sum() > 0
