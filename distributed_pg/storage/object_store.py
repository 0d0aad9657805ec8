"""A run kept at a URI, in an object store such as S3.

A run trains in a folder of this machine; what is here copies that folder. Each file goes to a key
of its own, which is never written again; then ``run.json`` is replaced, which says which key holds
which file. So a reader finds one state of the run, complete, whenever the writer or the store
stopped.
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
"""How often a reader begins again when the run was uploaded anew while it read."""

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


class TakenOverError(RunError):
    """Another process uploads at the same URI."""


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
        except ImportError as error:
            advice = f"pip install 'distributed-pg[{extra}]'" if extra else one_line(error)
            raise UsageError(f"run_dir: {uri} needs another package: {advice}") from None
        except ValueError as error:
            raise UsageError(f"run_dir: {uri}: {one_line(error)}") from None
        except Exception as error:  # a library's own, as where it finds no credentials
            raise RunError(f"{uri}: cannot be opened ({_reason(error)})") from error
        self._root = root.rstrip("/")
        self._writer = uuid.uuid4().hex
        self._before: str | None = None  # the writer that this one goes on from
        self._uploaded: dict[str, tuple[tuple[int, int], Stored]] = {}
        self._garbage: set[str] | None = None

    @property
    def is_new(self) -> bool:
        """Whether this process goes on with nothing that was there before."""
        return self._before is None

    def pointer(self) -> Pointer | None:
        """What is uploaded now; None: nothing is.

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

    def fetch(
        self,
        folder: Path,
        wanted: Choice = sorted,
        lost: Callable[[str], None] | None = None,
    ) -> list[Path]:
        """Copy the run, or those of its files that are ``wanted``, into a folder.

        Args:
            folder: where to.
            wanted: which files.
            lost: told of each checkpoint that is damaged or gone, and is left out then; None: that
                is an error.

        Returns:
            The copies.

        Raises:
            CheckpointError: a file is damaged or gone.
            RunError: the run cannot be read, or the folder cannot be written.
        """
        files = self._read_all(wanted, lost)
        with writing(f"{folder}:"):
            for name, content in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return [folder / name for name in files]

    def take_over(self) -> None:
        """Go on with what is uploaded there: the process that uploaded it has ended.

        Raises:
            UsageError: nothing is.
            RunError: the store does not answer.
        """
        self._before = self._existing().writer

    def upload(self, folder: Path) -> None:
        """Copy the folder of the run as it is now to the store.

        Raises:
            TakenOverError: another process has uploaded there.
            RunError: the folder is gone, or the store does not answer, or denies; what was
                uploaded before is still there.
        """
        pointer = self.pointer()
        if pointer is not None and pointer.writer not in (self._writer, self._before):
            raise TakenOverError(f"{self.uri} is in use: another process trains there")
        with self._named("cannot be written"):
            keys = self._all_keys()
            if self._garbage is None:
                self._garbage = keys
            # What the store has lost since is copied again. What another process has put there it
            # may be deleting, but for what its pointer names.
            if pointer is not None and pointer.writer != self._writer:
                keys = keys & {one.key for one in pointer.files.values()}
            files = {name: self._put(folder, name, keys) for name in _names(folder)}
            new = Pointer(self._writer, {n: stored for n, stored in files.items() if stored})
            self._check_is_run(folder, new, pointer)
            text = json.dumps({"format": FORMAT, **asdict(new)}, indent=1)
            self._fs.pipe_file(f"{self._root}/{POINTER}", text.encode())
            self._remove_all_but({stored.key for stored in new.files.values()})

    def remove(self) -> None:
        """Take away what this process has uploaded, if nobody else has since.

        Raises:
            RunError: the store does not answer, or denies.
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
        """Raise RunError where the folder was removed or emptied: what is uploaded stays."""
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
        """The wanted files, all of one state of the run."""
        for _ in range(FETCH_ATTEMPTS):
            pointer = self._existing()
            found = {name: self._get(name, pointer.files) for name in wanted(pointer.files)}
            contents = {name: one for name, one in found.items() if isinstance(one, bytes)}
            errors = {name: one for name, one in found.items() if isinstance(one, CheckpointError)}
            if errors and self.pointer() != pointer:
                continue
            for name, error in errors.items():
                if lost is None or not is_checkpoint(name):
                    raise error
                lost(str(error))
            return contents
        raise RunError(f"{self.uri}: cannot be read (it changes all the time)")

    def _get(self, name: str, files: dict[str, Stored]) -> bytes | CheckpointError:
        """A file's content, or what is wrong with it."""
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

    def _put(self, folder: Path, name: str, there: Collection[str]) -> Stored | None:
        """Copy a file, if its key is not ``there`` already; None: it was deleted meanwhile."""
        path = folder / name
        try:
            status = path.stat()
            version = status.st_mtime_ns, status.st_size
            before = self._uploaded.get(name)
            if before is not None and before[0] == version and before[1].key in there:
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
        self._uploaded[name] = version, stored
        return stored

    def _all_keys(self) -> set[str]:
        try:
            found = self._fs.ls(f"{self._root}/{DATA}", detail=False)
        except FileNotFoundError:
            return set()
        return {path.rpartition("/")[2] for path in found}

    def _remove_all_but(self, keys: set[str]) -> None:
        """Delete what is not uploaded any more."""
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
        # Behind this are libraries for any kind of store, each with errors of its own beside
        # OSError, and no list of them is ever complete. The user is told what it was.
        except Exception as error:
            raise RunError(f"{self.uri}: {what} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    text, kind = one_line(error), type(error).__name__
    # The text of an error of the language itself, a KeyError say, does not stand alone.
    stands_alone = isinstance(error, OSError) or type(error).__module__ != "builtins"
    return text if text and stands_alone else f"{kind}: {text}" if text else kind


def is_checkpoint(name: str) -> bool:
    """Whether a file of a run is a checkpoint."""
    return name.startswith("checkpoints/")


def _names(folder: Path) -> list[str]:
    """The files of a run's folder that are uploaded."""
    paths = [*folder.glob("*.json*"), *folder.glob("checkpoints/*.safetensors")]
    names = (path.relative_to(folder).as_posix() for path in sorted(paths))
    return [name for name in names if _NAME.fullmatch(name)]


def _is_sound(name: str, stored: Stored) -> bool:
    return bool(_NAME.fullmatch(name) and _KEY.fullmatch(stored.key))
