"""Small files of exactly the layouts that published data sets have."""

import pickle
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

SPLIT_SIZES = {"train": 0.6, "val": 0.1, "test": 0.3}


def cubes(n: int, pixels: int, seed: int = 0) -> NDArray[np.float32]:
    """Return cutouts (n, y, x, bands): a round galaxy off the centre, so that axes can be told apart."""
    rng = np.random.default_rng([seed, 5])
    y, x = np.mgrid[:pixels, :pixels] - pixels / 2
    flux = rng.uniform(1, 50, (n, 1, 1, 5))
    light = np.exp(-((x - 1.5) ** 2 / 8 + (y + 0.5) ** 2 / 3))[None, :, :, None]
    return (flux * light + rng.normal(0, 0.1, (n, pixels, pixels, 5))).astype(np.float32)


def sdss_labels(n: int, seed: int = 0) -> NDArray[np.void]:
    """Return the fields of Pasquet et al.'s labels that are known, and one of text."""
    rng = np.random.default_rng([seed, 6])
    fields = ["z", "EBV", "zphot", "dered_petro_r", "petroMagErr_r", "ra", "dec"]
    labels = np.zeros(n, [(name, "<f8") for name in fields] + [("primtarget", "<i4"), ("filePath", "S24")])
    labels["z"] = rng.uniform(0.02, 0.38, n)
    labels["EBV"] = rng.uniform(0, 0.2, n)
    labels["zphot"] = labels["z"] + rng.normal(0, 0.02, n)
    labels["dered_petro_r"] = rng.uniform(14, 17.8, n)
    labels["petroMagErr_r"] = 0.02
    labels["ra"] = np.linspace(120, 240, n)
    labels["dec"] = rng.uniform(0, 60, n)
    labels["primtarget"] = 64
    labels["filePath"] = [f"cubes/{i:06d}.npy".encode() for i in range(n)]
    return labels


def write_pasquet(folder: Path, n: int = 40, pixels: int = 12, *, compressed: bool = False) -> Path:
    """Write `sdss_vagc.npz` with `cube` and `labels`."""
    path = folder / "sdss_vagc.npz"
    save = np.savez_compressed if compressed else np.savez
    save(path, cube=cubes(n, pixels), labels=sdss_labels(n))
    return path


def write_npy_folder(folder: Path, n: int = 40, pixels: int = 12, *, python2: bool = True) -> Path:
    """Write `label`, `train.npy`, `val.npy`, `test.npy` and `data/<i>.py.npy`; two are in no split."""
    path = folder / "sdss"
    (path / "data").mkdir(parents=True)
    labels = sdss_labels(n)
    columns = {name: labels[name].copy() for name in labels.dtype.names or () if name != "filePath"}
    (path / "label").write_bytes(python2_pickle(columns) if python2 else pickle.dumps(columns))
    for i, cube in enumerate(cubes(n, pixels)):
        np.save(path / "data" / f"{i}.py.npy", cube)
    order = np.random.default_rng(3).permutation(n)[: n - 2]
    ends = np.cumsum([int(f * len(order)) for f in SPLIT_SIZES.values()])[:-1]
    for name, members in zip(SPLIT_SIZES, np.split(order, ends), strict=True):
        np.save(path / f"{name}.npy", members)
    return path


def write_cfhtls(folder: Path, n: int = 14, pixels: int = 12) -> Path:
    """Write two ZHQ files of n galaxies and one ZLR file of half as many, which names fields otherwise."""
    path = folder / "cfhtls"
    path.mkdir(parents=True)
    names = {"ZPHOT": "zphot", "ERRR": "Rerr", "Ip_2": "I", "ERRIp_2": "Ierr"}
    low_names = {ours: theirs for theirs, ours in names.items()}
    for seed, stem in enumerate(("CUBE_WD_ZHQ_0001", "CUBE_WD_ZHQ_0002", "CUBE_WD_ZLR_0001")):
        rng, m = np.random.default_rng([seed, 7]), n // 2 if "ZLR" in stem else n
        fields = {"ZSPEC": (0.1, 3.9), "EBV": (0, 0.1), "zphot": (0.1, 3.9), "R": (17, 25), "Rerr": (0, 0.1)}
        fields |= {"I": (17, 25), "Ierr": (0, 0.1)}
        dtype = [(low_names.get(f, f) if "ZLR" in stem else f, "<f4") for f in fields]
        info = np.zeros(m, [*dtype, ("ZFLAG", "<i2"), ("FIELD", "S2")])
        for (name, _), span in zip(dtype, fields.values(), strict=True):
            info[name] = rng.uniform(*span, m)
        info["ZFLAG"], info["FIELD"] = 4, [b"W1", b"D2"][seed % 2]
        np.savez(path / f"{stem}.npz", cube=1000 * cubes(m, pixels, seed), info=info)
    return path


def write_galaxies_ml(folder: Path, n: int = 30, pixels: int = 16) -> Path:
    """Write a training, a validation and a testing file; the last two hold a third of n galaxies."""
    path = folder / "galaxies_ml"
    path.mkdir(parents=True)
    for seed, split in enumerate(("training", "validation", "testing")):
        rng, m = np.random.default_rng([seed, 8]), n if split == "training" else n // 3
        with h5py.File(path / f"5x{pixels}x{pixels}_{split}_with_morphology.hdf5", "w") as file:
            file["image"] = np.ascontiguousarray(cubes(m, pixels, seed).transpose(0, 3, 1, 2))
            file["object_id"] = 36407046437732000 + 1000 * seed + np.arange(m)
            file["specz_redshift"] = rng.uniform(0.05, 3.9, m)
            file["ra"], file["dec"] = np.linspace(30, 39, m) + 10 * seed, rng.uniform(-6, 0, m)
            for band in "grizy":
                file[f"{band}_cmodel_mag"] = rng.uniform(18, 25, m)
            file["specz_flag_homogeneous"] = np.ones(m, bool)
            file.create_dataset(
                "specz_name", data=[f"ZCOSMOS-{i}" for i in range(m)], dtype=h5py.string_dtype()
            )
    return path


def python2_pickle(value: Any) -> bytes:
    """Return a pickle as Python 2 wrote it (protocol 2, byte strings), of a dict of arrays."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    match value:
        case dict():
            items = b"".join(_python2(k) + _python2(v) for k, v in value.items())
            return b"}(" + items + b"u"
        case str():
            return b"U" + bytes([len(value)]) + value.encode("latin1")
        case bool():
            return b"\x88" if value else b"\x89"
        case None:
            return b"N"
        case int():
            return b"J" + struct.pack("<i", value)
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case tuple():
            return b"(" + b"".join(_python2(v) for v in value) + b"t"
        case np.ndarray():
            made = (
                b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
                + _python2((0,))
                + _python2("b")
                + b"tR"
            )
            state = _python2(1) + _python2(value.shape) + _python2_dtype(value.dtype)
            return made + b"(" + state + _python2(False) + _python2(value.tobytes()) + b"tb"
    raise TypeError(type(value))


def _python2_dtype(dtype: np.dtype[Any]) -> bytes:
    made = b"cnumpy\ndtype\n" + _python2((dtype.str[1:], 0, 1)) + b"R"
    return made + _python2((3, dtype.str[0], None, None, None, -1, -1, 0)) + b"b"
