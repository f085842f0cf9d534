"""Records what every run reads, writes and is made from, and does not let a skipped node hide a changed parameter."""

import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.io.core import AbstractVersionedDataset
from kedro.pipeline import Node, Pipeline

from onex_distill.hooks.data import data_folder
from onex_distill.storage.records import NodeRecord, RunRecord, Versions, changes, read_records, write_record

PACKAGES = ("onex-distill", "torch", "diffusers", "transformers", "kedro", "peft", "timm", "safetensors", "numpy")
NAMED = 3  # changes in one message


class RecordHook:
    """Keeps ``<data>/runs/<version>/run.json`` up to date, after every node."""

    def __init__(self) -> None:
        self._parameters: dict[str, Any] = {}
        self._data = self._project = Path()
        self._catalog: CatalogProtocol[Any, Any] | None = None
        self._record: RunRecord | None = None
        self._begun = self._node_begun = 0.0

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep parameters as they are written, and the data folder."""
        self._parameters = dict(context.config_loader["parameters"])
        self._project, self._data = Path(context.project_path), data_folder(context)

    @hook_impl(trylast=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]
    ) -> None:
        """Begin a record. Raises ValueError when a node would be skipped whose parameters have changed."""
        self._catalog, self._begun = catalog, time.monotonic()
        if run_params["only_missing_outputs"]:
            self._refuse_skipping(pipeline, catalog)
        filters = ("from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs", "tags", "namespaces")
        given = {name: list(run_params[name]) for name in filters if run_params.get(name)}
        self._record = RunRecord(
            version=str(run_params["run_id"]),
            pipelines=tuple(run_params["pipeline_names"] or ["__default__"]),
            env=str(run_params["env"]),
            command_line={**given, "params": run_params["runtime_params"]},
            parameters=self._parameters,
            commit=_commit(self._project),
            packages={name: _version(name) for name in PACKAGES},
            machine={"host": platform.node(), "system": platform.platform(), "python": platform.python_version()},
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
            status="running",
            nodes={},
        )

    @hook_impl
    def before_node_run(self) -> None:
        """Start the node's clock."""
        self._node_begun = time.monotonic()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Note what a node has written, and what it had read."""
        if self._record is None or self._catalog is None:
            return
        outputs = {**self._node(node).outputs, dataset_name: _version_of(self._catalog, dataset_name, saved=True)}
        inputs: Versions = {
            name: _version_of(self._catalog, name) for name in node.inputs if not name.startswith("params:")
        }
        one = NodeRecord(inputs=inputs, outputs=outputs, seconds=round(time.monotonic() - self._node_begun, 3))
        nodes = {**self._record.nodes, node.name: one}
        self._update(nodes=nodes)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """End the record."""
        self._update(status="finished")

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End the record of a run that failed."""
        first = next(iter(str(error).splitlines()), "")
        self._update(status=f"failed: {type(error).__name__} {first}"[:200])

    def _node(self, node: Node) -> NodeRecord:
        nodes = self._record.nodes if self._record else {}
        return nodes.get(node.name, NodeRecord(inputs={}, outputs={}, seconds=0.0))

    def _update(self, **values: Any) -> None:
        if self._record is None or (not self._record.nodes and "nodes" not in values):
            return
        seconds = round(time.monotonic() - self._begun, 3)
        self._record = self._record.model_copy(update={**values, "seconds": seconds})
        write_record(self._record, self._data)

    def _refuse_skipping(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        records = read_records(self._data)
        for node in pipeline.nodes:
            versions = [_version_of(catalog, name) for name in node.outputs]
            if not versions or any(name is None or name not in records for name in versions):
                continue
            before, read = records[str(versions[0])].parameters, [n for n in node.inputs if n.startswith("params:")]
            changed: dict[str, tuple[Any, Any]] = {}
            for name in (name.removeprefix("params:") for name in read):
                changed |= changes({name: _get(before, name)}, {name: _get(self._parameters, name)})
            if changed:
                named = [f"{name} was {old} and is {new}" for name, (old, new) in list(changed.items())[:NAMED]]
                raise ValueError(
                    f"--only-missing-outputs would skip {node.name}, but {', '.join(named)}; "
                    f"run it anew with --from-nodes={node.name}"
                )


def _version_of(catalog: CatalogProtocol[Any, Any], name: str, saved: bool = False) -> str | None:
    """The version that a dataset is saved as or loads; None for one without, or that is not there."""
    dataset = catalog.get(name)
    if not isinstance(dataset, AbstractVersionedDataset) or getattr(dataset, "_version", None) is None:
        return None
    if saved:
        return dataset.resolve_save_version()
    return dataset.resolve_load_version() if dataset.exists() else None


def _get(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _commit(project: Path) -> str:
    """The commit that the project stands on, and whether it has changes; empty outside a repository."""
    try:
        command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
