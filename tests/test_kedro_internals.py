"""What the project overrides of Kedro's underscored methods; pyproject holds the release that has them."""

import inspect
import sys
import tomllib

import kedro
import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.pipeline import Node as KedroNode
from kedro.pipeline import pipeline
from packaging.requirements import Requirement

from onex_distill.pipelines.lazy import LazyFunction, Node
from support import PROJECT


def test_the_installed_release_is_the_one_that_is_held():
    lines = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    (held,) = (Requirement(line) for line in lines if Requirement(line).name == "kedro")
    assert kedro.__version__ in held.specifier
    assert "1.8.0" not in held.specifier
    assert "1.6.0" not in held.specifier


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (OmegaConfigLoader._read_raw_config, ["self", "key"]),
        (OmegaConfigLoader._get_conf_env_path, ["self", "env"]),
        (
            OmegaConfigLoader._read_dir_configs,
            ["self", "conf_path", "patterns", "key", "processed_files", "read_environment_variables"],
        ),
        (KedroContext._get_catalog, ["self", "catalog_class", "save_version", "load_versions"]),
        (KedroNode._copy, ["self", "overwrite_params"]),
    ],
)
def test_methods_take_what_their_overrides_pass_on(method, parameters):
    assert list(inspect.signature(method).parameters) == parameters


def test_base_and_environment_are_read_through_the_overridden_method(tmp_path):
    for folder, text in {"base": "a: 1", "mine": "b: 2"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "parameters.yml").write_text(text)

    class Loader(OmegaConfigLoader):
        def _read_raw_config(self, key):
            base, own, base_path, env_path, processed = super()._read_raw_config(key)
            if key != "parameters":
                return base, own, base_path, env_path, processed
            assert {path.name for path in (*base, *own)} == {"parameters.yml"}
            assert (base_path, env_path) == (str(tmp_path / "base"), str(tmp_path / "mine"))
            assert processed == {*base, *own}
            return base, {**own, tmp_path / "more.yml": {"c": 3}}, base_path, env_path, processed

    loader = Loader(str(tmp_path), "mine", base_env="base", default_run_env="mine")
    assert loader["parameters"] == {"a": 1, "b": 2, "c": 3}


def test_the_scope_of_a_check_is_an_attribute_of_the_context():
    assert "_pipelines_to_validate" in inspect.getsource(KedroContext._get_validated_params)
    assert "self.params" in inspect.getsource(KedroContext._get_parameters)


def test_a_copy_of_a_node_is_lazy_still():
    module = "wsgiref.validate"
    sys.modules.pop(module, None)
    node = Node(LazyFunction(module, "validator"), "a", "b", name="check")
    (copied,) = pipeline(pipeline([node]), namespace="mine").nodes
    assert type(copied) is Node
    assert isinstance(copied._func, LazyFunction)
    assert copied.name == "mine.check"
    assert module not in sys.modules
    assert copied.func.__name__ == "validator"
    assert module in sys.modules
