"""Every table and picture of docs/results.md and docs/ablation.md, from one machine and one commit.

    python benchmarks/reproduce.py --data FOLDER                           # everything: about 100 minutes on two cores
    python benchmarks/reproduce.py --data FOLDER --parts distill seed-2    # some of it

``distill`` is the main job with its own seeds, on all cores. The other parts go on from copies of what it made, as many
at a time as there are cores and each on one: ``seed-2`` and ``seed-3`` repeat the trainings with other seeds. A part
that is finished is not run again; one that was stopped goes on. Pictures of plots need a Chromium on the path. Ends
with one JSON line: seconds per part.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.io

from onex_distill.metrics.confidence import t_interval

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SEEDED = {  # every seed of the main job's trainings, as conf/base has it
    "reference.stage_one.seed": 11,
    "student.stage_one.seed": 12,
    "student.stage_two.seed": 22,
    "fractional_167.cotraining.seed": 31,
    "fractional_150.cotraining.seed": 33,
    "dial.cotraining.seed": 35,
}
FIRST = "reference.match_distribution,student.match_distribution"  # what a seed changes begins here
SEEDS = (1, 2, 3)  # the first is conf/base's
MAIN = "distill"
SEED_PARTS = tuple(f"seed-{seed}" for seed in SEEDS[1:])
PARTS = (MAIN, *SEED_PARTS, "ablation", "pareto", "baselines", "recovery", "reuse")  # in this order
TABLES = {
    MAIN: ["metrics.parquet"],
    "ablation": ["ablation.csv", "ablation_targets.csv"],
    "pareto": ["pareto.parquet", "band_search.parquet"],
    "baselines": ["metrics.parquet"],  # the main job's rows and its own
    "recovery": ["recovery_summary.parquet"],
}
PLOTS = {
    "pareto": ["pareto", "band_search"],
    "recovery": ["recovery"],
    "reuse": ["reuse_error"],
    "ablation": ["ablation"],
}
FRONTS = ("dial", "fractional_150")  # of which every seed is trained
SUMMARISED = ("alignment", "diversity", "fid", "entropy_background", "entropy_position")


def main() -> None:
    """Run the parts that are asked for, and write what they give into docs/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder for the data of every part")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    chosen = parser.parse_args()
    data, others = chosen.data.absolute(), [part for part in PARTS[1:] if part in chosen.parts]
    if MAIN not in chosen.parts and not is_done(MAIN, data):
        parser.error(f"{data} has no finished part {MAIN}, from which the others go on; add it to --parts")
    seconds = {MAIN: run_part(MAIN, data)} if MAIN in chosen.parts else {}
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        seconds |= dict(zip(others, cores.map(partial(run_part, data=data), others), strict=True))
    for part in seconds:
        publish(part, data / part)
    if all(is_done(part, data) for part in (MAIN, "pareto", *SEED_PARTS)):
        tables = [
            seed_table(data / MAIN, data / "pareto"),
            *(seed_table(data / part, data / part) for part in SEED_PARTS),
        ]
        summarise_seeds(tables).to_csv(DOCS / "seeds.csv", index=False)
    print(json.dumps(seconds))


def run_part(part: str, data: Path) -> int:
    """One pipeline in its own folder, marked beside it when it is done; the seconds that it took."""
    folder, began = data / part, time.monotonic()
    if is_done(part, data):
        return 0
    if part != MAIN and not folder.exists():
        copy = folder.with_suffix(".part")  # of a copy that was stopped nothing is kept
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(data / MAIN, copy)
        copy.rename(folder)
    threads = {} if part == MAIN else {"OMP_NUM_THREADS": "1"}
    for options, params in runs_of(part):
        subprocess.run(  # noqa: S603 -- our own command
            [sys.executable, "-m", "kedro", "run", *options, f"--params={','.join([f'data={folder}', *params])}"],
            cwd=ROOT,
            env={**os.environ, "DO_NOT_TRACK": "1", **threads},
            check=True,
        )
    (data / f"{part}.done").touch()
    return round(time.monotonic() - began)


def is_done(part: str, data: Path) -> bool:
    """Whether a part was finished in an earlier call, or in this one."""
    return (data / f"{part}.done").exists()


def runs_of(part: str) -> list[tuple[list[str], list[str]]]:
    """Options and parameters of a part's runs; a seed moves every seed of a training, from the first training on."""
    if part not in SEED_PARTS:
        return [([f"--pipelines={part}"], [])]
    moved = [f"{name}={value + 1000 * (int(part[-1]) - 1)}" for name, value in SEEDED.items()]
    main = [f"--pipelines={MAIN}", f"--from-nodes={FIRST}"]
    fronts = ["--pipelines=pareto", f"--to-outputs={','.join(f'{name}_front' for name in FRONTS)}"]
    return [(main, moved), (fronts, moved)]


def publish(part: str, folder: Path) -> None:
    """Copy a part's tables and pictures into docs/."""
    for name in TABLES.get(part, []):
        found = newest(folder, name)
        table = pd.read_parquet(found) if found.suffix == ".parquet" else pd.read_csv(found)
        if "bands" in table:
            table["bands"] = table["bands"].map(in_brackets)
        table.to_csv(DOCS / f"{found.stem}.csv", index=False)
    if part == MAIN:
        shutil.copy(newest(folder, "sample_grid.png"), DOCS / "sample_grid.png")
    for name in PLOTS.get(part, []):
        picture(newest(folder, f"{name}_plot.json"), DOCS / f"{name}.png")


def seed_table(folder: Path, fronts: Path) -> pd.DataFrame:
    """Metrics of one seed by method, with those of every budget of the fronts."""
    found = [pd.read_csv(newest(folder, "metrics.csv"))]
    for name in FRONTS:
        front = pd.read_parquet(newest(fronts, f"{name}_front.parquet"))
        found.append(front.assign(method=front["method"] + front["nfe"].map("_{:.2f}".format)))
    return pd.concat(found).set_index("method")


def in_brackets(bands: str | np.ndarray) -> str:
    """Bands as text, which parquet may have made arrays of arrays of."""
    return bands if isinstance(bands, str) else json.dumps([[int(block) for block in band] for band in bands])


def summarise_seeds(by_seed: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A row per method of the last seed and metric: the value of every seed, their mean, and its 95 % t interval."""
    tables = dict(zip(SEEDS, by_seed, strict=True))
    rows = []
    for method in tables[SEEDS[-1]].index:
        for metric in SUMMARISED:
            values = pd.Series({f"seed_{seed}": table.loc[method, metric] for seed, table in tables.items()})
            mean, deviation = float(values.mean()), float(values.std() / len(values) ** 0.5)
            low, high = t_interval(mean, deviation, len(values), 0.95)
            rows.append({"method": method, "metric": metric, **values, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows).dropna(ignore_index=True)  # the teacher has no FID, fronts no entropies


def newest(data: Path, name: str) -> Path:
    """The newest version of a report. Raises FileNotFoundError when there is none."""
    found = sorted((data / "08_reporting").glob(f"{name}/*/{name}"))
    if not found:
        raise FileNotFoundError(f"{data} has no {name}; run the part that makes it")
    return found[-1]


def picture(plot: Path, path: Path) -> None:
    """A plotly figure as PNG, drawn by a headless Chromium; without one a line says that the picture is an old one."""
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        print(f"no chromium on the path: {path.name} stays as it is", file=sys.stderr)
        return
    figure = plotly.io.from_json(plot.read_text())
    height = int(figure.layout.height or 450)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "plot.html")
        figure.write_html(page, config={"displayModeBar": False})
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size=900,{height + 20}"]
        subprocess.run(  # noqa: S603 -- the browser that was found
            [browser, *options, "--virtual-time-budget=5000", f"--screenshot={path}", page.as_uri()], check=True
        )


if __name__ == "__main__":
    main()
