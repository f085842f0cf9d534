"""What a run could fail of later, found before its first node."""

from onex_distill.pipelines.preflight.checks import check_run

__all__ = ["check_run"]
