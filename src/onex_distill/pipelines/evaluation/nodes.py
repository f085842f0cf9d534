"""Nodes that score samples: features of each method, one node per metric, and the tables of all."""

from typing import Any

import pandas as pd

from onex_distill.evaluation import tables
from onex_distill.evaluation.measures import measure
from onex_distill.evaluation.scored import ConfidenceParams, MetricParams
from onex_distill.evaluation.sets import FeatureSets, SampleSets
from onex_distill.storage.image_table import ImageTable
from onex_distill.storage.tensor_table import TensorTable


def gather_features(earlier: FeatureSets | None = None, **features: TensorTable) -> FeatureSets:
    """The features of all methods as one artefact, after those of an earlier job."""
    known = earlier.methods if earlier else ()
    return FeatureSets(methods=(*known, *((key, table.handle) for key, table in features.items())))


def gather_samples(earlier: SampleSets | None = None, **samples: ImageTable) -> SampleSets:
    """The images of all methods as one artefact, after those of an earlier job."""
    known = earlier.methods if earlier else ()
    return SampleSets(methods=(*known, *((key, table.handle) for key, table in samples.items())))


def collect_costs(earlier: pd.DataFrame | None = None, **costs: dict[str, Any]) -> pd.DataFrame:
    """Steps, evaluations and seconds of every method, after those of an earlier job."""
    return pd.concat([earlier, pd.DataFrame(list(costs.values()))], ignore_index=True)


def collect_losses(earlier: pd.DataFrame | None = None, **losses: pd.DataFrame) -> pd.DataFrame:
    """Every loss of every training as ``run``, ``step``, ``loss``, ``value``, after those of an earlier job."""
    parts = [earlier]
    for run, table in losses.items():
        columns = [str(name) for name in table.columns if str(name).endswith("loss")]
        long = table.melt("step", columns, var_name="loss").dropna()
        parts.append(long.assign(run=run)[["run", "step", "loss", "value"]])
    return pd.concat(parts, ignore_index=True)


def compute_fid(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Frechet distance of each method to the teacher; the teacher itself has none."""
    return _measured("fid", features, params, confidence)


def compute_patch_fid(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """The same of a crop at full resolution, which shows lost detail."""
    return _measured("patch_fid", features, params, confidence)


def compute_dinov2_distance(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Frechet distance in DINOv2's features."""
    return _measured("dinov2_distance", features, params, confidence)


def compute_alignment(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Share of images that show every attribute their caption names."""
    return _measured("alignment", features, params, confidence)


def compute_clip_score(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Cosine between image and caption."""
    return _measured("clip_score", features, params, confidence)


def compute_aesthetic(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """LAION's aesthetic score."""
    return _measured("aesthetic", features, params, confidence)


def compute_pick_score(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """PickScore."""
    return _measured("pick_score", features, params, confidence)


def compute_image_reward(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """ImageReward."""
    return _measured("image_reward", features, params, confidence)


def compute_hps(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Human preference score."""
    return _measured("hps", features, params, confidence)


def compute_diversity(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Mean pairwise feature distance between the images of one caption."""
    return _measured("diversity", features, params, confidence)


def compute_lpips_diversity(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Mean pairwise LPIPS between the images of one caption."""
    return _measured("lpips_diversity", features, params, confidence)


def compute_precision_recall(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Precision and recall against the teacher's samples."""
    return _measured("precision_recall", features, params, confidence)


def compute_entropy(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Conditional entropy of each free attribute, in nats, and its distance to the renderer's distribution."""
    return _measured("entropy", features, params, confidence)


def compute_saturation(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Mean saturation."""
    return _measured("saturation", features, params, confidence)


def compute_contrast(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Mean deviation of luma."""
    return _measured("contrast", features, params, confidence)


def compute_fd_infinity(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Frechet distance that endlessly many images would give."""
    return _measured("fd_infinity", features, params, confidence)


def compute_kid(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Kernel Inception distance to the teacher."""
    return _measured("kid", features, params, confidence)


def compute_cmmd(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """CMMD to the teacher."""
    return _measured("cmmd", features, params, confidence)


def compute_density_coverage(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """Density and coverage of the teacher's samples."""
    return _measured("density_coverage", features, params, confidence)


def compute_vendi(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """How many different images a set amounts to."""
    return _measured("vendi", features, params, confidence)


def compute_dpg(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """DPG-Bench, overall and by category, in percent."""
    return _measured("dpg", features, params, confidence)


def compute_geneval_style(features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    """GenEval's rules over another detector, overall and by tag."""
    return _measured("geneval_style", features, params, confidence)


def collect_measurements(*parts: pd.DataFrame) -> pd.DataFrame:
    """Measurements of several metrics in one table, a row per method and metric."""
    return pd.concat([part for part in parts if len(part)] or list(parts[:1]), ignore_index=True)


def build_metrics_table(costs: pd.DataFrame, measurements: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per method with its costs and every metric with its interval, as csv and as parquet."""
    table = tables.wide_table(costs, measurements)
    return table, table


def compare_methods(measurements: pd.DataFrame, confidence: ConfidenceParams) -> pd.DataFrame:
    """Paired differences between methods with intervals and p-values."""
    return tables.comparison_table(measurements, confidence)


def tabulate_prompts(measurements: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """A row per prompt and method."""
    texts = plan.drop_duplicates("prompt_row").set_index("prompt_row")["text"]
    return tables.prompt_table(measurements, texts)


def _measured(metric: str, features: FeatureSets, params: MetricParams, confidence: ConfidenceParams) -> pd.DataFrame:
    return measure(metric, features.scored(), features.reference(), params, confidence)
