import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import v2

from onex_distill.evaluation.scorers.recipes import RECIPES, pil_images, prepare
from photographs import photographs

BICUBIC = v2.InterpolationMode.BICUBIC
PIXELS = [v2.ToImage(), v2.ToDtype(torch.float32)]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def _by_torchvision(name, image):
    steps = {
        "clip224": [v2.Resize(224, BICUBIC), v2.CenterCrop(224)],
        "clip336": [v2.Resize(336, BICUBIC), v2.CenterCrop(336)],
        "clip224_from256": [v2.Resize((256, 256), v2.InterpolationMode.LANCZOS), v2.Resize(224, BICUBIC)],
        "crop299": [v2.CenterCrop(299)],
        "lpips256": [v2.Resize((256, 256), BICUBIC)],
        "lpips512": [v2.Resize((512, 512), BICUBIC)],
        "square224": [v2.Resize((224, 224), BICUBIC)],
        "square384": [v2.Resize((384, 384), BICUBIC)],
    }[name]
    return v2.Compose([*steps, *PIXELS])(image)


def _difference(name, image, expected):
    return float((prepare(name, [image])[0] - expected).abs().mean())


@pytest.mark.parametrize(
    "name", ["clip224", "clip336", "clip224_from256", "crop299", "lpips256", "lpips512", "square224", "square384"]
)
def test_recipes_are_pils_bicubic_on_real_images(name):
    for photograph, image in photographs().items():
        if name == "crop299" and min(image.size) < 299:
            continue
        assert _difference(name, image, _by_torchvision(name, image)) < 1e-6, photograph


def test_clean299_is_clean_fids_own():
    resize = build_resizer("clean")
    for image in photographs().values():
        expected = torch.from_numpy(resize(np.asarray(image))).permute(2, 0, 1)
        assert _difference("clean299", image, expected) == 0


def test_clip224_is_what_open_clip_gives():
    transform = image_transform(224, is_train=False, mean=MEAN.flatten().tolist(), std=STD.flatten().tolist())
    for image in photographs().values():
        assert _difference("clip224", image, (transform(image) * STD + MEAN) * 255) < 0.01


def test_hps224_is_the_antialiased_tensor_resize_with_zeros_around():
    for image in photographs().values():
        tensor = v2.Compose(PIXELS)(image)
        wide, high = (round(side * 224 / max(image.size)) for side in image.size)
        left, top = (224 - wide) // 2, (224 - high) // 2
        prepared = prepare("hps224", [image])[0]
        inside = prepared[:, top : top + high, left : left + wide]
        expected = v2.functional.resize(tensor, [high, wide], BICUBIC, antialias=True)
        assert float((inside - expected).abs().mean()) < 0.5
        assert float(prepared.sum()) == pytest.approx(float(inside.sum()))
        old = prepare("hps224_unantialiased", [image])[0][:, top : top + high, left : left + wide]
        expected = v2.functional.resize(tensor, [high, wide], BICUBIC, antialias=False)
        torch.testing.assert_close(old, expected, atol=1e-3, rtol=0)


def test_the_antialias_decides_on_detail_and_so_has_a_name():
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    apart = (prepare("hps224", [image]) - prepare("hps224_unantialiased", [image])).abs().mean()
    assert float(apart) > 10


def test_sizes_and_range():
    images = list(photographs().values())
    for name in RECIPES:
        fitting = [image for image in images if min(image.size) >= 299]
        prepared = prepare(name, fitting)
        size = int("".join(filter(str.isdigit, name))[:3])
        assert prepared.shape == (len(fitting), 3, size, size)
        if name != "hps224_unantialiased":  # bicubic overshoots
            assert float(prepared.min()) >= 0
            assert 200 < float(prepared.max()) <= 255


def test_tensors_are_the_same_images():
    image = photographs()["chelsea.png"]
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    assert pil_images(tensor)[0].tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are no images"),
        ([Image.new("RGB", (8, 8)), Image.new("L", (8, 8))], "mode L, not RGB"),
        (torch.zeros(1, 3, 8, 8), "uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8"),
    ],
)
def test_what_is_no_rgb_image_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        pil_images(images)


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="200 x 400 has no patch"):
        prepare("crop299", [Image.new("RGB", (200, 400))])
