"""Kedro's project settings."""

from onex_distill.catalog import OrderedCatalog
from onex_distill.context import LightContext
from onex_distill.hooks import (
    BuiltTeacherHook,
    FinishedRunsHook,
    KnownNamesHook,
    MissingInputsHook,
    PreflightHook,
    ProgressHook,
    RecordHook,
    RunFoldersHook,
)
from onex_distill.process import keep_memory, share_cores
from onex_distill.recipe import RecipeConfigLoader
from onex_distill.terminal import silence_foreign

silence_foreign()
share_cores()
keep_memory()

HOOKS = (
    KnownNamesHook(),
    BuiltTeacherHook(),
    MissingInputsHook(),
    PreflightHook(),
    RecordHook(),
    ProgressHook(),
    RunFoldersHook(),
    FinishedRunsHook(),
)

CONTEXT_CLASS = LightContext

DATA_CATALOG_CLASS = OrderedCatalog

CONFIG_LOADER_CLASS = RecipeConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},  # an environment names only what it changes
}
