"""Every table and picture of docs/results.md and docs/ablation.md, from one machine and one commit.

    python benchmarks/reproduce.py --data FOLDER                     # everything: about two hours on two cores
    python benchmarks/reproduce.py --data FOLDER --parts distill seeds   # some of it, in this order

``distill`` is the main job with its own seeds, ``seeds`` repeats its trainings with two others. A part that is finished
is not run again; one that was stopped goes on. Pictures of plots need a Chromium on the path. Ends with one JSON line:
seconds per part.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
}
FIRST = "reference.match_distribution,student.match_distribution"  # what a seed changes begins here
SEEDS = (1, 2, 3)
PARTS = ("distill", "seeds", "baselines", "pareto", "recovery", "reuse", "ablation")
TABLES = {"distill": "metrics", "baselines": "metrics", "pareto": "pareto_table", "ablation": "ablation"}
PLOTS = {"pareto": "pareto", "recovery": "recovery", "reuse": "reuse_error", "ablation": "ablation"}
SUMMARISED = ("alignment", "diversity", "fid", "entropy_background", "entropy_position")


def main() -> None:
    """Run the parts that are asked for, and write what they give into docs/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data folder of its own")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    chosen = parser.parse_args()
    data, seconds = chosen.data.absolute(), {}
    for part in chosen.parts:
        began = time.monotonic()
        run_part(part, data)
        seconds[part] = round(time.monotonic() - began)
        publish(part, data)
    print(json.dumps(seconds))


def run_part(part: str, data: Path) -> None:
    """One pipeline, or the main job's trainings with the other seeds; marked in ``data`` when it is done."""
    runs: dict[str, tuple[list[str], list[str]]] = {part: ([f"--pipelines={part}"], [])}
    if part == "seeds":
        runs = {f"seed-{seed}": seed_options(seed) for seed in SEEDS[1:]}
    elif part == "distill":
        runs = {f"seed-{SEEDS[0]}": (["--pipelines=distill"], [])}
    for name, (options, params) in runs.items():
        done = data / "reproduced" / f"{name}.csv"
        if done.exists():
            continue
        given = f"--params={','.join([f'data={data}', *params])}"
        subprocess.run(  # noqa: S603 -- our own command
            [sys.executable, "-m", "kedro", "run", *options, given],
            cwd=ROOT,
            env={**os.environ, "DO_NOT_TRACK": "1"},
            check=True,
        )
        done.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(newest(data, "metrics.csv"), done)


def seed_options(seed: int) -> tuple[list[str], list[str]]:
    """Options of the main job from its first training on, and parameters that move every seed of a training."""
    moved = [f"{name}={value + 1000 * (seed - 1)}" for name, value in SEEDED.items()]
    return ["--pipelines=distill", f"--from-nodes={FIRST}"], moved


def publish(part: str, data: Path) -> None:
    """Copy a part's table and picture into docs/."""
    if part in TABLES:
        found = newest(data, f"{TABLES[part]}.*")
        table = pd.read_parquet(found) if found.suffix == ".parquet" else pd.read_csv(found)
        table.to_csv(DOCS / f"{TABLES[part].removesuffix('_table')}.csv", index=False)
    if part == "distill":
        shutil.copy(newest(data, "sample_grid.png"), DOCS / "sample_grid.png")
    if part == "seeds":
        summarise_seeds(data).to_csv(DOCS / "seeds.csv", index=False)
    if part in PLOTS:
        picture(newest(data, f"{PLOTS[part]}_plot.json"), DOCS / f"{PLOTS[part]}.png")


def summarise_seeds(data: Path) -> pd.DataFrame:
    """A row per method and metric: the value of every seed, their mean, and its 95 % t interval."""
    tables = {seed: pd.read_csv(data / "reproduced" / f"seed-{seed}.csv").set_index("method") for seed in SEEDS}
    rows = []
    for method in tables[SEEDS[0]].index:
        for metric in SUMMARISED:
            values = pd.Series({f"seed_{seed}": table.loc[method, metric] for seed, table in tables.items()})
            mean, deviation = float(values.mean()), float(values.std() / len(values) ** 0.5)
            low, high = t_interval(mean, deviation, len(values), 0.95)
            rows.append({"method": method, "metric": metric, **values, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


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
