"""What a terminal shows: the project's own lines, above the bars, and nothing that nobody can act on."""

import logging
import os
import textwrap
import warnings
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.text import Text

FOREIGN = (  # of other packages, about their own code
    "register_new_resolver",
    "Option '--pipeline' is deprecated",
    "Accessing the 'model_fields' attribute on the instance",
    "One or more dataset names contain '.' characters",  # Kedro's own factories take dotted namespaces
    "Namespace '.*' is interrupted by nodes",
    "The `disp` argument is deprecated",
    ".*ORJSON",
    ".*IProgress not found",
    ".*workflow tracking",
    "Constructing a DataFrame from a list of sequences with mismatched lengths",
)
INDENT, MIN_WIDTH = " " * 9, 40  # of lines that are broken: the width of the time
FILE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def silence_foreign() -> None:
    """Ignore warnings, bars and messages of other packages; ranks inherit it by the environment."""
    for message in FOREIGN:
        warnings.filterwarnings("ignore", message=f"\\s*{message}")
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@cache
def console() -> Console:
    """Where log lines and bars are drawn together: the stream of errors, as results alone belong to the other."""
    return Console(stderr=True, highlight=False, force_jupyter=False)


def silence_loading_bars() -> None:
    """Hide the bars with which models of a second or two are loaded."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


class ConsoleHandler(logging.Handler):
    """Lines above the bars; in a terminal they break between words, and later lines are indented below the first."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        try:
            style = "yellow" if record.levelno >= logging.WARNING else ""
            for line in self.lines(self.format(record)):
                console().print(Text(line, style), soft_wrap=True)
        except Exception:
            self.handleError(record)

    def lines(self, text: str) -> list[str]:
        """What a text looks like in a terminal of this width; tables keep their lines."""
        first, *others = text.splitlines() or [""]
        if not console().is_terminal:
            return [first, *others]
        width = max(MIN_WIDTH, console().width)
        wrapped = textwrap.wrap(first, width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)
        return [*wrapped, *others]


class OwnFormatter(logging.Formatter):
    """The time and the text; what is more than information says so."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line."""
        level = f"{record.levelname}: " if record.levelno > logging.INFO else ""
        return f"{record.asctime} {level}{record.message}"

    def usesTime(self) -> bool:
        """Whether records need their time."""
        return True


def own_lines(record: logging.LogRecord) -> bool:
    """Whether a line is for the terminal: Kedro's are not, and an error is shown once, by the command."""
    return not record.name.startswith(("kedro", "bitsandbytes")) and record.levelno >= logging.INFO


def tidy_console() -> None:
    """Replace the console's handler by one that prints above bars, without Kedro's lines."""
    root = logging.getLogger()
    for handler in root.handlers:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
            root.addHandler(console_handler())
    logging.getLogger("kedro").setLevel(logging.INFO)
    logging.getLogger("onex_distill").setLevel(logging.DEBUG)


def console_handler() -> logging.Handler:
    """What prints the lines of a run, or of its first rank."""
    handler = ConsoleHandler(logging.INFO)
    handler.setFormatter(OwnFormatter(datefmt="%H:%M:%S"))
    handler.addFilter(own_lines)
    return handler


def log_to(path: Path) -> logging.Handler:
    """Begin a file with every line, Kedro's and each logged step's too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(FILE_FORMAT))
    logging.getLogger().addHandler(handler)
    return handler


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
