"""Commands with one line instead of a traceback for what a user can mend."""

import os
import re
from typing import Any

import click
from kedro.io.core import DatasetError
from kedro.validation.exceptions import ParameterValidationError

from onex_distill.errors import USER_ERRORS, Interrupted, RankError

ONE_LINE = (*USER_ERRORS, DatasetError, ParameterValidationError, RankError)
WRAPPED = "Failed while "  # how Kedro begins its own message
TRACEBACK_VARIABLE = "ONEX_TRACEBACK"


class Stopped(click.ClickException):
    """A run that was asked to stop; the exit status is the one that shells know from Ctrl-C."""

    exit_code = 130


class OneLineErrors(click.Command):
    """A command that reports user errors as ``Error: ...`` and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; set ONEX_TRACEBACK=1 to see where an error came from."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of the output has left, as head does; click ends quietly
            raise
        except ONE_LINE as error:
            if os.environ.get(TRACEBACK_VARIABLE):
                raise
            raise click.ClickException(f"{readable(error)} ({TRACEBACK_VARIABLE}=1 shows the traceback)") from error
        except Interrupted as error:
            raise Stopped(f"{error}; the same command goes on from there") from error
        except KeyboardInterrupt as error:
            raise Stopped("stopped; the same command goes on with the training that was running") from error


def readable(error: BaseException) -> str:
    """The message of the error that started a chain, without the wrapping that Kedro and pydantic add."""
    while isinstance(error, DatasetError) and str(error).startswith(WRAPPED) and error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith("For further information")]
    text = re.sub(r"- Parameter '[^']*': Failed to instantiate \w+ for parameter ", "parameter ", " ".join(kept))
    text = re.sub(r" full_key: (\S*)( object_type=\w+)?$", r" (in \1)", text)  # of OmegaConf
    text = re.sub(r"\d+ validation errors? for \w+ ?", "", text).removeprefix("Parameter validation failed: ")
    return re.sub(r" \[type=\w+, input_value=(.*?), input_type=\w+\]", r" (got \1)", text)
