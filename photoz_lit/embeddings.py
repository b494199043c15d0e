"""Embeddings of galaxies: a frozen encoder runs once a galaxy and view, whatever the correction."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from photoz_lit.compiled import Encode, for_inference, piece
from photoz_lit.config import Config, TrainerConfig
from photoz_lit.config.folders import weights_file
from photoz_lit.data.pixels import HALF
from photoz_lit.data.splits import draw, object_names
from photoz_lit.data.store import Store
from photoz_lit.data.transforms import Inputs, VectorInputs
from photoz_lit.device import BATCH, autocast, device_of
from photoz_lit.errors import DataError
from photoz_lit.files import beside, digest, digest_of, fingerprint, locked, reserve, write_arrays
from photoz_lit.grids import Floats, Ints
from photoz_lit.models.encoders.layers import Encoder
from photoz_lit.models.heads import PhotozNet

log = logging.getLogger(__name__)

Fill = Callable[[Ints, int], Iterator[tuple[Ints, NDArray[np.float32]]]]

MASK = "filled.npy"
SAVE_EVERY = 60.0  # s: how much work an interruption loses
NOISE_BLOCK = 512  # rows of the store whose noise is drawn together
REFERENCE_TRAIN = 8192  # training galaxies that others are compared with: 4 MB at 128 dimensions
REFERENCE_FLUX = 128  # training galaxies that tell how bright they are
REFERENCE_VAL = 2048  # validation galaxies that say what distances are usual


class EmbeddingCache:
    """Embeddings (views, N, d) of a store's galaxies under one encoder; rows are filled when asked for.

    They lie in a folder whose name says which encoder and which data they belong to, of the `dtype` that a
    new one was made with.
    """

    def __init__(
        self, folder: Path, shape: tuple[int, int, int], dtype: type[np.floating[Any]] = np.float32
    ) -> None:
        self.folder, self.shape = folder, shape
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.mask_path = folder / "embeddings.npy", folder / MASK
        if not self.mask_path.is_file():
            np.lib.format.open_memmap(self.path, mode="w+", dtype=dtype, shape=shape).flush()
        try:
            none = np.zeros(shape[:2], dtype=bool)
            self.filled = np.load(self.mask_path) if self.mask_path.is_file() else none
            np.load(self.path, mmap_mode="r")  # to write would silently lengthen a truncated file
            self.array = np.load(self.path, mmap_mode="r+")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder}: cannot be read ({error}): delete it and run again") from error
        if [getattr(a, "shape", None) for a in (self.array, self.filled)] != [shape, shape[:2]]:
            raise DataError(f"{folder}: embeddings of another shape: delete it and run again")

    def ensure(self, rows: Ints, n_views: int, encode: Fill) -> None:
        """Fill what is missing of `rows` of the store in the first `n_views` views.

        `encode`, given sorted rows and the number of views, yields (rows, embeddings (views, m, d)).
        """
        missing = np.sort(rows[~self.filled[:n_views, rows].all(axis=0)])
        if missing.size == 0:
            return
        # Views come first in the file: those that nobody asks for take no space.
        reserve(self.path, self.array.offset + self.array[:n_views].nbytes)
        saved = time.monotonic()
        for done, embeddings in encode(missing, n_views):
            if self.array.dtype == np.float16 and np.abs(embeddings).max(initial=0) > HALF.max:
                raise DataError(
                    f"{self.folder}: holds no embeddings above {HALF.max:g}, and the encoder gives "
                    f"{np.abs(embeddings).max():g}: delete it and type trainer.precision=32-true"
                )
            self.array[:n_views, done] = embeddings
            self.filled[:n_views, done] = True
            if time.monotonic() - saved > SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        self._save()

    def _save(self) -> None:
        """Say what is filled, once it is on disk."""
        self.array.flush()
        with beside(self.mask_path) as partial:
            np.save(partial, self.filled)


def embeddings_of(
    config: Config, store: Store, net: PhotozNet, inputs: Inputs, rows: Ints, n_views: int
) -> NDArray[np.floating[Any]]:
    """Return embeddings (views, N, d) of a store's N galaxies, filled in the wanted rows and first views.

    They are kept in the folder of the representation `net`, for all corrections. Of an encoder from another
    run they are there before the new outputs are, and have its digest. What comes in bfloat16 is kept in
    float16: half the space, and nothing lost of it but what is below 3e-8.
    """
    folder = config.folder("representation")
    encoder_from = weights_file(Path(config.representation or folder))
    key = digest_of([digest(encoder_from), store.folder.name])
    shape = (inputs.n_views, len(store.catalogue), net.encoder.n_features)
    place, device = folder / f"embeddings-{key}", device_of(config.trainer)
    ebv = np.asarray(store.catalogue["ebv"], dtype=np.float32)

    is_new = not (place / MASK).is_file()
    half = is_new and gives_half(net.encoder, inputs, store, config.trainer)
    cache = EmbeddingCache(place, shape, np.float16 if half else np.float32)

    @torch.inference_mode()
    def encode(wanted: Ints, views: int) -> Iterator[tuple[Ints, NDArray[np.float32]]]:
        array, made = store.inputs, inputs
        if inputs.once:
            array, made = measured(config, store, inputs, wanted), VectorInputs()
        encoder, one = net.encoder.to(device).eval(), torch.from_numpy(np.array(array[:1])).to(device)
        of_one = tuple(network_inputs(made, one, 0).shape[1:])
        fastest = for_inference(encoder, of_one, config.trainer, views * len(wanted))
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            raw = torch.from_numpy(np.ascontiguousarray(array[part])).to(device)
            part_ebv = torch.from_numpy(ebv[part]).to(device)
            out = np.empty((views, len(part), shape[2]), dtype=np.float32)
            for view in range(views):
                unit = row_noise(part, view, raw.shape[2]).to(device) if raw.ndim == 3 else None
                out[view] = embed(fastest, made, raw, part_ebv, view, config.trainer, unit).cpu().numpy()
            yield part, out

    cache.ensure(rows, n_views, encode)
    return np.asarray(cache.array)


@torch.inference_mode()
def gives_half(encoder: Encoder, inputs: Inputs, store: Store, trainer: TrainerConfig) -> bool:
    """Whether an encoder's output is in bfloat16, told by one galaxy."""
    device = device_of(trainer)
    x = network_inputs(inputs, torch.from_numpy(np.array(store.inputs[:1])).to(device), 0)
    with autocast(trainer):
        out = encoder.to(device).eval()(x, torch.zeros(1, device=device))
    return bool(out.dtype == torch.bfloat16)


def measured(config: Config, store: Store, inputs: Inputs, rows: Ints) -> NDArray[np.float32]:
    """Return what `inputs` make of a store's N galaxies once for all views, (N, d), in the wanted rows.

    It is kept for all representations of a family of runs that read the same.
    """
    device = device_of(config.trainer)
    shape = (1, len(store.catalogue), inputs(torch.ones(1, *store.inputs.shape[1:]), None).shape[1])
    file = getattr(store.inputs, "filename", store.folder)  # another one may have its name
    key = digest_of([fingerprint([file]), repr(inputs)])
    folder = config.folder("representation").parents[1] / "measured" / key

    @torch.inference_mode()
    def encode(wanted: Ints, views: int) -> Iterator[tuple[Ints, NDArray[np.float32]]]:
        log.info("measuring %d galaxies", len(wanted))
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            raw = torch.from_numpy(np.ascontiguousarray(store.inputs[part])).to(device)
            yield part, inputs(raw, None)[None].cpu().numpy()

    with locked(folder):
        cache = EmbeddingCache(folder, shape)
        cache.ensure(rows, 1, encode)
    return np.asarray(cache.array[0])


def embed(
    encoder: Encode,
    inputs: Inputs,
    raw: Tensor,
    ebv: Tensor,
    view: int,
    trainer: TrainerConfig,
    unit: Tensor | None = None,
) -> Tensor:
    """Return the embeddings (n, d), float32, of a batch of a store's inputs and E(B-V) (n,) in one view."""
    return encoded(encoder, network_inputs(inputs, raw, view, unit), ebv, trainer)


def network_inputs(inputs: Inputs, raw: Tensor, view: int, unit: Tensor | None = None) -> Tensor:
    """Return what a network reads, (n, ...), of a batch of a store's inputs in one view."""
    x = inputs(raw, torch.full((len(raw),), view, device=raw.device) if view else None, unit)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def encoded(encoder: Encode, x: Tensor, ebv: Tensor, trainer: TrainerConfig) -> Tensor:
    """Return the embeddings (n, d), float32, of what a network reads."""
    size = piece(x.ndim, trainer)
    with autocast(trainer):
        parts = [encoder(*part) for part in zip(torch.split(x, size), torch.split(ebv, size), strict=True)]
    return torch.cat(parts).float()


def write_reference(
    config: Config, store: Store, net: PhotozNet, inputs: Inputs, train_rows: Ints, val_rows: Ints
) -> None:
    """Write `reference.npz` into the representation's folder: what galaxies it was trained on.

    It holds the embeddings (m, d) of galaxies of the training and validation splits in view 0, `train` and
    `val`; of the training split the least and largest dered_petro_r and E(B-V), `r_range` and `ebv`, mag, the
    typical flux by band, `flux`, and `objects_of`. Those to predict for are compared with them.
    """
    chosen = [spaced(train_rows, REFERENCE_TRAIN), spaced(val_rows, REFERENCE_VAL)]
    embeddings = embeddings_of(config, store, net, inputs, np.concatenate(chosen), 1)[0]
    r, ebv = (np.asarray(store.catalogue[n], dtype=np.float64)[train_rows] for n in ("dered_petro_r", "ebv"))
    write_arrays(
        config.folder("representation") / "reference.npz",
        {
            "train": embeddings[chosen[0]].astype(np.float32),
            "val": embeddings[chosen[1]].astype(np.float32),
            "r_range": [r.min(), r.max()],
            "ebv": [ebv.min(), ebv.max()],
            "flux": typical_flux(store.inputs[spaced(train_rows, REFERENCE_FLUX)]),
            "objects": np.unique(objects_of(store)[train_rows]),
        },
    )


def objects_of(store: Store) -> NDArray[np.uint64]:
    """Return a number for each galaxy's object, (N,), the same wherever it has this name; 0 without names."""
    names = object_names(store.catalogue)
    return np.zeros(len(store.catalogue), np.uint64) if names is None else draw(names, len(names), 0)


def typical_flux(inputs: NDArray[np.floating[Any]]) -> Floats:
    """Return the median over galaxies of what grows with their flux, by band, in any unit.

    Of cutouts (n, bands, pixels, pixels) it is the standard deviation over pixels, positive for faint ones
    too; of magnitudes and errors (n, 2, F) the flux; of vectors (n, d) nothing.
    """
    if inputs.ndim == 4:
        return np.asarray(np.median(np.std(inputs, axis=(2, 3), dtype=np.float64), axis=0))
    if inputs.ndim == 3:
        return np.asarray(np.median(10 ** (-0.4 * inputs[:, 0].astype(np.float64)), axis=0))
    return np.empty(0)


def spaced(rows: Ints, most: int) -> Ints:
    """Take so many rows at most, evenly spaced: tables may be sorted."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]


def row_noise(rows: Ints, view: int, n_columns: int) -> torch.Tensor:
    """Standard normal draws (n, n_columns) that depend on (row, view) alone."""
    out = torch.empty(len(rows), n_columns)
    blocks = rows // NOISE_BLOCK
    for block in np.unique(blocks):
        generator = torch.Generator().manual_seed(1_000_003 * view + int(block))
        draws = torch.randn(NOISE_BLOCK, n_columns, generator=generator)
        members = np.flatnonzero(blocks == block)
        out[members] = draws[rows[members] % NOISE_BLOCK]
    return out
