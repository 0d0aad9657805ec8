"""Upload a run's folder at its URI in the background; training never waits for the store."""

import logging
import threading
import time
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


class Uploader:
    """Publishes a folder each time it changed; where that fails, tries again until it works.

    Args:
        remote: where to.
        folder: the run's folder.
    """

    def __init__(self, remote: RemoteRun, folder: Path) -> None:
        self._remote = remote
        self._folder = folder
        self._state = threading.Condition()  # guards all that follows
        self._changes, self._uploaded = 1, 0
        self._end_by: float | None = None  # when to give up; None: never
        self._error: RunError | None = None
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    @property
    def has_uploaded(self) -> bool:
        """Whether the store has taken the folder at least once."""
        return self._uploaded > 0

    def begin(self) -> None:
        """Upload the folder for the first time.

        Raises:
            NoAnswerError: the store is silent.
            RunError: it cannot be reached, or denies.
        """
        self._thread.start()
        with self._state:
            if not self._state.wait_for(lambda: self._uploaded or self._error, BEGIN_SECONDS):
                raise NoAnswerError(f"{self._remote.uri}: no answer within {BEGIN_SECONDS:.0f} s")
            if self._error is not None:
                raise self._error

    def changed(self) -> None:
        """There is something new to upload."""
        with self._state:
            self._changes += 1
            self._state.notify_all()

    def check(self) -> None:
        """See to it that the run is still this process's.

        Raises:
            TakenOverError: another process uploads there.
        """
        with self._state:
            if isinstance(self._error, TakenOverError):
                raise self._error

    def end(self) -> None:
        """Upload what is not uploaded yet, and stop. Nothing is done if nothing was begun.

        Raises:
            RunError: the store fails, and what it lacks is in the folder only.
        """
        self._end_within(END_SECONDS)
        with self._state:
            if self._thread.ident is not None and self._uploaded < self._changes:
                raise self._not_uploaded()

    def stop(self) -> None:
        """Stop, and leave what is not uploaded yet: the folder is about to be removed."""
        with self._state:
            self._uploaded, self._changes = min(self._uploaded, 1), min(self._uploaded, 1)
        self._end_within(FIRST_WAIT)

    def _end_within(self, seconds: float) -> None:
        with self._state:
            self._end_by = time.monotonic() + seconds
            self._state.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds + 1.0)

    def _not_uploaded(self) -> RunError:
        if isinstance(self._error, TakenOverError):
            return TakenOverError(f"{self._error}; what this one has made is in {self._folder}")
        reason = self._error or f"{self._remote.uri}: no answer within {END_SECONDS:.0f} s"
        return RunError(
            f"{reason}; the last checkpoint is in {self._folder} only. What was uploaded "
            "before is still there, and --resume goes on from it"
        )

    def _work(self) -> None:
        wait = FIRST_WAIT
        while True:
            with self._state:
                self._state.wait_for(lambda: self._uploaded < self._changes or self._end_by)
                changes = self._changes
                if self._uploaded == changes:
                    return
            error = self._upload()
            if error is None:
                self._worked(changes)
                wait = FIRST_WAIT
                continue
            self._failed(error)
            if isinstance(error, TakenOverError) or not self._waited(wait):
                return
            wait = min(2 * wait, LONGEST_WAIT)

    def _upload(self) -> RunError | None:
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

    def _waited(self, seconds: float) -> bool:
        """Wait after a failure. False if there is no use in another try."""
        with self._state:
            if self._uploaded == 0:
                return False
            self._state.wait(seconds if self._end_by is None else FIRST_WAIT)
            return self._end_by is None or time.monotonic() < self._end_by

    def _failed(self, error: RunError) -> None:
        with self._state:
            first = self._error is None and self._uploaded > 0
            self._error = error
            self._state.notify_all()
        # Who takes a run over is told of when it ends, which is soon.
        if first and not isinstance(error, TakenOverError):
            _LOG.warning(f"{error}; training goes on, and tries again")

    def _worked(self, changes: int) -> None:
        with self._state:
            again, self._error = self._error is not None, None
            self._uploaded = changes
            self._state.notify_all()
        if again:
            _LOG.info(f"{self._remote.uri}: the run is uploaded again")
