"""Runs kept at a URI, in an object store such as S3.

A run trains in a local folder, and this module copies that folder. Each file goes to a separate key
that is never overwritten. Then ``run.json``, which maps files to keys, is replaced. So a reader
always finds one complete state of the run, no matter when the writer or the store stopped.
"""

import hashlib
import importlib
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from distributed_pg.errors import CheckpointError, RunError, UsageError, one_line, writing

POINTER = "run.json"
FORMAT = "distributed_pg run 1"
DATA = "data"
FETCH_ATTEMPTS = 3
"""Number of times a reader starts over because the run was uploaded while it was reading."""

_NAME = re.compile(r"config\.json|metrics\.jsonl|checkpoints/(best|update-\d{8,20})\.safetensors")
_KEY = re.compile(r"[0-9a-f]{20}-[\w.-]{1,60}")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_OPTIONS: dict[str, dict[str, Any]] = {
    # Training has its own retries, so a single attempt should fail quickly.
    "s3": {
        "config_kwargs": {
            "connect_timeout": 3,
            "read_timeout": 20,
            "retries": {"total_max_attempts": 1},
        }
    }
}


class TakenOverError(RunError):
    """Another process uploads to the same URI."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The key and checksum of a file in the store."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """The contents of ``run.json``."""

    writer: str
    """Id of the process that wrote it."""
    files: dict[str, Stored]


Choice: TypeAlias = Callable[[Collection[str]], Collection[str]]
"""Selects files of a run by name."""


def is_uri(location: str | Path | None) -> TypeGuard[str]:
    """Whether a location is a URI rather than a folder."""
    return isinstance(location, str) and "://" in location


class RemoteRun:
    """Reads the run at a URI, or writes it for this process.

    Args:
        uri: the run's URI.

    Raises:
        UsageError: the kind of store is unknown, or its package is not installed.
        RunError: the store cannot be opened.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        protocol = uri.partition("://")[0]
        extra = _EXTRAS.get(protocol)
        try:
            fsspec = importlib.import_module("fsspec")
            options = _OPTIONS.get(extra or "", {})
            # No cache, since other processes write there, too.
            self._fs, root = fsspec.url_to_fs(
                uri, skip_instance_cache=True, use_listings_cache=False, **options
            )
        except ImportError as error:
            advice = f"pip install 'distributed-pg[{extra}]'" if extra else one_line(error)
            raise UsageError(f"run_dir: {uri} needs another package: {advice}") from None
        except ValueError as error:
            raise UsageError(f"run_dir: {uri}: {one_line(error)}") from None
        except Exception as error:  # library-specific, such as missing credentials
            raise RunError(f"{uri}: cannot be opened ({_reason(error)})") from error
        self._root = root.rstrip("/")
        self._writer = uuid.uuid4().hex
        self._before: str | None = None  # the writer of the run that is resumed
        self._uploaded: dict[str, tuple[tuple[int, int], Stored]] = {}
        self._garbage: set[str] | None = None

    @property
    def is_new(self) -> bool:
        """Whether this process started the run rather than resuming it."""
        return self._before is None

    def pointer(self) -> Pointer | None:
        """Read the current ``run.json``; None if there is none.

        Raises:
            RunError: the store does not answer, or the file is not a valid ``run.json``.
        """
        with self._named("cannot be read"):
            try:
                text = self._fs.cat_file(f"{self._root}/{POINTER}")
            except FileNotFoundError:
                return None
        try:
            values = json.loads(text)
            files = {name: Stored(**stored) for name, stored in values["files"].items()}
            if values["format"] != FORMAT or not all(map(_is_valid, files, files.values())):
                raise ValueError(values["format"])
            return Pointer(str(values["writer"]), files)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise RunError(f"{self.uri}: {POINTER} is damaged, or not of a run") from None

    def fetch(
        self,
        folder: Path,
        wanted: Choice = sorted,
        lost: Callable[[str], None] | None = None,
    ) -> list[Path]:
        """Copy the run, or some of its files, into a folder.

        Args:
            folder: the folder.
            wanted: selects the files.
            lost: called with a message for each checkpoint that is damaged or missing, which is
                then skipped; None: raise an error instead.

        Returns:
            The copied files.

        Raises:
            CheckpointError: a file is damaged or missing.
            RunError: the run cannot be read, or the folder cannot be written.
        """
        files = self._read_all(wanted, lost)
        with writing(f"{folder}:"):
            for name, content in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return [folder / name for name in files]

    def check_is_free(self) -> None:
        """Check that there is nothing at the URI but what a killed start leaves: data of no run.

        Raises:
            UsageError: there is something else; the message names it.
            RunError: the store does not answer.
        """
        with self._named("cannot be read"):
            # A store may list the folder itself, as an empty name.
            names = self._names_in(self._root) - {"", POINTER, DATA}
            data = self._names_in(f"{self._root}/{DATA}") - {""}
        names |= {f"{DATA}/{name}" for name in data if not _KEY.fullmatch(name)}
        if strange := sorted(names):
            raise UsageError(
                f"run_dir: {self.uri} holds something else, {strange[0]}; resume auto needs a run, "
                "or a URI with nothing below it"
            )

    def take_over(self) -> None:
        """Take over the uploaded run, whose process has ended.

        Raises:
            UsageError: there is no run at the URI.
            RunError: the store does not answer.
        """
        self._before = self._existing().writer

    def upload(self, folder: Path) -> None:
        """Copy the current state of the run's folder to the store.

        Raises:
            TakenOverError: another process has uploaded to the URI.
            RunError: the folder is gone, or the store does not answer or denies access; the
                previous upload is intact.
        """
        pointer = self.pointer()
        if pointer is not None and pointer.writer not in (self._writer, self._before):
            raise TakenOverError(f"{self.uri} is in use: another process trains there")
        with self._named("cannot be written"):
            keys = self._all_keys()
            if self._garbage is None:
                self._garbage = keys
            # Keys that the store has lost are not in this set, so their files are copied again.
            # Another process may be deleting its keys, except those its pointer names.
            if pointer is not None and pointer.writer != self._writer:
                keys = keys & {stored.key for stored in pointer.files.values()}
            files = {name: self._put(folder, name, keys) for name in _names(folder)}
            new = Pointer(self._writer, {n: stored for n, stored in files.items() if stored})
            self._check_is_run(folder, new, pointer)
            text = json.dumps({"format": FORMAT, **asdict(new)}, indent=1)
            self._fs.pipe_file(f"{self._root}/{POINTER}", text.encode())
            self._remove_all_but({stored.key for stored in new.files.values()})

    def remove(self) -> None:
        """Remove what this process has uploaded, unless another process has uploaded since.

        Raises:
            RunError: the store does not answer, or denies access.
        """
        pointer = self.pointer()
        if pointer is None or pointer.writer != self._writer:
            return
        with self._named("cannot be removed"):
            self._fs.rm_file(f"{self._root}/{POINTER}")
            for stored in pointer.files.values():
                with suppress(FileNotFoundError):
                    self._fs.rm_file(f"{self._root}/{DATA}/{stored.key}")

    def _check_is_run(self, folder: Path, new: Pointer, before: Pointer | None) -> None:
        """Raise RunError if the folder was removed or emptied, so that the upload is kept."""
        had_checkpoints = before is not None and any(map(is_checkpoint, before.files))
        lost_them = had_checkpoints and not any(map(is_checkpoint, new.files))
        if lost_them or not (folder / "config.json").exists():
            raise RunError(f"{self.uri}: cannot be written (there is no run in {folder} any more)")

    def _existing(self) -> Pointer:
        pointer = self.pointer()
        if pointer is None:
            raise UsageError(f"{self.uri} holds no run ({POINTER}: there is none)")
        return pointer

    def _read_all(
        self, wanted: Choice, lost: Callable[[str], None] | None = None
    ) -> dict[str, bytes]:
        """Read the wanted files, all from the same state of the run."""
        for _ in range(FETCH_ATTEMPTS):
            pointer = self._existing()
            found = {name: self._get(name, pointer.files) for name in wanted(pointer.files)}
            contents = {n: result for n, result in found.items() if isinstance(result, bytes)}
            errors = {n: result for n, result in found.items() if not isinstance(result, bytes)}
            if errors and self.pointer() != pointer:
                continue
            for name, error in errors.items():
                if lost is None or not is_checkpoint(name):
                    raise error
                lost(str(error))
            return contents
        raise RunError(f"{self.uri}: cannot be read (it keeps changing)")

    def _get(self, name: str, files: dict[str, Stored]) -> bytes | CheckpointError:
        """A file's content, or an error if the file is damaged or missing."""
        if name not in files:
            raise RunError(f"{self.uri}: holds no {name}")
        with self._named("cannot be read"):
            try:
                content: bytes = self._fs.cat_file(f"{self._root}/{DATA}/{files[name].key}")
            except FileNotFoundError:
                return CheckpointError(f"{self.uri}: {name} cannot be read (it is gone)")
        if hashlib.sha256(content).hexdigest() != files[name].sha256:
            return CheckpointError(f"{self.uri}: {name} is damaged, its checksum does not match")
        return content

    def _put(self, folder: Path, name: str, keys: Collection[str]) -> Stored | None:
        """Upload a file unless its key is in ``keys``; None if the file was just deleted."""
        path = folder / name
        try:
            status = path.stat()
            version = status.st_mtime_ns, status.st_size
            before = self._uploaded.get(name)
            if before is not None and before[0] == version and before[1].key in keys:
                return before[1]
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if path.suffix == ".jsonl":  # the last line may be incomplete
            content = content[: content.rfind(b"\n") + 1]
        digest = hashlib.sha256(content).hexdigest()
        stored = Stored(f"{digest[:20]}-{path.name}", digest)
        if stored.key not in keys:
            self._fs.pipe_file(f"{self._root}/{DATA}/{stored.key}", content)
        self._uploaded[name] = version, stored
        return stored

    def _all_keys(self) -> set[str]:
        """The keys of runs; other data is none of ours, and stays."""
        return {name for name in self._names_in(f"{self._root}/{DATA}") if _KEY.fullmatch(name)}

    def _names_in(self, folder: str) -> set[str]:
        try:
            found = self._fs.ls(folder, detail=False)
        except FileNotFoundError:
            return set()
        return {path.rstrip("/").removeprefix(folder).strip("/") for path in found}

    def _remove_all_but(self, keys: set[str]) -> None:
        """Delete the keys of earlier uploads that are not in ``keys``."""
        for key in (self._garbage or set()) - keys:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{DATA}/{key}")
        self._garbage = keys

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except RunError:
            raise
        # Every store's library has its own exceptions besides OSError, and no list of them would be
        # complete. The message includes the original error.
        except Exception as error:
            raise RunError(f"{self.uri}: {what} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    text, kind = one_line(error), type(error).__name__
    # The text of a built-in exception, such as KeyError, is unclear without its type.
    stands_alone = isinstance(error, OSError) or type(error).__module__ != "builtins"
    return text if text and stands_alone else f"{kind}: {text}" if text else kind


def is_checkpoint(name: str) -> bool:
    """Whether the name of a run's file is that of a checkpoint."""
    return name.startswith("checkpoints/")


def _names(folder: Path) -> list[str]:
    """The names of the files in a run's folder that are uploaded."""
    paths = [*folder.glob("*.json*"), *folder.glob("checkpoints/*.safetensors")]
    names = (path.relative_to(folder).as_posix() for path in sorted(paths))
    return [name for name in names if _NAME.fullmatch(name)]


def _is_valid(name: str, stored: Stored) -> bool:
    return bool(_NAME.fullmatch(name) and _KEY.fullmatch(stored.key))
