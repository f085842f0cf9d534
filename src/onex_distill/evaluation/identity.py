"""What must agree between two measurements before they are compared."""

import hashlib

import pandas as pd

from onex_distill.evaluation.scored import MetricParams, Scored

IDENTITY = ("version", "model", "recipe", "weights", "settings", "reference", "prompt_list", "images", "seeds")
VERSION = 1  # of our implementations; raised when a number of any of them changes


def identity_of(metric: str, scored: Scored, reference: Scored | None, params: MetricParams) -> dict[str, str]:
    """What must agree between rows before they are compared.

    Args:
        metric: The metric's name.
        scored: The set that is measured.
        reference: The set that it is compared with, if any.
        params: The settings, validated.

    Returns:
        Texts by name.
    """
    network = str(params.features).partition(".")[0]
    known: dict[str, str] = scored.networks.get(network, {}).get("identity", {})
    index = scored.index
    seeds = index["noise_seed"].dropna() if "noise_seed" in index else pd.Series(dtype="int64")
    weights = [f"{name}={value}" for name, value in sorted(known.items()) if name.endswith(("_revision", "_sha256"))]
    return {
        "version": f"{metric} {VERSION}",
        "model": known.get("model", network),
        "recipe": known.get("recipe", ""),
        "weights": " ".join(weights),
        "settings": f"{params.model_dump_json()} {known.get('settings', '')}",
        "reference": reference.name if reference else "",
        "prompt_list": _digest(index["text"]),
        "images": str(len(index)),
        "seeds": _digest(seeds) if len(seeds) else "",
    }


def _digest(column: pd.Series) -> str:
    """The first half of a SHA-256 over the values in their order."""
    return hashlib.sha256("\n".join(column.astype(str)).encode()).hexdigest()[:32]
