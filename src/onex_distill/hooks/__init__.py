"""Kedro hooks: what is checked before a run, and what is tidied after it."""

from onex_distill.hooks.built_teacher import BuiltTeacherHook
from onex_distill.hooks.inputs import MissingInputsHook
from onex_distill.hooks.parameters import KnownNamesHook
from onex_distill.hooks.preflight import PreflightHook
from onex_distill.hooks.progress import ProgressHook
from onex_distill.hooks.records import RecordHook
from onex_distill.hooks.runs import FinishedRunsHook, RunFoldersHook

__all__ = [
    "BuiltTeacherHook",
    "FinishedRunsHook",
    "KnownNamesHook",
    "MissingInputsHook",
    "PreflightHook",
    "ProgressHook",
    "RecordHook",
    "RunFoldersHook",
]
