"""Uploads a run's folder to its URI in the background; training never waits for the store."""

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
"""Time limit for the first upload; the run does not start without it."""
END_SECONDS = 60.0
"""Time limit for uploading the last checkpoint when the run ends."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before a failed upload is retried; doubled after each failure, up to the longest."""


class NoAnswerError(RunError):
    """The store does not answer; what was sent to it may still arrive."""


@dataclass(slots=True)
class _State:
    """State shared by the upload thread and the training thread."""

    changes: int = 0
    """Number of times the folder has changed."""
    uploaded: int = 0
    """Number of these changes that are uploaded."""
    error: RunError | None = None
    """The error of the last attempt; None: it succeeded."""
    end_by: float = math.inf
    """When to give up."""

    @property
    def is_due(self) -> bool:
        """Whether there are changes to upload."""
        return self.uploaded < self.changes


class Uploader:
    """Uploads a folder after each change, and retries until that succeeds.

    Args:
        remote: the run in the store.
    """

    def __init__(self, remote: RemoteRun) -> None:
        self._remote = remote
        self._state, self._changed = _State(), threading.Condition()  # guards the state
        self._folder = Path()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    def upload(self, folder: Path) -> None:
        """Schedule an upload of the changed folder; the first call waits for the upload.

        Args:
            folder: the run's folder, the same in every call.

        Raises:
            NoAnswerError: the store does not answer.
            RunError: the store cannot be reached, or denies access.
        """
        with self._changed:
            self._state.changes += 1
            self._changed.notify_all()
        if self._thread.ident is None:
            self._begin(folder)

    def _begin(self, folder: Path) -> None:
        state, self._folder = self._state, folder
        self._thread.start()
        with self._changed:
            if not self._changed.wait_for(lambda: state.uploaded or state.error, BEGIN_SECONDS):
                raise NoAnswerError(f"{self._remote.uri}: no answer within {BEGIN_SECONDS:.0f} s")
            if state.error is not None:
                raise state.error
        _LOG.info(f"The run is kept at {self._remote.uri}, with a local copy in {folder}")

    def check(self) -> None:
        """Check that no other process has taken over the run.

        Raises:
            TakenOverError: another process uploads to the URI.
        """
        with self._changed:
            if isinstance(self._state.error, TakenOverError):
                raise self._state.error

    def end(self) -> None:
        """Upload the remaining changes and stop.

        Raises:
            RunError: the upload failed; the latest state is only in the folder.
        """
        self._end_within(END_SECONDS)
        with self._changed:
            if self._state.is_due:
                raise self._not_uploaded()

    def withdraw(self) -> None:
        """Stop and remove what was uploaded; a run that was there before stays.

        Raises:
            RunError: the store does not answer, or denies access.
        """
        with self._changed:
            self._state.changes = self._state.uploaded
        self._end_within(FIRST_WAIT)
        if self._state.uploaded and self._remote.is_new:
            self._remote.remove()

    def _end_within(self, seconds: float) -> None:
        with self._changed:
            self._state.end_by = time.monotonic() + seconds
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds + 1.0)

    def _not_uploaded(self) -> RunError:
        error = self._state.error
        if isinstance(error, TakenOverError):
            return TakenOverError(f"{error}; the work of this process is in {self._folder}")
        reason = error or f"{self._remote.uri}: no answer within {END_SECONDS:.0f} s"
        return RunError(
            f"{reason}; the last checkpoint is in {self._folder} only. What was uploaded "
            "before is still there, and --resume continues from it"
        )

    def _work(self) -> None:
        state, wait = self._state, FIRST_WAIT
        while True:
            with self._changed:
                self._changed.wait_for(lambda: state.is_due or state.end_by < math.inf)
                if not state.is_due:
                    return
                changes = state.changes
            error = self._attempt()
            self._record(changes, error)
            if error is None:
                wait = FIRST_WAIT
            elif isinstance(error, TakenOverError) or not self._wait_to_retry(wait):
                return
            else:
                wait = min(2 * wait, LONGEST_WAIT)

    def _attempt(self) -> RunError | None:
        try:
            self._remote.upload(self._folder)
        except RunError as error:
            return error
        # An unexpected error must not end this thread silently. It is reported and retried like any
        # failure of the store.
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {one_line(error)}"
            return RunError(f"{self._remote.uri}: cannot be written ({reason})")
        return None

    def _record(self, changes: int, error: RunError | None) -> None:
        """Record the result of an attempt, and log it if it differs from the previous one."""
        with self._changed:
            before, self._state.error = self._state.error, error
            if error is None:
                self._state.uploaded = changes
            has_begun = self._state.uploaded > 0
            self._changed.notify_all()
        if error is None and before is not None:
            _LOG.info(f"{self._remote.uri}: the run is uploaded again")
        # A takeover is not logged here: it ends the run, which reports it.
        elif error and before is None and has_begun and not isinstance(error, TakenOverError):
            _LOG.warning(f"{error}; training goes on, the upload is retried")

    def _wait_to_retry(self, seconds: float) -> bool:
        """Wait after a failure; return whether to try again."""
        state = self._state
        with self._changed:
            if state.uploaded == 0:
                return False
            self._changed.wait(FIRST_WAIT if state.end_by < math.inf else seconds)
            return time.monotonic() < state.end_by
