"""Writes a run's records as TensorBoard event files."""

import re
import socket
from pathlib import Path
from time import time

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from distributed_pg.monitoring.scalars import scalars_of
from distributed_pg.storage.metrics import UpdateRecord

FOLDER = "tensorboard"
"""Folder of the event files within the run's folder."""


class TensorBoardSink:
    """A :class:`distributed_pg.monitoring.sinks.Sink` for TensorBoard.

    It does not use tensorboardX's SummaryWriter, which writes in its own thread, where a full disk
    goes unnoticed, and names its files by the clock alone.

    Args:
        run: the run's folder.
        episodes: episodes done when the run starts or resumes. The new events hide those of later
            episodes, which a killed process may have left.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, run: Path, episodes: int) -> None:
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        self._records = RecordWriter(str(_new_file(folder)))
        self._write(Event(wall_time=time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time(), step=episodes + 1, session_log=start))
        self._records.flush()

    def write(self, record: UpdateRecord) -> None:
        """See :meth:`distributed_pg.monitoring.sinks.Sink.write`."""
        for step, scalars in scalars_of(record):
            self._add(step, scalars)
        self._records.flush()

    def close(self) -> None:
        """See :meth:`distributed_pg.monitoring.sinks.Sink.close`."""
        self._records.close()

    def _add(self, step: int, scalars: dict[str, float]) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(Event(wall_time=time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def _new_file(folder: Path) -> Path:
    """A path for an event file whose name sorts after all existing ones.

    TensorBoard reads files in the order of their names, which usually start with their time of
    creation in seconds. But the clock may be set back, and a run may be resumed within a second.
    """
    matches = [re.match(r"events\.part(\d+)\.", path.name) for path in folder.iterdir()]
    part = 1 + max((int(match[1]) for match in matches if match), default=0)
    # "part" sorts after the "out" that other writers put in its place.
    return folder / f"events.part{part:06}.out.tfevents.{int(time()):010}.{socket.gethostname()}"
