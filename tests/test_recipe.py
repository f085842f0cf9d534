"""``extends`` and ``like`` in conf."""

import pytest

from onex_distill.recipe import RecipeConfigLoader, resolve_likes


@pytest.fixture
def load(tmp_path):
    """``load(env, files)``: the loader of an environment in a conf folder of these files."""

    def make(env, files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return RecipeConfigLoader(
            str(tmp_path), env, base_env="base", default_run_env="local", merge_strategy={"parameters": "soft"}
        )

    return make


FILES = {
    "base/parameters_one.yml": "student: {one: {seed: 1, loop: {steps: 9, log: 3}}}",
    "base/parameters_two.yml": "other: {one: {like: student.one, loop: {steps: 5}}}",
    "base/catalog_paths.yml": "_data: ${globals:data}",
    "base/globals.yml": "data: here",
    "family/parameters.yml": "student: {one: {seed: 2, loop: {log: 4}}}",
    "family/catalog.yml": "table: {type: a.B, filepath: '${_data}/${globals:name}', layer: raw}",
    "child/globals.yml": "{extends: family, data: there, name: mine}",
    "child/parameters.yml": "student: {one: {loop: {log: 6}}}",
    "child/catalog.yml": "table: {layer: late}",
    "grandchild/globals.yml": "{extends: child, name: its}",
    "grandchild/parameters.yml": "other: {one: {seed: 7}}",
}


def test_an_environment_says_what_differs_from_the_one_that_it_extends(load):
    loader = load("child", FILES)
    assert loader["parameters"]["student"] == {"one": {"seed": 2, "loop": {"steps": 9, "log": 6}}}
    assert loader["catalog"]["table"] == {"type": "a.B", "filepath": "there/mine", "layer": "late"}


def test_extending_goes_over_several_environments(load):
    loader = load("grandchild", FILES)
    assert loader["parameters"]["other"] == {"one": {"seed": 7, "loop": {"steps": 5, "log": 6}}}
    assert loader["catalog"]["table"]["filepath"] == "there/its"


def test_a_group_follows_what_an_environment_changes_in_the_one_it_is_like(load):
    assert load("base", FILES)["parameters"]["other"] == {"one": {"seed": 1, "loop": {"steps": 5, "log": 3}}}
    assert load("family", FILES | {"family/globals.yml": "name: x"})["parameters"]["other"]["one"]["seed"] == 2


def test_circles_are_refused(load):
    with pytest.raises(ValueError, match="conf/child extends itself"):
        load("child", FILES | {"family/globals.yml": "extends: child"})
    with pytest.raises(ValueError, match=r"like each other in a circle: b, a, b"):
        resolve_likes({"a": {"like": "b"}, "b": {"like": "a"}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("studnt.one", r"like: studnt\.one: unknown group of parameters 'studnt'; did you mean 'student'"),
        ("student.two", r"unknown group of parameters 'two'"),
        ("student.one.seed", r"is no group of parameters but the value 1"),
    ],
)
def test_a_group_that_is_not_there_is_named(name, message):
    tree = {"student": {"one": {"seed": 1}}, "other": {"like": name}}
    with pytest.raises(ValueError, match=message):
        resolve_likes(tree)


def test_groups_are_found_inside_groups_that_are_like_others():
    tree = {"a": {"one": {"lr": 1, "eps": 2}}, "b": {"like": "a"}, "c": {"like": "b.one", "lr": 3}}
    assert resolve_likes(tree)["c"] == {"lr": 3, "eps": 2}
    assert resolve_likes(tree)["b"] == {"one": {"lr": 1, "eps": 2}}
