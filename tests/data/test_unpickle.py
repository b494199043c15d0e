"""Plain tables come out of pickles, and nothing that a hostile pickle asks for is run."""

import copyreg
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.sources.layouts import python2_pickle

from photoz_lit.data import unpickle
from photoz_lit.data.unpickle import read_pickle
from photoz_lit.errors import DataError

RECORDS = np.array(
    [(0.1, 3, b"ab", "cd", [1, 2]), (0.2, 4, b"", "e", [3, 4])],
    dtype=[("z", "<f8"), ("n", ">i4"), ("s", "S2"), ("u", "<U2"), ("pair", "<f4", (2,))],
)
VALUES = {
    "z": np.linspace(0, 0.4, 7),
    "square": np.arange(6, dtype=">i2").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "records": RECORDS,
    "none": np.zeros((0, 3), np.float32),
    "flags": np.array([True, False]),
    "names": np.array(["u", "gr"]),
    "scalar": np.float32(0.25),
    "integer": np.int64(7),
    "name": np.str_("abc"),
    "plain": [1, 2.5, "text", b"bytes", None, True, (1, 2), {"a": [1]}, 10**30, b""],
    "ordered": OrderedDict(a=1, b=2),
}


def read(tmp_path: Path, content: bytes) -> Any:
    (tmp_path / "label").write_bytes(content)
    return read_pickle(tmp_path / "label")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_of_every_kind_come_back(protocol: int, tmp_path: Path) -> None:
    back = read(tmp_path, pickle.dumps(VALUES, protocol))
    assert list(back) == list(VALUES)
    for name, value in VALUES.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(back[name], value, strict=True)
        else:
            assert back[name] == value
    assert type(back["scalar"]) is np.float32


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_record_arrays_come_back_as_structured_ones(protocol: int, tmp_path: Path) -> None:
    back = read(tmp_path, pickle.dumps(RECORDS.view(np.recarray), protocol))
    np.testing.assert_array_equal(back, RECORDS)
    assert type(back) is np.ndarray
    assert back.dtype == RECORDS.dtype


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_older_numpy_are_read(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"z": VALUES["z"]}, protocol)
    older = content.replace(b"numpy._core", b"numpy.core")
    if protocol >= 4:  # names carry their length there, and the frame its own
        older = content.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
        older = older.replace(b"\x13numpy._core.numeric", b"\x12numpy.core.numeric")
        frame = struct.pack("<Q", struct.unpack("<Q", content[3:11])[0] - 1)
        older = older[:3] + frame + older[11:]
    assert older != content
    np.testing.assert_array_equal(read(tmp_path, older)["z"], VALUES["z"])


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    columns = {
        "z": np.linspace(0, 0.4, 7),
        "n": np.arange(4, dtype=">i8"),
        "s": np.array([b"\xff\x00a", b"b"]),
    }
    back = read(tmp_path, python2_pickle(columns))
    assert list(back) == ["z", "n", "s"]
    for name, values in columns.items():
        np.testing.assert_array_equal(back[name], values, strict=True)


def test_text_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    values = np.array([0.1, -2.5e7])
    text = repr(values.tobytes())[1:].encode()
    content = (
        b"(dp0\nS'z'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\n"
        b"Rp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f8'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\n"
        b"tp14\nbI00\nS" + text + b"\np15\ntp16\nbs."
    )
    np.testing.assert_array_equal(read(tmp_path, content)["z"], values, strict=True)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.told = (function, arguments)

    def __reduce__(self) -> Any:
        return self.told


def call(name: str, argument: str, protocol: int = 0) -> bytes:
    """Return a pickle that calls `module name` with one text."""
    module, function = name.split(" ")
    if protocol == 4:
        names = b"".join(b"\x8c" + bytes([len(n)]) + n.encode() for n in (module, function))
        return b"\x80\x04" + names + b"\x93\x8c" + bytes([len(argument)]) + argument.encode() + b"\x85R."
    return f"c{module}\n{function}\n(V{argument}\ntR.".encode()


HOSTILE_NAMES = [
    "os system",
    "posix system",
    "subprocess Popen",
    "builtins eval",
    "__builtin__ eval",
    "builtins exec",
    "builtins getattr",
    "builtins __import__",
    "importlib import_module",
    "runpy run_path",
    "numpy load",
    "numpy fromfile",
    "numpy frombuffer",
    "numpy save",
    "numpy.testing._private.utils runstring",
    "numpy.testing runstring",
    "numpy._core.multiarray fromstring",
    "numpy._core.multiarray scalar.__class__",
    "numpy.ma.core _mareconstruct",
    "pandas.core.frame DataFrame",
    "copyreg _reconstructor",
    "pickle loads",
    "_pickle loads",
    "operator attrgetter",
    "functools partial",
    "types CodeType",
    "collections OrderedDict.__init__",
    "collections defaultdict",
    "photoz_lit.data.unpickle _Dtype",
]


@pytest.mark.parametrize("protocol", [0, 4])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_are_not_listed_are_refused(name: str, protocol: int, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    told = re.escape(f"label: refused: the pickle names {name.replace(' ', '.')}. ")
    with pytest.raises(DataError, match=told):
        read(tmp_path, call(name, f"touch {sentinel}", protocol))
    assert not sentinel.exists()


def test_the_sentinel_would_tell(tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    pickle.loads(call("os system", f"touch {sentinel}"))
    assert sentinel.exists()


def hidden(tmp_path: Path) -> Any:
    """A call that leaves a file behind when it is run."""
    return Call((tmp_path / "ran").write_bytes, b"")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda bad: bad,
        lambda bad: {"z": [bad]},
        lambda bad: np.array([bad, None], dtype=object),
        lambda bad: np.array([(bad, 1)], dtype=[("z", object), ("n", int)]),
        lambda bad: {bad: 1},
    ],
    ids=["bare", "in a dict", "in an object array", "in a field", "as a key"],
)
def test_calls_are_refused_wherever_they_hide(
    wrap: Callable[[Any], Any], protocol: int, tmp_path: Path
) -> None:
    content = pickle.dumps(wrap(hidden(tmp_path)), protocol)
    with pytest.raises(DataError, match="label: refused: the pickle"):
        read(tmp_path, content)
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_object_arrays_are_refused(protocol: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"refused: the pickle holds an array of .*Python objects"):
        read(tmp_path, pickle.dumps(np.array(["a", 1], dtype=object), protocol))


def array(
    data: bytes, shape: bytes = b"K\x02\x85", code: bytes = b"f8", state: bytes = b"NNNJ\xff\xff\xff\xff"
) -> bytes:
    """Return a pickle of one array, each part of it as given."""
    dtype = (
        b"cnumpy\ndtype\nU"
        + bytes([len(code)])
        + code
        + b"\x85R(K\x03U\x01<"
        + state
        + b"J\xff\xff\xff\xffK\x00tb"
    )
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return b"\x80\x02" + made + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


SIXTEEN = b"T\x10\x00\x00\x00" + bytes(range(16))


def test_the_arrays_below_are_well_formed_but_for_one_part(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, array(SIXTEEN)), np.frombuffer(bytes(range(16)), "<f8"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (array(SIXTEEN, b"K\x03\x85"), "16 bytes for an array of shape"),
        (array(SIXTEEN, b"J\xfe\xff\xff\xff\x85"), "16 bytes for an array of shape"),
        (array(SIXTEEN, b"\x8a\x09" + b"\x00" * 8 + b"\x01\x85"), "16 bytes for an array of shape"),
        (array(SIXTEEN, code=b"O8"), "array of type 'O8'"),
        (array(SIXTEEN, code=b"M8"), "array of type 'M8'"),
        (array(SIXTEEN, code=b"V8"), "array of type 'V8'"),
        (array(SIXTEEN, code=b"f8,O"), "array of type 'f8,O'"),
        (array(b"U\x00", b"J\xff\xff\xff\x7f\x85", code=b"S0"), "0 bytes for an array of shape"),
        (array(b"]K\x01a"), "array of Python objects"),
        (array(SIXTEEN, state=b"U\x02f8K\x02\x86NNK\x10"), "something that is no type"),
        (b"\x80\x02cnumpy\nndarray\n(K\x02tR.", "not callable"),
        (b"\x80\x02cnumpy\ndtype\n.", "holds a type or a function"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.", "without content"),
        (
            b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00rot\x86R.",
            "makes bytes of a str with 'rot'",
        ),
        (b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", "makes bytes of a int"),
        (b"\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb.", "sets attributes of a function"),
        (b"\x80\x02c_codecs\nencode\n)\x81.", "not a type object"),
        (b"\x80\x02cnumpy\ndtype\n}b.", "sets attributes of a type"),
        (b"Pname\n.", "uses a persistent id"),
        (b"\x80\x02K\x01Q.", "uses a persistent id"),
        (b"\x80\x05\x97.", "uses buffers outside it"),
        (b"\x80\x05K\x01\x98.", "uses buffers outside it"),
        (b"ios\nsystem\n.", r"MARK|IndexError|names os\.system"),
        (b"(ios\nsystem\n.", r"names os\.system"),
        (b"\x80\x02" + b"(" * 30 + b"t" * 30 + b".", "nested more than 20 deep"),
        (b"", "cannot be read as a pickle, perhaps truncated: EOFError"),
        (b"not a pickle", "cannot be read as a pickle"),
        (pickle.dumps({"z": np.arange(99)})[:-40], "cannot be read as a pickle, perhaps truncated"),
    ],
)
def test_bad_pickles_are_refused_with_the_reason(content: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"label: .*({told})"):
        read(tmp_path, content)


def test_extension_codes_are_refused_even_where_one_is_registered(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 201)
    try:
        with pytest.raises(DataError, match="uses a copyreg extension code"):
            read(tmp_path, b"\x80\x02\x82\xc9X\x04\x00\x00\x00true\x85R.")
    finally:
        copyreg.remove_extension("os", "system", 201)


def test_repetition_within_repetition_costs_nothing_and_is_refused(tmp_path: Path) -> None:
    value: list[Any] = [1]
    for _ in range(unpickle.MOST_NESTED - 2):
        value = [value] * 50  # an array of it would have 50 to the 18 numbers
    with pytest.raises(DataError, match="much larger than its file"):
        read(tmp_path, pickle.dumps({"z": value}))


def test_repetition_of_an_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="much larger than its file"):
        read(tmp_path, pickle.dumps({"z": [np.zeros(1000)] * 100}))


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label: cannot be read .*No such file"):
        read_pickle(tmp_path / "label")


def test_no_memory_is_taken_for_bytes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="truncated"):
        read(tmp_path, pickle.PROTO + b"\x05" + pickle.BYTEARRAY8 + struct.pack("<Q", 1 << 62) + b"few.")


def test_a_column_may_have_two_names(tmp_path: Path) -> None:
    column = np.arange(1000.0)
    back = read(tmp_path, pickle.dumps({"z": column, "spec_z": column}))
    np.testing.assert_array_equal(back["spec_z"], column)
