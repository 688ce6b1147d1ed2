"""Every error a user can meet, and the exit code it ends a command with.

SdfError                       1   something the message explains
├── UsageError                 2   the caller must change a flag, a file or a value
│   ├── RecipeError                a recipe, or a flag that overrides one
│   ├── GenreError                 a genre file, always with file and line
│   ├── ConstitutionError          a text that yields no principles
│   ├── TokenizerError             an unknown encoding or a damaged vocabulary
│   ├── SourceError                a source file a genre reads rows from
│   ├── StreamError                how a corpus is asked to be read, or a state that does not belong to it
│   └── RecipeChanged              DIR was made by a recipe that differs
├── StorageError               1   a directory that cannot be used, or a write that failed
│   ├── Missing                    a file that was asked for by name is not there
│   ├── StorageFull                no space left; what was committed is kept
│   ├── LeaseHeld                  another run is alive on this directory
│   └── Superseded                 a newer run took the directory over; this one must stop
├── StreamStalled              1   a growing corpus that is followed has not grown in time
├── DamagedError               1   a file whose bytes are not what was written, named
├── ProviderError              1   how one request failed
│   ├── RequestRejected            this request's own fault: it settles the brief
│   ├── Unavailable                shared trouble (timeout, 5xx): waits, never settles
│   │   └── RateLimited            the same, with the wait the server asked for
│   ├── Unauthorized           5   key, model or policy: stops the run at once
│   │   └── NotServed              nothing of that name at that address
│   └── EngineDead                 the engine of this process is gone: its worker is replaced
├── BudgetExhausted            4   the cap would be passed by the next request
└── CircuitOpen                1   a provider kept failing; the run stopped with everything kept
"""

from __future__ import annotations


class SdfError(Exception):
    """Base of all; `str(error)` says where, what, and the way out."""

    exit_code = 1


class UsageError(SdfError):
    exit_code = 2


class RecipeError(UsageError):
    """`at` is the place of the fault within the recipe, as keys and indices; () when it is named already, or none."""

    def __init__(self, message: str, at: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.at = at


class GenreError(UsageError):
    pass


class ConstitutionError(UsageError):
    pass


class TokenizerError(UsageError):
    pass


class SourceError(UsageError):
    pass


class StreamError(UsageError):
    pass


class RecipeChanged(UsageError):
    pass


class StorageError(SdfError):
    pass


class Missing(StorageError):
    pass


class StorageFull(StorageError):
    pass


class LeaseHeld(StorageError):
    pass


class Superseded(StorageError):
    pass


class StreamStalled(SdfError):
    pass


class DamagedError(SdfError):
    pass


class ProviderError(SdfError):
    pass


class RequestRejected(ProviderError):
    pass


class Unavailable(ProviderError):
    """`maybe_billed`: nobody can say whether the request was answered, and so billed, all the same."""

    def __init__(self, message: str, *, maybe_billed: bool = True) -> None:
        super().__init__(message)
        self.maybe_billed = maybe_billed


class RateLimited(Unavailable):
    """`retry_after` is in seconds; None when the server named no wait."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, maybe_billed=False)
        self.args = (message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class Unauthorized(ProviderError):
    exit_code = 5


class NotServed(Unauthorized):
    pass


class EngineDead(ProviderError):
    pass


class StillProcessing(SdfError):
    exit_code = 3


class BudgetExhausted(SdfError):
    exit_code = 4


class CircuitOpen(SdfError):
    pass
