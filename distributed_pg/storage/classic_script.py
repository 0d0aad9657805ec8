"""The ``save.p`` of the classic script: its model as a pickle, read and written.

The model is a dict of ``W1``, float64 (H, 6400), and ``W2``, float64 (H,). The probability of UP is
sigmoid(W2 . relu(W1 x)) for the difference frame x, so W1 is the transpose of our ``w1``, and W2
the first column of ``w2``. The second column, the value, the script does not have.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distributed_pg.algo.policy import Floats, Policy
from distributed_pg.algo.state import Progress, policy_shape
from distributed_pg.config import TrainConfig
from distributed_pg.errors import UsageError
from distributed_pg.presets import preset
from distributed_pg.storage.pickle_tree import (
    Call,
    Name,
    PickleError,
    Text,
    Value,
    parse_pickle,
)
from distributed_pg.storage.policy_file import TrainedPolicy

FRAME_SKIP = preset("karpathy").frame_skip
"""Frames per step, as of gymnasium's ALE/Pong-v5."""
MOST_BYTES = 128 * 2**20
"""Size of the largest file, for 400 hidden units in protocol 0, and 1700 in all others."""
_MOST_UNITS = 100_000
_CROP = TrainConfig().crop
_PIXELS = policy_shape(TrainConfig())[0]

# numpy.core is named numpy._core since numpy 2.
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_NAMES = {*_RECONSTRUCT, *_FROM_BUFFER, "numpy.ndarray", "numpy.dtype", "_codecs.encode"}


def load_classic(path: Path, frame_skip: int = FRAME_SKIP) -> TrainedPolicy:
    """Read the script's model, written by Python 2 or 3; nothing in the file is run.

    Args:
        path: the file, of at most :data:`MOST_BYTES`.
        frame_skip: frames per step to play at, which the file does not say.

    Returns:
        The policy, with the value 0, and the settings of the karpathy preset.

    Raises:
        UsageError: the file cannot be read, or is not such a model.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give the classic script's save.p") from None
    try:
        policy = parse_classic(content)
    except PickleError as error:
        raise UsageError(f"{path}: not a model of the classic script: {error}") from None
    hidden_units = len(policy.w2)
    config = preset("karpathy", hidden_units=hidden_units, frame_skip=frame_skip)
    return TrainedPolicy(config, policy, Progress())


def parse_classic(content: bytes) -> Policy:
    """The policy in the content of a ``save.p``.

    Raises:
        PickleError: the content is not such a model; the message is one line without the path.
    """
    if len(content) > MOST_BYTES:
        raise PickleError(f"it is larger than {MOST_BYTES >> 20} MiB")
    model = parse_pickle(content, _NAMES)
    if not isinstance(model, dict):
        raise PickleError("it is not a dict of W1 and W2")
    for key in sorted({b"W1", b"W2"} ^ model.keys()):
        has = "has no" if key in (b"W1", b"W2") else "holds more than W1 and W2:"
        raise PickleError(f"it {has} {ascii(key)[2:-1]}")
    w1, w2 = (_array(name, model[name.encode()]) for name in ("W1", "W2"))
    if w1.shape != (len(w2), _PIXELS) or w2.ndim != 1:
        raise PickleError(
            f"W1 has the shape {w1.shape} and W2 {w2.shape}; allowed: (H, {_PIXELS}) and (H,) "
            f"for H hidden units from 1 to {_MOST_UNITS}"
        )
    logits = _float32("W2", w2)
    return Policy(_float32("W1", w1.T), np.stack([logits, np.zeros_like(logits)], axis=1))


def classic_pickle(trained: TrainedPolicy) -> bytes:
    """The content of a ``save.p`` that the script reads, in Python 2 and 3 and with any numpy.

    Args:
        trained: a policy that chooses between UP and DOWN on the whole field; its value is left
            out.

    Raises:
        UsageError: the script's model cannot express the policy.
    """
    config = trained.config
    if config.current_frame:
        raise UsageError(
            "out: the classic script sees only the difference frame; this policy was trained with "
            "current_frame, and sees the current one, too"
        )
    if set(config.actions) != {"UP", "DOWN"} or config.crop != _CROP:
        raise UsageError(
            f"out: the classic script has the actions UP, DOWN and the crop {_CROP}; this policy "
            f"has {', '.join(config.actions)} and {config.crop}"
        )
    w1, w2 = trained.policy.arrays
    # Where action 0 is DOWN, its logit is that of UP with the other sign.
    logits = w2[:, 0] if config.actions[0] == "UP" else -w2[:, 0]
    model = _pickled(b"W1", w1.T) + _pickled(b"W2", logits)
    content = b"\x80\x02}(" + model + b"u."
    if len(content) > MOST_BYTES:
        raise UsageError(
            f"out: {config.hidden_units} hidden units make a save.p of more than "
            f"{MOST_BYTES >> 20} MiB, the most that import reads"
        )
    return content


def _pickled(name: bytes, array: Floats) -> bytes:
    """The opcodes for a key and its float64 array in protocol 2.

    Not by ``pickle.dumps``: with numpy 2 it names ``numpy._core``, which no older numpy has. Names
    are Python 2's str, which either Python takes for its own if it is ASCII. The numbers are not,
    since Python 3 decodes such a str: both have them encoded from Unicode.
    """
    characters = array.astype("<f8").tobytes().decode("latin-1").encode()
    shape = b"".join(b"J" + struct.pack("<i", size) for size in array.shape)
    return b"".join(
        (
            b"U\x02" + name,
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01(" + shape + b"t",
            b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R",
            b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89",
            b"c_codecs\nencode\nX" + struct.pack("<I", len(characters)) + characters,
            b"U\x06latin1\x86R",
            b"tb",
        )
    )


def _float32(name: str, array: NDArray[np.floating]) -> Floats:
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float32, order="C")
    if not np.isfinite(rounded).all():
        raise PickleError(f"{name} has a number that is not finite in float32")
    return rounded


def _array(name: str, value: Value) -> NDArray[np.floating]:
    """The array that the file builds as numpy's pickles do."""
    match value:
        case Call(
            Name(function),
            (Name("numpy.ndarray"), (0,), _),
            (1, (*shape,), dtype, bool(fortran), data),
        ) if function in _RECONSTRUCT:
            pass
        case Call(Name(function), (data, dtype, (*shape,), Text() as order), None) if (
            function in _FROM_BUFFER and _short(order) in ("C", "F")
        ):
            fortran = _short(order) == "F"
        case _:
            raise PickleError(f"its {name} is not an array as numpy writes one")
    return _from_bytes(name, _bytes(data), _dtype(name, dtype), shape, fortran=fortran)


def _from_bytes(
    name: str, data: bytes, dtype: np.dtype[np.floating], shape: list[Value], *, fortran: bool
) -> NDArray[np.floating]:
    sizes = [size for size in shape if isinstance(size, int) and 1 <= size <= _MOST_UNITS]
    if not 1 <= len(sizes) == len(shape) <= 2:
        raise PickleError(f"its {name} is not of one or two dimensions from 1 to {_MOST_UNITS}")
    if np.prod(sizes, dtype=object) * dtype.itemsize != len(data):
        shown = " x ".join(map(str, sizes))
        raise PickleError(f"its {name} has {len(data)} bytes, which {shown} {dtype} do not fill")
    return np.frombuffer(data, dtype).reshape(sizes, order="F" if fortran else "C")


def _dtype(name: str, value: Value) -> np.dtype[np.floating]:
    match value:
        case Call(
            Name("numpy.dtype"),
            (Text() as kind, 0, 1),
            (3, Text() as order, None, None, None, -1, -1, 0),
        ) if (code := _short(order) + _short(kind)) in ("<f8", ">f8", "<f4", ">f4"):
            return np.dtype(code)
    raise PickleError(f"its {name} does not hold float64 or float32 numbers")


def _short(text: Text) -> str:
    return text.decode().decode("latin-1") if len(text.raw) <= 8 else ""


def _bytes(value: Value) -> bytes:
    match value:
        case Text():
            return value.decode()
        # The bytes of Python 3 in the protocols of Python 2.
        case Call(Name("_codecs.encode"), (Text() as text, Text() as coding), None) if (
            _short(coding) == "latin1"
        ):
            return text.decode()
    raise PickleError("it has an array without its bytes")
