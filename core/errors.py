"""Errors that a user can act on.

Every :class:`TubeletError` message says what was wrong, the offending value and what to do. The
command line prints the message alone (exit code 2); a traceback appears only with ``--debug``.
Programming mistakes inside tubelet stay ordinary exceptions.
"""


class TubeletError(Exception):
    """Base of every error caused by input, files or the machine rather than by a bug."""


class Stopped(TubeletError):
    """A run was asked to stop by a signal, and saved. The command line exits with 0."""


class ConfigError(TubeletError, ValueError):
    """A configuration key or value is unknown, ill-typed or impossible."""


class CheckpointError(TubeletError):
    """A checkpoint is missing, damaged, or belongs to another architecture."""


class DatasetError(TubeletError):
    """A corpus or trajectory set is empty, damaged or in an unknown layout."""


class VideoDecodeError(DatasetError):
    """One video file cannot be decoded.

    Attributes:
        path: the file. reason: what the decoder said. backend: which decoder.
    """

    def __init__(self, path: object, reason: str, backend: str):
        self.path, self.reason, self.backend = str(path), reason, backend
        super().__init__(f"{path}: {reason} [{backend}]")

    def __reduce__(self):  # three-argument __init__ must survive worker processes
        return type(self), (self.path, self.reason, self.backend)


class RenderError(TubeletError):
    """No headless OpenGL back end works on this machine."""


class PlanningError(TubeletError, ValueError):
    """A planner was given impossible bounds, shapes or budgets."""
