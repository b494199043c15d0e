"""Embeddings of a representation: the encoder runs once a galaxy and view, whatever the correction."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from photoz_lit.config import Config, TrainerConfig
from photoz_lit.data.store import Store
from photoz_lit.data.transforms import Inputs
from photoz_lit.embeddings import EmbeddingCache
from photoz_lit.files import digest, write_arrays
from photoz_lit.models.encoders.layers import Encoder
from photoz_lit.models.heads import PhotozNet
from photoz_lit.training import autocast, device_of

NOISE_BLOCK = 512  # rows of the store whose noise is drawn together
REFERENCE_TRAIN = 8192  # training galaxies that others are compared with: 4 MB at 128 dimensions
REFERENCE_VAL = 2048  # validation galaxies that say what distances are usual


def embeddings_of(
    config: Config,
    store: Store,
    net: PhotozNet,
    inputs: Inputs,
    rows: NDArray[np.int64],
    n_views: int,
) -> NDArray[np.float32]:
    """Return the cached embeddings (views, N, d) with the wanted rows and views filled.

    Parameters
    ----------
    config : Config
        Settings; the cache lies in their representation's folder.
    store : Store
        The N galaxies.
    net : PhotozNet
        The trained representation.
    inputs : ImageInputs or CatalogueInputs
        What happens to the store's inputs first.
    rows : array (n,)
        Rows of the store that are wanted.
    n_views : int
        Views that are wanted, from view 0 on.
    """
    folder = config.folder("representation")
    key = hashlib.sha256(f"{digest(folder / 'model.ckpt')} {store.folder.name}".encode()).hexdigest()[:12]
    shape = (inputs.n_views, len(store.catalogue), net.encoder.n_features)
    cache = EmbeddingCache(folder / f"embeddings-{key}", shape)
    device = device_of(config.trainer)
    encoder = net.encoder.to(device).eval()
    ebv = np.asarray(store.catalogue["ebv"], dtype=np.float32)

    @torch.inference_mode()
    def encode(
        wanted: NDArray[np.int64], views: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        size = config.trainer.predict_batch_size
        for start in range(0, len(wanted), size):
            part = wanted[start : start + size]
            raw = torch.from_numpy(np.ascontiguousarray(store.inputs[part])).to(device)
            part_ebv = torch.from_numpy(ebv[part]).to(device)
            out = np.empty((views, len(part), shape[2]), dtype=np.float32)
            for view in range(views):
                unit = row_noise(part, view, raw.shape[2]).to(device) if raw.ndim == 3 else None
                out[view] = embed(encoder, inputs, raw, part_ebv, view, config.trainer, unit).cpu().numpy()
            yield part, out

    cache.ensure(rows, n_views, encode)
    return np.asarray(cache.array)


def embed(
    encoder: Encoder,
    inputs: Inputs,
    raw: Tensor,
    ebv: Tensor,
    view: int,
    trainer: TrainerConfig,
    unit: Tensor | None = None,
) -> Tensor:
    """Return the embeddings (n, d), float32, of a batch of a store's inputs and E(B-V) (n,) in one view."""
    x = inputs(raw, torch.full((len(raw),), view, device=raw.device), unit)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with autocast(trainer):
        embeddings: Tensor = encoder(x, ebv)
    return embeddings.float()


def write_reference(
    config: Config,
    store: Store,
    net: PhotozNet,
    inputs: Inputs,
    train_rows: NDArray[np.int64],
    val_rows: NDArray[np.int64],
) -> None:
    """Write `reference.npz` into the representation's folder: what galaxies it was trained on.

    It holds the embeddings (m, d) of galaxies of the training and validation splits in view 0, `train` and
    `val`, and `r_range`, the least and largest dered_petro_r (mag) of the whole training split. Those to
    predict for are compared with them.
    """
    chosen = [_spaced(train_rows, REFERENCE_TRAIN), _spaced(val_rows, REFERENCE_VAL)]
    embeddings = embeddings_of(config, store, net, inputs, np.concatenate(chosen), 1)[0]
    r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)[train_rows]
    write_arrays(
        config.folder("representation") / "reference.npz",
        {"train": embeddings[chosen[0]], "val": embeddings[chosen[1]], "r_range": [r.min(), r.max()]},
    )


def _spaced(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Take so many rows at most, evenly spaced: tables may be sorted."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]


def row_noise(rows: NDArray[np.int64], view: int, n_columns: int) -> torch.Tensor:
    """Standard normal draws (n, n_columns) that depend on (row, view) alone."""
    out = torch.empty(len(rows), n_columns)
    blocks = rows // NOISE_BLOCK
    for block in np.unique(blocks):
        generator = torch.Generator().manual_seed(1_000_003 * view + int(block))
        draws = torch.randn(NOISE_BLOCK, n_columns, generator=generator)
        members = np.flatnonzero(blocks == block)
        out[members] = draws[rows[members] % NOISE_BLOCK]
    return out
