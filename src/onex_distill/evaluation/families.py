"""The metrics of the table in its order, by what they say; known without torch, so that the graph can be drawn."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "distances": ("fid", "patch_fid", "dinov2_distance", "fd_infinity", "kid", "cmmd"),
    "scores": ("alignment", "clip_score", "aesthetic", "pick_score", "image_reward", "hps"),
    "spread": ("diversity", "lpips_diversity", "precision_recall", "density_coverage", "vendi", "entropy"),
    "colours": ("saturation", "contrast"),
    "benchmarks": ("dpg", "geneval_style"),
}
NAMES = tuple(name for names in FAMILIES.values() for name in names)
