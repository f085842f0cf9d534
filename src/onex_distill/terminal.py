"""What a terminal shows: the project's own lines, above the bars, and nothing that nobody can act on."""

import logging
import os
import warnings
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

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
FILE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def silence_foreign() -> None:
    """Ignore warnings, bars and messages of other packages; ranks inherit it by the environment."""
    for message in FOREIGN:
        warnings.filterwarnings("ignore", message=f"\\s*{message}")
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def share_cores() -> None:
    """Let waiting threads sleep, unless the user has chosen; OpenMP reads it when torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def silence_loading_bars() -> None:
    """Hide the bars with which models of a second or two are loaded."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


class AboveBars:
    """A stream whose lines appear above tqdm's bars instead of inside them."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write lines; the bars are drawn again below them."""
        tqdm.write(text, file=self.stream, end="")
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self.stream.flush()


def own_lines(record: logging.LogRecord) -> bool:
    """Whether a line is for the terminal: Kedro's are not, and an error is shown once, by the command."""
    return not record.name.startswith(("kedro", "bitsandbytes")) and record.levelno >= logging.INFO


def tidy_console() -> None:
    """Let the console's handler write above bars, without Kedro's lines."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler and not isinstance(handler.stream, AboveBars):
            handler.setStream(AboveBars(handler.stream))
            handler.addFilter(own_lines)
    logging.getLogger("kedro").setLevel(logging.INFO)
    logging.getLogger("onex_distill").setLevel(logging.DEBUG)


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
