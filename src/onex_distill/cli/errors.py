"""Commands with one line instead of a traceback for what a user can mend."""

import os
from typing import Any

import click
from kedro.io.core import DatasetError
from kedro.validation.exceptions import ParameterValidationError
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from onex_distill.errors import USER_ERRORS, Interrupted, RankError
from onex_distill.parameters import explained

ONE_LINE = (*USER_ERRORS, DatasetError, ParameterValidationError, RankError)
WRAPPED, FAILED = "Failed while ", "Failed to instantiate "  # how Kedro begins its own messages
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
    if isinstance(error, ValidationError):
        return explained(error)
    if isinstance(error, OmegaConfBaseException):
        return f"{str(error.msg).splitlines()[0]} (in {error.full_key})"
    if isinstance(error, ParameterValidationError):
        return "; ".join(_of_parameter(line) for line in str(error).splitlines()[1:])
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _of_parameter(line: str) -> str:
    """A line of Kedro's without the class that it could not make: - Parameter 'name': Failed ... 'name': why."""
    name, _, why = line.removeprefix("- Parameter ").partition(": ")
    return f"parameter {name}: {why.removeprefix(FAILED).partition(': ')[2] if why.startswith(FAILED) else why}"
