"""A trained model on galaxies: p(z) of any galaxies, from finished run folders alone.

    models = [open_model(folder) for folder in finished_runs("runs/main/classifier/correction=full,seed=*")]
    predictor = Predictor(models, "images", (5, 64, 64))
    pdf, distance = predictor(cutouts, ebv, r)
    photo_z = metrics.mode(pdf, predictor.grid)

Several models are an ensemble. Nothing outside their folders is read, and no spec_z is used.
"""

import copy
import hashlib
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from photoz_lit import config as settings
from photoz_lit.ahead import in_order
from photoz_lit.checkpoints import load_weights, open_weights
from photoz_lit.compiled import for_inference
from photoz_lit.config import Config, TrainerConfig
from photoz_lit.correction.finishing.chain import Chain
from photoz_lit.correction.prior import Priors, mean_priors
from photoz_lit.data.store import ESTIMATED, Store
from photoz_lit.data.transforms import Inputs
from photoz_lit.device import BATCH, device_of, keep_memory
from photoz_lit.embeddings import REFERENCE_FLUX, encoded, network_inputs, objects_of, spaced, typical_flux
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import digest, read_arrays
from photoz_lit.grids import Bools, Floats, RedshiftGrid, Texts
from photoz_lit.models.encoders import reads
from photoz_lit.models.encoders.layers import Encoder
from photoz_lit.models.heads import AnyHead, Ensemble, Mean, PhotozNet, mixture
from photoz_lit.models.neighbours import Neighbours
from photoz_lit.network import build, inputs_of, new_outputs

log = logging.getLogger(__name__)

CHUNK = 8192  # galaxies at a time: what an interruption loses
LEAST_BATCH = 64  # of a thread: with less it waits for its turn between operations
NEIGHBOURS = 5  # the distance to the training galaxies is that to so many of them
FAR = 0.99  # quantile of the validation galaxies' distances; what lies beyond it is far

Read = Callable[[int, int], NDArray[np.floating[Any]]]  # inputs from a row to another
Columns = tuple[Bools, NDArray[np.float32], Floats]  # whether to estimate, E(B-V) and r, mag, of all rows
Estimates = tuple[NDArray[np.float32], NDArray[np.float32]]
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Trained:
    """A finished run folder to predict with."""

    folder: Path
    path: Path  # of its weights
    config: Config
    weights: dict[str, Tensor]
    digest: str  # SHA-256 of that file
    reference: dict[str, NDArray[Any]]  # of its training galaxies (`embeddings.write_reference`), or nothing

    @property
    def grid(self) -> RedshiftGrid:
        """Bins of its p(z), extension included."""
        return self.config.output_grid()

    @cached_property
    def chain(self) -> Chain:
        """What finishes its p(z)."""
        if not self.config.correction.finish:
            return Chain()
        return Chain.read(self.folder, self.config.survey.slices(), self.grid)

    @property
    def priors(self) -> Priors:
        """Priors of its p(z), on their bins; DataError where the folder does not tell them."""
        return Priors.read(self.folder)


def open_model(folder: Path) -> Trained:
    """Read a finished run folder; DataError where a file is damaged, or of another version."""
    path, checkpoint = open_weights(folder)
    try:
        config = settings.restored(checkpoint["settings"])
    except ConfigError as error:
        raise DataError(f"{path} {error}") from error
    told = folder / "reference.npz"
    reference = read_arrays(told) if told.is_file() else {}
    if not reference:
        log.warning("%s has no reference.npz: its training galaxies are not known to compare with", folder)
    return Trained(folder, path, config, checkpoint["state_dict"], digest(path), reference)


def check_agreement(models: Sequence[Trained]) -> None:
    """Raise ConfigError, with what differs, unless the members of an ensemble estimate the same thing."""

    def facts(model: Trained) -> dict[str, Any]:
        s, d = model.config.survey, model.config.data
        return {
            "target": {"column": model.config.target.column},
            "survey": {"bands": s.bands, "pixels": s.pixels},
            "bins of p(z)": asdict(model.grid),
            "data": {"magnitudes": d.magnitudes} if d.source == "catalogue" else {},
        }

    for other in models[1:]:
        if changed := settings.differences(facts(models[0]), facts(other)):
            raise ConfigError(
                f"{models[0].folder} and {other.folder} are no ensemble, they differ in "
                f"{'; '.join(changed)}: narrow the pattern model=... to runs of one kind"
            )


@dataclass(frozen=True)
class Branch:
    """An encoder and the heads on it: members of an ensemble that share a representation encode once."""

    encoder: Encoder
    inputs: Inputs
    # Of each its head, what finishes its p(z), and its priors where another is wanted.
    members: list[tuple[AnyHead, Chain | None, Priors | None]] = field(default_factory=list)


class Predictor:
    """p(z) of galaxies, and their distance to the training galaxies.

    p(z) is the arithmetic mean over models and, of images, `n_views` symmetries; `prior`, an n(z)
    (n_outputs,) or "flat", is what each model's is converted to first. Distances are the first model's, in
    view 0 (`models.neighbours`).
    `kind` is that of the galaxies' store (`photoz_lit.data.store.Store`), `shape` that of one of them. For
    `n` galaxies, where they are many, encoders may be compiled.
    """

    def __init__(
        self,
        models: Sequence[Trained],
        kind: str,
        shape: tuple[int, ...],
        *,
        prior: Floats | Literal["flat"] | None = None,
        n_views: int = 1,
        trainer: TrainerConfig | None = None,
        n: int = 0,
    ) -> None:
        check_agreement(models)
        keep_memory()
        self.trainer = trainer or TrainerConfig()
        self.device, self.grid = device_of(self.trainer), models[0].grid
        self.priors = mean_priors([model.priors for model in models])
        if prior is not None:
            self.priors = self.priors.converted(None if isinstance(prior, str) else prior)
        # Of estimates for galaxies of given spec_z: all members have one, and p(z) are as they were measured.
        responses = [response for model in models for response in model.chain.responses]
        self.responses = responses if len(responses) == len(models) and prior is None else []
        self.branches = list(_branches(models, kind, shape, prior is not None))
        most = max(branch.inputs.n_views for branch in self.branches)
        self.n_views = min(n_views, most) if kind == "images" else 1
        # Networks of images use all threads for a batch; small operations want a batch a thread.
        on_cpu = self.device.type == "cpu"
        self.small = on_cpu and all(branch.inputs.once or kind != "images" for branch in self.branches)
        self.neighbours = _neighbours(models[0])
        self.threshold = self.neighbours.threshold if self.neighbours else np.inf  # beyond, a galaxy is far
        heads = [head for branch in self.branches for head, _, _ in branch.members]
        for module in (self.neighbours, *(branch.encoder for branch in self.branches), *heads):
            if module is not None:
                module.to(self.device).eval()
        one = torch.zeros(1, *shape, device=self.device)
        shapes = [tuple(network_inputs(branch.inputs, one, 0).shape[1:]) for branch in self.branches]
        self.encoders = [
            for_inference(branch.encoder, of_one, self.trainer, n * self.n_views)
            for branch, of_one in zip(self.branches, shapes, strict=True)
        ]

    def __call__(self, inputs: NDArray[Any], ebv: NDArray[Any], r: NDArray[Any] | None = None) -> Estimates:
        """Return p(z) (n, n_outputs) and distance (n,), from inputs (n, ...), E(B-V) and r (n,), mag."""
        n = len(inputs)
        known = np.full(n, np.nan) if r is None else np.asarray(r, dtype=np.float64)
        columns = np.ones(n, dtype=bool), np.asarray(ebv, dtype=np.float32), known
        return next(self._chunks([slice(0, n)], lambda start, stop: inputs[start:stop], columns))

    def chunks(
        self, store: Store, start: int, stop: int, usable: Bools, tick: Tick | None = None
    ) -> Generator[Estimates]:
        """Yield p(z) and distance of rows of a store, CHUNK at a time; the next are in work by then.

        They are zeros and NaN where `usable` (N,) is false.
        """
        ebv = np.nan_to_num(np.asarray(store.catalogue["ebv"], dtype=np.float32))
        parts = [slice(i, min(i + CHUNK, stop)) for i in range(start, stop, CHUNK)]
        return self._chunks(parts, store.read, (usable, ebv, store.column("dered_petro_r")), tick)

    def _chunks(
        self, chunks: Sequence[slice], read: Read, columns: Columns, tick: Tick | None = None
    ) -> Generator[Estimates]:
        """Give the estimates of chunks of rows, each made of batches in threads."""

        def inputs_of(part: slice) -> NDArray[Any] | None:
            return read(part.start, part.stop) if columns[0][part].any() else None

        def estimate(part: slice, raw: NDArray[Any] | None) -> Estimates:
            used, ebv, r = columns
            return self._batch(raw, used[part], ebv[part], r[part])

        batches = (batch for chunk in chunks for batch in self._batches(chunk))
        made = in_order(batches, inputs_of, estimate, apart=self.small)
        with closing(made):
            for chunk in chunks:
                done = []
                for _ in self._batches(chunk):
                    done.append(next(made))
                    if tick:
                        tick(len(done[-1][1]))
                pdf, distance = (np.concatenate(parts) for parts in zip(*done, strict=True))
                yield pdf, distance

    def _batches(self, chunk: slice) -> list[slice]:
        """Part a chunk of rows so that all threads have some."""
        n = chunk.stop - chunk.start
        size = min(BATCH, max(LEAST_BATCH, -(-n // torch.get_num_threads()))) if self.small else BATCH
        starts = range(chunk.start, max(chunk.stop, chunk.start + 1), size)
        return [slice(start, min(start + size, chunk.stop)) for start in starts]

    @torch.inference_mode()
    def _batch(self, raw: NDArray[Any] | None, used: Bools, ebv: NDArray[np.float32], r: Floats) -> Estimates:
        """Return p(z) and distance of a batch, zeros and NaN where it is not `used`."""
        pdf = np.zeros((len(used), self.grid.n_outputs), np.float32)
        distance = np.full(len(used), np.nan, np.float32)
        if raw is not None:
            rows = slice(None) if used.all() else used  # a view: cutouts are large
            found = self._estimate(self._on_device(raw[rows]), self._on_device(ebv[rows]), r[rows])
            pdf[rows], distance[rows] = (values.cpu().numpy() for values in found)
        return pdf, distance

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self.device)

    def _estimate(self, inputs: Tensor, ebv: Tensor, r: Floats) -> tuple[Tensor, Tensor]:
        """Return p(z) (m, n_outputs) and distance (m,) of a batch; finishing needs r (m,), mag."""
        pdfs, distance = [], torch.full((len(inputs),), torch.nan, device=self.device)
        made: dict[tuple[Inputs, int], Tensor] = {}  # encoders that read the same share it
        for branch, encoder in zip(self.branches, self.encoders, strict=True):
            keys = [(branch.inputs, view) for view in range(min(self.n_views, branch.inputs.n_views))]
            made |= {key: network_inputs(key[0], inputs, key[1]) for key in keys if key not in made}
            views = [encoded(encoder, made[key], ebv, self.trainer) for key in keys]
            if self.neighbours is not None and branch is self.branches[0]:
                distance = self.neighbours(views[0])
            for head, finishing, old in branch.members:
                pdf = torch.stack([mixture(*head(view)) for view in views]).mean(dim=0)
                if finishing is not None:
                    pdf = self._on_device(finishing(pdf.cpu().numpy(), r, views[0].cpu().numpy()))
                if old is not None:
                    converted = old.convert(pdf.cpu().numpy(), r, self.priors)
                    pdf = self._on_device(converted.astype(np.float32))
                pdfs.append(pdf)
        return torch.stack(pdfs).mean(dim=0), distance


def _branches(models: Sequence[Trained], kind: str, shape: tuple[int, ...], swaps: bool) -> Iterable[Branch]:
    """Build the networks; models with one and the same encoder share a branch."""
    branches: dict[str, Branch] = {}
    for model in models:
        net, c = _network(model, kind, shape), model.config.correction
        heads = [
            new_outputs(model.config, net.head, model.grid.n_outputs) if c.step3 else copy.deepcopy(net.head)
            for _ in range(c.members)
        ]
        net = PhotozNet(net.encoder, heads[0] if c.members == 1 else Ensemble(heads, cast(Mean, c.mean)))
        load_weights(net, model.weights, model.path)
        facts = hashlib.sha256(repr(asdict(model.config.encoder)).encode())
        for name, values in sorted(net.encoder.state_dict().items()):
            facts.update(name.encode() + values.contiguous().numpy().tobytes())
        branch = branches.setdefault(facts.hexdigest(), Branch(net.encoder, inputs_of(model.config, kind)))
        finishing = model.chain if c.finish else None
        if swaps and c.loses_prior:
            raise ConfigError(
                f"{model.folder} ({c.name}) changes p(z) by {c.loses_prior}: they have no prior that could "
                "be replaced. Type predict.prior=none, or take another correction, e.g. full"
            )
        branch.members.append((net.head, finishing, model.priors if swaps else None))
    return branches.values()


def _network(model: Trained, kind: str, shape: tuple[int, ...]) -> PhotozNet:
    """Build a model's network with initial weights; ConfigError unless it reads such galaxies."""
    s, encoder = model.config.survey, model.config.encoder.name
    if kind not in reads(encoder):
        raise ConfigError(
            f"{model.folder} (encoder={encoder}) cannot read {kind}: choose another source or model"
        )
    net = build(model.config, kind, (0, *shape))
    expected: tuple[int, ...] = (len(s.bands), s.pixels, s.pixels)
    if kind != "images":
        name = "encoder.standardisation.mean"
        expected, shape = tuple(model.weights[name].shape), tuple(net.state_dict()[name].shape)
    if shape != expected:
        raise ConfigError(
            f"{model.folder} was trained on {kind} of shape {expected} ({s.name}, bands {s.bands}), "
            f"the galaxies have {shape}: bring data like those"
        )
    return net


def _neighbours(model: Trained) -> Neighbours | None:
    """Return what measures distances to a model's training galaxies, where the run tells of them."""
    if "train" not in model.reference:
        return None
    train, val = (torch.from_numpy(model.reference[name]).float() for name in ("train", "val"))
    try:
        with torch.inference_mode():
            return Neighbours(train, NEIGHBOURS).set_threshold(val, FAR)
    except ValueError as error:
        raise DataError(
            f"{model.folder / 'reference.npz'}: {error}: this model cannot be used, its training diverged or "
            "had a single galaxy"
        ) from error


def flags_of(store: Store, models: Sequence[Trained]) -> Texts:
    """What speaks against an estimate of each galaxy, or against making one, (n,): `store.FLAGS` but far."""
    return flags_for(store.flags, ebv_known(store), store.column("dered_petro_r"), models)


def flags_for(of_inputs: Texts, known: Bools, r: Floats, models: Sequence[Trained]) -> Texts:
    """Add to what is said of inputs, "" or a flag, (n,), what E(B-V), known or not, and r, mag, say."""
    flags = np.where(of_inputs == "", "good", of_inputs).astype("<U8")
    usable = np.isin(flags, ESTIMATED)
    if uses_ebv(models):
        flags[usable & ~known] = "ebv"
    for model in models:
        r_min, r_max = model.reference.get("r_range", (-np.inf, np.inf))
        flags[usable & ((r < r_min) | (r > r_max))] = "r_range"
    return flags


def uses_ebv(models: Sequence[Trained]) -> bool:
    """Whether E(B-V) is of use: a model whose training galaxies had none has none."""
    return any(model.reference.get("ebv", np.ones(1)).any() for model in models)


def ebv_known(store: Store) -> Bools:
    """Whether each galaxy's E(B-V) is known, (n,)."""
    table = store.catalogue
    if "ebv_known" in table.colnames:
        return np.asarray(table["ebv_known"], dtype=bool)
    return np.isfinite(store.column("ebv"))


def flux_ratio(store: Store, usable: Bools, model: Trained) -> float:
    """Return the typical flux relative to that of the model's training galaxies; NaN where unknown."""
    rows, theirs = np.flatnonzero(usable), model.reference.get("flux", np.empty(0))
    if rows.size == 0 or not theirs.any():
        return np.nan
    ours = typical_flux(np.concatenate([store.read(i, i + 1) for i in spaced(rows, REFERENCE_FLUX)]))
    return float(np.median(ours[theirs > 0] / theirs[theirs > 0]))


def trained_on(store: Store, models: Sequence[Trained]) -> int:
    """Return how many galaxies are by their names ones that a model was trained on."""
    known = np.concatenate([model.reference.get("objects", np.empty(0, np.uint64)) for model in models])
    starts = range(0, len(store.catalogue) if known.size else 0, 8 * CHUNK)  # names take memory
    parts = (objects_of(replace(store, catalogue=store.catalogue[i : i + 8 * CHUNK])) for i in starts)
    return sum(int((np.isin(part, known) & (part != 0)).sum()) for part in parts)
