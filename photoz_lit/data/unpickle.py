"""Reading tables out of pickles without running what a pickle may ask for.

A pickle is a small programme: a hostile one calls any function by name. This reader knows plain Python values
and NumPy arrays of numbers and text, nothing else: every name that a pickle calls is looked up in a short
list of stand-ins of our own. They check what they are given, as NumPy's own setters do not.
"""

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from photoz_lit.errors import DataError

MOST_NESTED = 20
MOST_REPEATED = 10  # size of the values over that of the file; columns may have several names
_PLAIN_DTYPE = re.compile(r"[biufcSU]\d{1,9}")
_REMEDY = "Write the table as .npz with one array a column (numpy.savez) where you trust the file"


def read_pickle(path: Path) -> Any:
    """Return what a pickle holds of dicts, lists, tuples, numbers, text and arrays of numbers and text.

    Record arrays come as structured arrays; pickles of Python 2 are read as latin-1.
    """
    try:
        with Path(path).open("rb") as file:
            value = _Reader(file, encoding="latin1").load()
        value = _plain(value, {}, 0)
        if _expanded(value, {}) > MOST_REPEATED * Path(path).stat().st_size:
            raise ValueError("it is much larger than its file, by values that are repeated over and over")
        return value
    except Exception as error:  # a damaged pickle fails anywhere: IndexError, KeyError, MemoryError, ...
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        why = f"cannot be read as a pickle, perhaps truncated: {reason}"
        if isinstance(error, _Forbidden):
            why = (
                f"refused: the pickle {error}. Only plain values and NumPy arrays of numbers and text are "
                "read from pickles, since anything else can run code"
            )
        raise DataError(f"{path}: {why}. {_REMEDY}") from error


class _Forbidden(Exception):
    """What the pickle asks for is not on the list."""


class _Dtype:
    """A NumPy type while the pickle describes it."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code
        self.state: Any = (3, "=", None, None, None, 0)

    def set_state(self, state: Any) -> None:
        """Keep the description: version, byte order, subarray, names, fields, size, ..."""
        self.state = state

    def build(self) -> np.dtype[Any]:
        """Return the type, made from its description alone."""
        _, order, subarray, names, fields, size = self.state[:6]
        if subarray is not None:
            base, shape = subarray
            return np.dtype((_built(base), tuple(int(n) for n in np.atleast_1d(shape))))
        if names is not None:
            parts = [cast(Any, fields)[name] for name in names]
            formats, offsets = [_built(part[0]) for part in parts], [int(part[1]) for part in parts]
            return np.dtype(
                {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": int(size)}
            )
        if not isinstance(self.code, str) or not _PLAIN_DTYPE.fullmatch(self.code):
            raise _Forbidden(f"holds an array of type {self.code!r} (Python objects, perhaps)")
        dtype = np.dtype(self.code)
        return dtype.newbyteorder(order) if order in ("<", ">") else dtype


class _Array:
    """A NumPy array while the pickle describes it."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        """Take (version, shape, dtype, Fortran order, bytes); text is a Python 2 byte string."""
        _, shape, dtype, fortran, data = state
        self.values = _array(data, dtype, shape, "F" if fortran else "C")


def _built(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _Dtype):
        raise _Forbidden("describes an array by something that is no type")
    return dtype.build()


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Return an array over bytes that must be as many as type and shape say."""
    kind = _built(dtype)
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise _Forbidden("holds an array of Python objects")
    size = tuple(int(n) for n in np.atleast_1d(shape)) if shape != () else ()
    if kind.itemsize == 0 or min(size, default=0) < 0 or math.prod(size) * kind.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array of shape {size} and type {kind}")
    if not data:
        return np.empty(size, kind)
    return np.frombuffer(data, kind).reshape(size, order="F" if order == "F" else "C")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.values = _array(data, dtype, shape, order)
    return made


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return _array(data, dtype, (), "C")[()]


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    """How pickles of protocols 0 to 2 hold bytes: `bytes()` and `_codecs.encode(text, "latin1")`."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Forbidden(f"makes bytes of a {type(text).__name__} with {encoding!r}")
    return text.encode("latin1")


# What a pickle may name. `numpy._core` (NumPy 2) and `numpy.core` are one here.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Dtype,
    **{(m, n): n for m in ("numpy", "numpy.rec", "numpy.core.records") for n in ("recarray", "record")},
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _bytes,
    ("builtins", "bytes"): _bytes,
    ("__builtin__", "bytes"): _bytes,
}


def _build(reader: Any) -> None:
    """Give a stand-in its state; nothing else takes one (Python's own would set any attribute)."""
    state = reader.stack.pop()
    made = reader.stack[-1]
    if not isinstance(made, _Array | _Dtype):
        raise _Forbidden(f"sets attributes of a {type(made).__name__}")
    made.set_state(state)


def _bytearray(reader: Any) -> None:
    """Read as many bytes as there are; Python's own takes memory for as many as the pickle says."""
    size = int.from_bytes(reader.read(8), "little")
    data = bytearray(reader.read(size))
    if len(data) != size:
        raise EOFError("pickle data was truncated")
    reader.append(data)


def _refuse(what: str) -> Callable[[Any], None]:
    def refuse(reader: Any) -> None:
        raise _Forbidden(what)

    return refuse


_REFUSED = {
    "uses a copyreg extension code": pickle.EXT1 + pickle.EXT2 + pickle.EXT4,
    "uses a persistent id": pickle.PERSID + pickle.BINPERSID,
    "uses buffers outside it": pickle.NEXT_BUFFER + pickle.READONLY_BUFFER,
}


class _Reader(pickle._Unpickler):
    """Python's own reader of pickles, with fewer instructions and the short list of names.

    The one written in Python, since the one in C offers no way to take instructions away.
    """

    dispatch = {  # noqa: RUF012 (the parent's, which is no ClassVar either)
        **pickle._Unpickler.dispatch,
        **{code: _refuse(words) for words, codes in _REFUSED.items() for code in codes},
        pickle.BUILD[0]: _build,
        pickle.BYTEARRAY8[0]: _bytearray,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return our stand-in for a name, whatever the name means elsewhere."""
        known = (re.sub(r"^numpy\._core\b", "numpy.core", module), name)
        if known not in _STAND_INS:
            raise _Forbidden(f"names {module}.{name}")
        return _STAND_INS[known]


def _plain(value: Any, done: dict[int, Any], depth: int) -> Any:
    """Replace the stand-ins by arrays; each value once, so that nested repetitions cost nothing."""
    if depth > MOST_NESTED:
        raise ValueError(f"values nested more than {MOST_NESTED} deep")
    if isinstance(value, _Dtype) or callable(value):
        raise _Forbidden("holds a type or a function where a value is expected")
    if isinstance(value, _Array):
        if value.values is None:
            raise ValueError("an array without content")
        return value.values
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: _plain(item, done, depth + 1) for key, item in value.items()}
        else:
            done[id(value)] = type(value)([_plain(item, done, depth + 1) for item in value])
    return done[id(value)]


def _expanded(value: Any, done: dict[int, int]) -> int:
    """Return how many bytes plain values take at least, where lists that are in them twice count twice.

    Lists of lists of the same lists make a small pickle a huge array.
    """
    if isinstance(value, np.ndarray):
        return value.nbytes
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in done:
        items = value.values() if isinstance(value, dict) else value
        done[id(value)] = 1 + sum(_expanded(item, done) for item in items)
    return done[id(value)]
