import pytest
import torch
from open_clip.transform import image_transform
from safetensors.torch import save_file

from blip_original import random_state, reward
from onex_distill.evaluation.scorers.base import load_network
from onex_distill.evaluation.scorers.clip import MEAN, STD
from onex_distill.evaluation.scorers.image_reward import ImageRewardParams
from onex_distill.evaluation.scorers.states import convert_pickle
from photographs import photographs
from tiny_scorers import local

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "cat",
    "with",
    "green",
    "eyes",
    "cup",
    "of",
    "coffee",
    "rocket",
]
CAPTIONS = ["a cat with green eyes", "a cup of coffee", "rocket", "a cat " * 40]
TOKENS = [[2, 5, 6, 7, 8, 9, 3], [2, 5, 10, 11, 12, 3], [2, 13, 3], [2, *[5, 6] * 16, 5, 3]]  # at most 35


def test_image_reward_is_the_originals_in_float64_from_its_pickle(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    state = random_state(len(WORDS) + 2)  # the original adds [DEC] and [ENC]
    torch.save(state, tmp_path / "ImageReward.pt")
    convert_pickle(tmp_path / "ImageReward.pt", tmp_path / "ImageReward.safetensors")
    params = ImageRewardParams(
        name="image_reward", weights=local(tmp_path, "ImageReward.safetensors"), tokenizer=local(tmp_path, "vocab.txt")
    )
    images = [photographs()[name] for name in ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")]
    score = load_network(params, tmp_path, torch.device("cpu")).features(images, CAPTIONS)["score"]

    longest = max(map(len, TOKENS))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in TOKENS])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in TOKENS])
    transform = image_transform(224, is_train=False, mean=MEAN, std=STD)
    expected = reward(state, torch.stack([transform(image) for image in images]), tokens, mask)
    torch.testing.assert_close(score.double(), expected, atol=2e-5, rtol=2e-5)
    assert expected.std() > 0.05


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    save_file({"layers.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    params = ImageRewardParams(
        name="image_reward", weights=local(tmp_path, "other.safetensors"), tokenizer=local(tmp_path, "vocab.txt")
    )
    with pytest.raises(ValueError, match=r"has no mlp\.layers\.0\.weight"):
        load_network(params, tmp_path, torch.device("cpu"))
