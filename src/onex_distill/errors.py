"""Errors of a run that Python has no name for."""


class Interrupted(RuntimeError):
    """A run was asked to stop, saved what it had, and goes on from there when it is started again."""


class RankError(RuntimeError):
    """A rank died, and was not or no longer restarted."""


# What a user can mend: told in one line, and not tried again by a restart of the ranks.
USER_ERRORS = (ValueError, FloatingPointError, MemoryError, OSError)
