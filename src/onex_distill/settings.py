"""Kedro's project settings."""

from onex_distill.hooks import FinishedRunsHook

HOOKS = (FinishedRunsHook(),)

CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
