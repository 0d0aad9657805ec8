"""A run kept at a URI, in an object store such as S3.

A run trains in a folder of this machine; what is here copies that folder. Each file goes to a key
of its own, which is never written again; then ``run.json`` is replaced, which says which key holds
which file. So a reader finds one state of the run, complete, whenever the writer or the store
stopped.
"""

import asyncio
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

from distributed_pg.errors import RunError, UsageError, one_line, writing

POINTER = "run.json"
FORMAT = "distributed_pg run 1"
DATA = "data"
FETCH_ATTEMPTS = 3
"""How often a reader begins again when the run was published anew while it read."""

_NAME = re.compile(r"config\.json|metrics\.jsonl|checkpoints/(best|update-\d{8,20})\.safetensors")
_KEY = re.compile(r"[0-9a-f]{20}-[\w.-]{1,60}")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_OPTIONS: dict[str, dict[str, Any]] = {
    # Training has its own way to try again; so one try here should not take long to fail.
    "s3": {
        "config_kwargs": {
            "connect_timeout": 3,
            "read_timeout": 20,
            "retries": {"total_max_attempts": 1},
        }
    }
}
_ERRORS = {
    "s3": ("botocore.exceptions:BotoCoreError", "botocore.exceptions:ClientError"),
    "gcs": ("google.auth.exceptions:GoogleAuthError", "gcsfs.retry:HttpError"),
}
"""What the libraries raise beside OSError when a store does not answer, or denies."""


class TakenOverError(RunError):
    """Another process publishes at the same URI."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the run, as it is in the store."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """What ``run.json`` says."""

    writer: str
    """Which process wrote it."""
    files: dict[str, Stored]


Choice: TypeAlias = Callable[[Collection[str]], Collection[str]]
"""Says which of a run's files are wanted."""


def is_uri(location: str | Path | None) -> TypeGuard[str]:
    """Whether a run is kept at a URI, rather than in a folder."""
    return isinstance(location, str) and "://" in location


class RemoteRun:
    """The run at ``uri``, to be read, or to be written by this process.

    Raises:
        UsageError: there is no such kind of store, or what it needs is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        protocol = uri.partition("://")[0]
        extra = _EXTRAS.get(protocol)
        try:
            fsspec = importlib.import_module("fsspec")
            options = _OPTIONS.get(extra or "", {})
            # Without a cache: other processes write there too.
            self._fs, root = fsspec.url_to_fs(
                uri, skip_instance_cache=True, use_listings_cache=False, **options
            )
            self._errors = _named_errors(_ERRORS.get(extra or "", ()))
        except ImportError as error:
            advice = f"pip install 'distributed-pg[{extra}]'" if extra else one_line(error)
            raise UsageError(f"run_dir: {uri} needs another package: {advice}") from None
        except ValueError as error:
            raise UsageError(f"run_dir: {uri}: {one_line(error)}") from None
        self._root = root.rstrip("/")
        self._writer = uuid.uuid4().hex
        self._before: str | None = None  # the writer that this one goes on from
        self._published: dict[str, tuple[tuple[int, int], Stored]] = {}
        self._garbage: set[str] | None = None

    def pointer(self) -> Pointer | None:
        """What is published now; None: nothing is.

        Raises:
            RunError: the store does not answer, or what is there is no run.
        """
        with self._named("cannot be read"):
            try:
                text = self._fs.cat_file(f"{self._root}/{POINTER}")
            except FileNotFoundError:
                return None
        try:
            said = json.loads(text)
            files = {name: Stored(**stored) for name, stored in said["files"].items()}
            if said["format"] != FORMAT or not all(map(_is_sound, files, files.values())):
                raise ValueError(said["format"])
            return Pointer(str(said["writer"]), files)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise RunError(f"{self.uri}: {POINTER} is damaged, or not of a run") from None

    def read(self, name: str) -> bytes:
        """One file of the run.

        Raises:
            RunError: it cannot be read.
        """
        return self._read_all(lambda _: [name])[name]

    def fetch(self, folder: Path, wanted: Choice = sorted) -> None:
        """Copy the run, or those of its files that are ``wanted``, into a folder.

        Raises:
            RunError: it cannot be read, or the folder cannot be written.
        """
        files = self._read_all(wanted)
        with writing(f"{folder}:"):
            for name, content in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def take_over(self) -> None:
        """Go on with what is published there: the process that published it has ended.

        Raises:
            UsageError: nothing is.
            RunError: the store does not answer.
        """
        self._before = self._existing().writer

    def publish(self, folder: Path) -> None:
        """Copy the folder of the run as it is now to the store.

        Raises:
            TakenOverError: another process has published there.
            RunError: the store does not answer, or denies; what was published before is still
                there.
        """
        pointer = self.pointer()
        if pointer is not None and pointer.writer not in (self._writer, self._before):
            raise TakenOverError(f"{self.uri} is in use: another process trains there")
        with self._named("cannot be written"):
            if self._garbage is None:
                self._garbage = self._all_keys()
            there = set() if pointer is None else {one.key for one in pointer.files.values()}
            files = {name: self._put(folder, name, there) for name in _names(folder)}
            new = Pointer(self._writer, {n: stored for n, stored in files.items() if stored})
            text = json.dumps({"format": FORMAT, **asdict(new)}, indent=1)
            self._fs.pipe_file(f"{self._root}/{POINTER}", text.encode())
            self._remove_all_but({stored.key for stored in new.files.values()})

    def _existing(self) -> Pointer:
        pointer = self.pointer()
        if pointer is None:
            raise UsageError(f"{self.uri} holds no run ({POINTER}: there is none)")
        return pointer

    def _read_all(self, wanted: Choice) -> dict[str, bytes]:
        """The wanted files, all of one state of the run."""
        for _ in range(FETCH_ATTEMPTS):
            pointer = self._existing()
            with self._named("cannot be read"):
                try:
                    return {name: self._get(name, pointer.files) for name in wanted(pointer.files)}
                except FileNotFoundError:
                    if self.pointer() == pointer:
                        raise
        raise RunError(f"{self.uri}: cannot be read (it changes all the time)")

    def _get(self, name: str, files: dict[str, Stored]) -> bytes:
        if name not in files:
            raise RunError(f"{self.uri}: holds no {name}")
        content: bytes = self._fs.cat_file(f"{self._root}/{DATA}/{files[name].key}")
        if hashlib.sha256(content).hexdigest() != files[name].sha256:
            raise RunError(f"{self.uri}: {name} is damaged, its checksum does not match")
        return content

    def _put(self, folder: Path, name: str, there: Collection[str]) -> Stored | None:
        """Copy a file, if its key is not ``there`` already; None: it was deleted meanwhile."""
        path = folder / name
        try:
            status = path.stat()
            version = status.st_mtime_ns, status.st_size
            before = self._published.get(name)
            if before is not None and before[0] == version:
                return before[1]
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if path.suffix == ".jsonl":  # a line may be only half there
            content = content[: content.rfind(b"\n") + 1]
        digest = hashlib.sha256(content).hexdigest()
        stored = Stored(f"{digest[:20]}-{path.name}", digest)
        if stored.key not in there:
            self._fs.pipe_file(f"{self._root}/{DATA}/{stored.key}", content)
        self._published[name] = version, stored
        return stored

    def _all_keys(self) -> set[str]:
        try:
            found = self._fs.ls(f"{self._root}/{DATA}", detail=False)
        except FileNotFoundError:
            return set()
        return {path.rpartition("/")[2] for path in found}

    def _remove_all_but(self, keys: set[str]) -> None:
        """Delete what is not published any more."""
        for key in (self._garbage or set()) - keys:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{DATA}/{key}")
        self._garbage = keys

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise RunError(
                f"{self.uri}: {what} ({one_line(error) or type(error).__name__})"
            ) from error


def _names(folder: Path) -> list[str]:
    """The files of a run's folder that are published."""
    paths = [*folder.glob("*.json*"), *folder.glob("checkpoints/*.safetensors")]
    names = (path.relative_to(folder).as_posix() for path in sorted(paths))
    return [name for name in names if _NAME.fullmatch(name)]


def _is_sound(name: str, stored: Stored) -> bool:
    return bool(_NAME.fullmatch(name) and _KEY.fullmatch(stored.key))


def _named_errors(names: Collection[str]) -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = [OSError, asyncio.TimeoutError]
    for name in names:
        module, _, error = name.partition(":")
        found.append(getattr(importlib.import_module(module), error))
    return tuple(found)
