"""Upload a run's folder at its URI in the background; training never waits for the store."""

import logging
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from distributed_pg.errors import RunError, one_line
from distributed_pg.storage.object_store import RemoteRun, TakenOverError

_LOG = logging.getLogger(__name__)

BEGIN_SECONDS = 25.0
"""How long the store may take for the first files before the run does not begin."""
END_SECONDS = 60.0
"""How long the last checkpoint may take to be uploaded when the run ends."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds to wait after a failure before trying again; doubled each time, up to the longest."""


class NoAnswerError(RunError):
    """The store is silent; what was sent to it may arrive yet."""


@dataclass(slots=True)
class _State:
    """What the thread that uploads shares with the run's."""

    changes: int = 0
    """How often the folder has changed."""
    uploaded: int = 0
    """How many of these changes the store has."""
    error: RunError | None = None
    """Why the last try failed; None: it did not."""
    end_by: float = math.inf
    """When to give up."""

    @property
    def is_due(self) -> bool:
        """Whether there is something to upload."""
        return self.uploaded < self.changes


class Uploader:
    """Uploads a folder each time it changed; where that fails, tries again until it works.

    Args:
        remote: where to.
    """

    def __init__(self, remote: RemoteRun) -> None:
        self._remote = remote
        self._state, self._news = _State(), threading.Condition()  # which guards the state
        self._folder = Path()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    def upload(self, folder: Path) -> None:
        """The folder of the run has changed. The first time, wait until it is uploaded.

        Raises:
            NoAnswerError: the store is silent.
            RunError: it cannot be reached, or denies.
        """
        with self._news:
            self._state.changes += 1
            self._news.notify_all()
        if self._thread.ident is None:
            self._begin(folder)

    def _begin(self, folder: Path) -> None:
        state, self._folder = self._state, folder
        self._thread.start()
        with self._news:
            if not self._news.wait_for(lambda: state.uploaded or state.error, BEGIN_SECONDS):
                raise NoAnswerError(f"{self._remote.uri}: no answer within {BEGIN_SECONDS:.0f} s")
            if state.error is not None:
                raise state.error
        _LOG.info(f"The run is kept at {self._remote.uri}, and meanwhile in {folder}")

    def check(self) -> None:
        """See to it that the run is still this process's.

        Raises:
            TakenOverError: another process uploads there.
        """
        with self._news:
            if isinstance(self._state.error, TakenOverError):
                raise self._state.error

    def end(self) -> None:
        """Upload what is not uploaded yet, and stop.

        Raises:
            RunError: the store fails, and what it lacks is in the folder only.
        """
        self._end_within(END_SECONDS)
        with self._news:
            if self._state.is_due:
                raise self._not_uploaded()

    def withdraw(self) -> None:
        """Stop, and take away what was uploaded; a run that was there before stays.

        Raises:
            RunError: the store does not answer, or denies.
        """
        with self._news:
            self._state.changes = self._state.uploaded
        self._end_within(FIRST_WAIT)
        if self._state.uploaded and self._remote.is_new:
            self._remote.remove()

    def _end_within(self, seconds: float) -> None:
        with self._news:
            self._state.end_by = time.monotonic() + seconds
            self._news.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds + 1.0)

    def _not_uploaded(self) -> RunError:
        error = self._state.error
        if isinstance(error, TakenOverError):
            return TakenOverError(f"{error}; what this one has made is in {self._folder}")
        reason = error or f"{self._remote.uri}: no answer within {END_SECONDS:.0f} s"
        return RunError(
            f"{reason}; the last checkpoint is in {self._folder} only. What was uploaded "
            "before is still there, and --resume goes on from it"
        )

    def _work(self) -> None:
        state, wait = self._state, FIRST_WAIT
        while True:
            with self._news:
                self._news.wait_for(lambda: state.is_due or state.end_by < math.inf)
                if not state.is_due:
                    return
                changes = state.changes
            error = self._try()
            self._tried(changes, error)
            if error is None:
                wait = FIRST_WAIT
            elif isinstance(error, TakenOverError) or not self._waited(wait):
                return
            else:
                wait = min(2 * wait, LONGEST_WAIT)

    def _try(self) -> RunError | None:
        try:
            self._remote.upload(self._folder)
        except RunError as error:
            return error
        # Whatever else happens in here must not end this thread unheard. The user is told what it
        # was, and it is tried again as any failure of the store is.
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {one_line(error)}"
            return RunError(f"{self._remote.uri}: cannot be written ({reason})")
        return None

    def _tried(self, changes: int, error: RunError | None) -> None:
        """Note how it went, and tell the user when that is news."""
        with self._news:
            before, self._state.error = self._state.error, error
            if error is None:
                self._state.uploaded = changes
            has_begun = self._state.uploaded > 0
            self._news.notify_all()
        if error is None and before is not None:
            _LOG.info(f"{self._remote.uri}: the run is uploaded again")
        # Who takes a run over is told of when it ends, which is soon.
        elif error and before is None and has_begun and not isinstance(error, TakenOverError):
            _LOG.warning(f"{error}; training goes on, and tries again")

    def _waited(self, seconds: float) -> bool:
        """Wait after a failure. False if there is no use in another try."""
        state = self._state
        with self._news:
            if state.uploaded == 0:
                return False
            self._news.wait(FIRST_WAIT if state.end_by < math.inf else seconds)
            return time.monotonic() < state.end_by
