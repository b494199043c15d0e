"""`stage=predict`: photo-z of galaxies without spec_z, from trained run folders and any source of galaxies.

Read a batch -> encoder -> head -> p(z) -> files, in order. Memory does not grow with the number of galaxies
beyond their table, and an interrupted run goes on where it stopped. No spec_z is used.
"""

import copy
import glob
import hashlib
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from photoz_lit import config as settings
from photoz_lit.config import Config, TrainerConfig
from photoz_lit.correction.finishing import Finishing
from photoz_lit.data.store import ESTIMATED, Store
from photoz_lit.data.transforms import Inputs
from photoz_lit.embeddings import embed
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import digest, locked, read_arrays, write_json
from photoz_lit.grids import RedshiftGrid
from photoz_lit.models.encoders import encoder_class
from photoz_lit.models.encoders.layers import Encoder
from photoz_lit.models.heads import AnyHead, Ensemble, Mean, PhotozNet, mixture
from photoz_lit.models.neighbours import Neighbours
from photoz_lit.progress import progress_bar
from photoz_lit.results import Results
from photoz_lit.stages.evaluate import check_origin, enter
from photoz_lit.stages.prepare import prepare
from photoz_lit.stages.prior import PriorSwap, read_prior, train_n_of_z
from photoz_lit.stages.representation import build, inputs_of, new_outputs
from photoz_lit.training import device_of, load_checkpoint, load_weights

log = logging.getLogger(__name__)

LOG_EVERY = 30.0  # s


@dataclass(frozen=True)
class Trained:
    """A finished run folder to predict with; nothing outside the folder is read.

    Parameters
    ----------
    folder : Path
        Where it lies.
    config : Config
        The settings that it was trained with.
    weights : dict of str to Tensor
        State of its network.
    digest : str
        SHA-256 of its checkpoint.
    reference : dict of str to array, optional
        What galaxies it was trained on (`photoz_lit.stages.embed.write_reference`), where the run tells.
    """

    folder: Path
    config: Config
    weights: dict[str, Tensor]
    digest: str
    reference: dict[str, NDArray[Any]] | None

    @property
    def grid(self) -> RedshiftGrid:
        """Bins of its p(z), extension included."""
        s = self.config.survey
        return s.grid().extended(s.extend_left, s.extend_right) if self.config.correction.extend else s.grid()


@dataclass(frozen=True)
class Branch:
    """An encoder and the heads on it: members of an ensemble that share a representation encode once."""

    encoder: Encoder
    inputs: Inputs
    heads: list[AnyHead]
    finishings: list[Finishing | None]
    swaps: list[PriorSwap | None]


def run(config: Config) -> None:
    """Estimate p(z) and photo-z of all galaxies of a source and write them into a run folder."""
    models = [open_model(folder) for folder in finished_runs(config.model or "")]
    check_agreement(models)
    target = target_settings(config, models[0])
    store = prepare(target)
    check_inputs(models, store)
    prior, n_views = read_prior(target.predict.prior, models[0].grid), target.predict.symmetries
    if prior is not None:
        check_priors_are_known(models)
    if store.kind != "images" and n_views > 1:
        log.info("predict.symmetries=%d: %s have none, one view is used", n_views, store.kind)
        n_views = 1
    folder = results_folder(target, models, store, n_views)
    origin = origin_of(target, models, store)
    check_origin(folder, origin)
    if not enter(target, folder, origin):
        return
    with locked(folder):
        if not (folder / "done.json").is_file():  # another process may have been at it
            estimate_all(target, folder, models, store, n_views, prior)
        (folder / "lock").unlink(missing_ok=True)


def estimate_all(
    config: Config,
    folder: Path,
    models: list[Trained],
    store: Store,
    n_views: int,
    new_prior: NDArray[np.float64] | None,
) -> None:
    """Fill the files of a run folder, from the first galaxy that is not in them yet, and complete it."""
    began, chunk = time.monotonic(), config.predict.chunk
    flags = flags_of(store, models)
    prior = new_prior
    if prior is None:
        prior = np.mean([train_n_of_z(model.folder) for model in models], axis=0)
    files = Results(folder, store.catalogue, models[0].grid, prior, config.estimate, config.target)
    if files.rows:
        log.info("going on at galaxy %d of %d", files.rows, len(flags))
    branches, neighbours = branches_of(models, store, new_prior), neighbours_of(models[0], config)
    with counted(files.rows, len(flags), config.trainer.progress) as tick:
        usable = np.isin(flags, ESTIMATED)
        estimator = Estimator(store, usable, branches, neighbours, n_views, config.trainer, tick)
        for start in range(files.rows, len(flags), chunk):
            part = slice(start, min(start + chunk, len(flags)))
            pdf, distance, far = estimator(part.start, part.stop)
            files.append(pdf, np.where(far, "far", flags[part]), distance)
    files.finish()
    complete(config, folder, models, files.counts, time.monotonic() - began)
    files.forget()


@contextmanager
def counted(done: int, total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Show progress with the time left: a bar on a terminal, else a line in the log now and then.

    Yields
    ------
    tick : callable
        Told how many more galaxies are done.
    """
    first, began = done, time.monotonic()
    logged = began
    with progress_bar("galaxies", wanted) as advance:
        advance(done, total)

        def tick(n: int) -> None:
            nonlocal done, logged
            advance(n, total)
            done += n
            now = time.monotonic()
            if now - logged > LOG_EVERY and not sys.stdout.isatty():
                rate = (done - first) / (now - began)
                left = timedelta(seconds=round((total - done) / rate))
                log.info("%d of %d galaxies, %.0f a second, %s left", done, total, rate, left)
                logged = now

        yield tick


class Estimator:
    """p(z) of a store's galaxies by their rows.

    p(z) is the arithmetic mean over members of an ensemble and over symmetries; the distance to the training
    galaxies is the first member's, in view 0.

    Parameters
    ----------
    store : Store
        The galaxies.
    usable : array of bool (n,)
        Which of them get estimates.
    branches : list of Branch
        The networks; the first member's encoder comes first.
    neighbours : Neighbours, optional
        The first member's training galaxies.
    n_views : int
        Symmetries, from view 0 on.
    trainer : TrainerConfig
        Device, precision, size of batches.
    tick : callable
        Told how many more galaxies are done.
    """

    def __init__(
        self,
        store: Store,
        usable: NDArray[np.bool_],
        branches: list[Branch],
        neighbours: Neighbours | None,
        n_views: int,
        trainer: TrainerConfig,
        tick: Callable[[int], None],
    ) -> None:
        self.store, self.usable, self.n_views = store, usable, n_views
        self.trainer, self.device, self.tick = trainer, device_of(trainer), tick
        self.ebv = np.asarray(store.catalogue["ebv"], dtype=np.float32)
        self.r = np.full(len(self.ebv), np.nan)
        if "dered_petro_r" in store.catalogue.colnames:
            self.r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
        self.neighbours = neighbours.to(self.device) if neighbours else None
        self.branches = branches
        for branch in branches:
            for module in (branch.encoder, *branch.heads):
                module.to(self.device).eval()

    @torch.inference_mode()
    def __call__(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Return p(z) (m, n_outputs), distance (m,) and whether it is far (m,) of rows start to stop.

        Galaxies that cannot be used have zeros, NaN and false.
        """
        n_outputs = self.branches[0].heads[0].n_bins
        pdf = torch.zeros(stop - start, n_outputs, device=self.device)
        distance = torch.full((stop - start,), torch.nan, device=self.device)
        for first, raw in read_ahead(self.store, start, stop, self.trainer.predict_batch_size):
            members = np.flatnonzero(self.usable[first : first + len(raw)])
            if members.size:
                inputs = self._on_device(raw if members.size == len(raw) else raw[members])
                place = torch.from_numpy(first - start + members).to(self.device)
                pdf[place], distance[place] = self._estimate(
                    inputs, self._on_device(self.ebv[first + members]), self.r[first + members]
                )
            self.tick(len(raw))
        threshold = self.neighbours.threshold if self.neighbours else np.inf
        return pdf.cpu().numpy(), distance.cpu().numpy(), (distance > threshold).cpu().numpy()

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _estimate(self, inputs: Tensor, ebv: Tensor, r: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Return p(z) (m, n_outputs) and distance (m,) of a batch; finishing needs r (m,), mag."""
        pdfs: list[Tensor] = []
        distance = torch.full((len(inputs),), torch.nan, device=self.device)
        for branch in self.branches:
            views: list[list[Tensor]] = [[] for _ in branch.heads]
            for view in range(self.n_views):
                embedding = embed(branch.encoder, branch.inputs, inputs, ebv, view, self.trainer)
                for of_head, head in zip(views, branch.heads, strict=True):
                    of_head.append(mixture(*head(embedding)))
                if view == 0:
                    first = embedding
                if self.neighbours is not None and branch is self.branches[0] and view == 0:
                    distance = self.neighbours(embedding)
            for of_head, finishing, swap in zip(views, branch.finishings, branch.swaps, strict=True):
                pdf = torch.stack(of_head).mean(dim=0)
                if finishing is not None:
                    done = finishing(pdf.cpu().numpy(), r, first.cpu().numpy())
                    pdf = torch.from_numpy(done).to(self.device)
                if swap is not None:
                    pdf = torch.from_numpy(swap(pdf.cpu().numpy())).to(self.device)
                pdfs.append(pdf)
        return torch.stack(pdfs).mean(dim=0), distance


def read_ahead(
    store: Store, start: int, stop: int, size: int
) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
    """Yield (first row, inputs) of batches; the next is read while one is in work."""
    firsts = range(start, stop, size)
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(store.read, start, min(start + size, stop))
        for first in firsts:
            raw, following = ahead.result(), first + size
            if following < stop:
                ahead = reader.submit(store.read, following, min(following + size, stop))
            yield first, raw


def finished_runs(pattern: str) -> list[Path]:
    """Return the finished run folders that a folder, or a pattern with *, names.

    Raises
    ------
    ConfigError
        There is none.
    """
    path = Path(pattern).expanduser()
    if path.is_dir() or "*" not in pattern:
        found = [path]
    else:  # names of run folders may hold brackets: only * is special here
        literal = glob.escape(str(path)).replace("[*]", "*")
        found = [Path(name) for name in sorted(glob.glob(literal)) if Path(name).is_dir()]
    finished = [folder.resolve() for folder in found if (folder / "done.json").is_file()]
    if left := [str(f) for f in found if f.resolve() not in finished and finished]:
        log.warning("not finished, and left out: %s", ", ".join(left))
    if not finished:
        raise ConfigError(
            f"model={pattern}: no finished run is there. Name the folder of one, e.g. "
            "model=runs/main/classifier/correction=full,seed=1, or train it first:\n"
            "  python -m photoz_lit stage=representation\n"
            "  python -m photoz_lit stage=classifier correction=full"
        )
    return finished


def open_model(folder: Path) -> Trained:
    """Read settings, weights and reference of a finished run folder.

    Raises
    ------
    DataError
        A file is damaged, or of another version.
    """
    path = folder / "model.ckpt"
    checkpoint = load_checkpoint(path)
    try:
        config = settings.restored(checkpoint["settings"])
    except (ValueError, ConfigError) as error:
        raise DataError(f"{path} {error}") from error
    reference = None
    if (folder / "reference.npz").is_file():
        reference = read_arrays(folder / "reference.npz")
    return Trained(folder, config, checkpoint["state_dict"], digest(path), reference)


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


def check_priors_are_known(models: Sequence[Trained]) -> None:
    """Raise ConfigError unless the implicit prior of every model's p(z) is what is stored with it."""
    for model in models:
        c = model.config.correction
        why = "moves p(z) away from the mean of the sample" if c.unshrink > 0 else "rescales its outputs"
        if c.unshrink > 0 or c.rescale != "none":
            raise ConfigError(
                f"{model.folder} ({c.name}) {why}: its p(z) have no prior that could be replaced. Type "
                "predict.prior=none, or take another correction, e.g. full"
            )


def target_settings(config: Config, model: Trained) -> Config:
    """Return the settings of the galaxies to predict for: survey, target and encoder are the model's.

    Raises
    ------
    ConfigError
        The command line asks for another survey or target, or for a source that the model cannot read.
    """
    own, source = model.config, config.data.source
    typed = {word.lstrip("+~").partition("=")[0] for word in shlex.split(config.names["words"])}
    for group in ("survey", "target"):
        ours, given = (asdict(getattr(c, group)) for c in (own, config))
        changed = settings.differences(ours, given, f"{group}.")
        if changed := [line for line in changed if {group, line.partition(":")[0]} & typed]:
            raise ConfigError(
                f"{model.folder} was trained for another {group} than you typed ({'; '.join(changed)}): "
                f"leave {group} out, it is the model's"
            )
    gives = {
        "catalogue": ["features"],
        "embeddings": ["vectors"],
        "store": ["images", "features", "vectors"],
    }.get(source, ["images"])
    reads = encoder_class(own.encoder.name).reads
    if not set(gives) & set(reads):
        raise ConfigError(
            f"{model.folder} reads {' or '.join(reads)} (encoder={own.encoder.name}) but data={source} has "
            f"{gives[0]}: choose another source or model"
        )
    return replace(
        config,
        survey=own.survey,
        target=own.target,
        encoder=replace(own.encoder, noise=0.0),  # only training perturbs magnitudes
        head=own.head,
        correction=replace(own.correction, estimate=None),
        estimate=config.estimate if "estimate" in typed else own.photo_z,
        data=replace(config.data, **_columns(config.data, own.data, typed, own.target.column)),
    )


def _columns(given: Any, own: Any, typed: set[str], truth: str) -> dict[str, Any]:
    """Names of the table's columns: as typed, else the model's where it was trained on such a table."""
    if not hasattr(given, "columns"):  # a store has them already
        return {}
    # An own name for itself says nothing, and would make the column one that has to be there.
    columns = {ours: theirs for ours, theirs in given.columns.items() if ours != theirs}
    if not given.source == own.source == "catalogue":
        return {"columns": columns}
    names: dict[str, Any] = {
        key: getattr(given if f"data.{key}" in typed else own, key)
        for key in ("magnitudes", "magnitude_errors")
    }
    known = {k: v for k, v in own.columns.items() if k not in ("spec_z", truth, "target", "split", v)}
    return names | {"columns": known | columns}


def check_inputs(models: Sequence[Trained], store: Store) -> None:
    """Raise ConfigError unless every model reads what the store holds."""
    for model in models:
        s, encoder, shape = model.config.survey, model.config.encoder.name, store.inputs.shape[1:]
        if store.kind not in encoder_class(encoder).reads:
            raise ConfigError(
                f"{model.folder} (encoder={encoder}) cannot read {store.folder}, which holds {store.kind}: "
                "choose another source or model"
            )
        expected: Any = (len(s.bands), s.pixels, s.pixels)
        if store.kind != "images":
            name = "encoder.standardisation.mean"
            expected = tuple(model.weights[name].shape)
            shape = tuple(build(model.config, store).state_dict()[name].shape)
        if shape != expected:
            raise ConfigError(
                f"{model.folder} was trained on {store.kind} of shape {expected} "
                f"({s.name}, bands {s.bands}), {store.folder} gives {shape}: "
                "bring data like those it was trained on"
            )


def results_folder(config: Config, models: Sequence[Trained], store: Store, n_views: int) -> Path:
    """Return where the estimates go: by model, prior, views and store."""
    name = models[0].folder.name
    if len(models) > 1:
        name = f"ensemble-{hashlib.sha256(_digests(models).encode()).hexdigest()[:12]}"
    wanted = config.predict.prior
    prior = "" if wanted == "none" else f",prior={Path(wanted).stem}"
    views = f",symmetries={n_views}" if n_views > 1 else ""
    above = Path(config.output_dir) / config.run / "predict"
    return above / f"{name}{prior}{views}" / store.folder.resolve().name


def origin_of(config: Config, models: Sequence[Trained], store: Store) -> dict[str, str]:
    """Return what decides the estimates: a finished folder is not taken for one of other facts."""
    p = config.predict
    table = Path(p.prior).expanduser()
    prior = {} if p.prior == "none" else {"predict.prior": digest(table) if table.is_file() else p.prior}
    return prior | {
        "store": f"{store.folder.resolve().name} {digest(store.folder / 'catalogue.fits')}",
        "model": _digests(models),
        "estimate": config.estimate,
        "predict.neighbours": str(p.neighbours),
        "predict.far_quantile": str(p.far_quantile),
    }


def _digests(models: Sequence[Trained]) -> str:
    return " ".join(model.digest for model in models)


def flags_of(store: Store, models: Sequence[Trained]) -> NDArray[np.str_]:
    """What speaks against an estimate of each galaxy, or against making one, (n,): `store.FLAGS`."""
    flags = np.where(store.flags == "", "good", store.flags).astype("<U8")
    if "dered_petro_r" not in store.catalogue.colnames:
        log.info(
            "no column dered_petro_r: whether galaxies are as bright as those in training is not checked"
        )
        return flags
    r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
    for model in models:
        if model.reference is not None:
            r_min, r_max = model.reference["r_range"]
            flags[np.isin(flags, ESTIMATED) & ((r < r_min) | (r > r_max))] = "r_range"
    return flags


def neighbours_of(model: Trained, config: Config) -> Neighbours | None:
    """Return what measures distances to a model's training galaxies, where the run tells of them.

    Raises
    ------
    DataError
        Their embeddings are not finite.
    """
    if model.reference is None:
        log.warning(
            "%s has no reference.npz, as runs of earlier versions: there are no distances to its training "
            "galaxies, and r is not compared with theirs",
            model.folder,
        )
        return None
    train, val = (torch.from_numpy(model.reference[name]) for name in ("train", "val"))
    p = config.predict
    try:
        with torch.inference_mode():
            return Neighbours(train, p.neighbours).set_threshold(val, p.far_quantile)
    except ValueError as error:
        raise DataError(
            f"{model.folder / 'reference.npz'}: {error}: this model cannot be used, its training diverged or "
            "had a single galaxy"
        ) from error


def branches_of(
    models: Sequence[Trained], store: Store, prior: NDArray[np.float64] | None = None
) -> list[Branch]:
    """Build the networks; models with one and the same encoder share a branch.

    Each model's p(z) are converted from its own implicit prior to `prior`, (n_outputs,), where one is given.
    """
    branches: dict[str, Branch] = {}
    for model in models:
        net = network_of(model, store)
        facts = hashlib.sha256(repr(asdict(model.config.encoder)).encode())
        for name, values in sorted(net.encoder.state_dict().items()):
            facts.update(name.encode() + values.contiguous().numpy().tobytes())
        branch = branches.setdefault(
            facts.hexdigest(), Branch(net.encoder, inputs_of(model.config, store), [], [], [])
        )
        branch.heads.append(net.head)
        branch.finishings.append(finishing_of(model))
        branch.swaps.append(None if prior is None else PriorSwap(train_n_of_z(model.folder), prior))
    return list(branches.values())


def finishing_of(model: Trained) -> Finishing | None:
    """Return what the model's correction does to finished p(z), if anything."""
    if not model.config.correction.finishes:
        return None
    arrays = read_arrays(model.folder / "finishing.npz")
    return Finishing.from_arrays(arrays, model.config.survey.slices(), model.grid)


def network_of(model: Trained, store: Store) -> PhotozNet:
    """Build a model's network and load its weights."""
    net, c = build(model.config, store), model.config.correction
    heads = [
        new_outputs(model.config, net.head, model.grid.n_outputs) if c.relabels else copy.deepcopy(net.head)
        for _ in range(c.members)
    ]
    net = PhotozNet(net.encoder, heads[0] if c.members == 1 else Ensemble(heads, cast(Mean, c.mean)))
    load_weights(net, model.weights, model.folder / "model.ckpt")
    return net


def complete(
    config: Config, folder: Path, models: Sequence[Trained], counts: Mapping[str, int], seconds: float
) -> None:
    """Write `done.json`, only then the run is complete, and say what came out."""
    total, flagged = sum(counts.values()), {flag: n for flag, n in sorted(counts.items()) if flag != "good"}
    estimated = sum(n for flag, n in counts.items() if flag in ESTIMATED)
    content = {
        "label": ", ".join(model.folder.name for model in models),
        "stage": "predict",
        "run": config.run,
        "seconds": round(seconds, 1),
        "galaxies": total,
        "estimated": estimated,
        "flagged": flagged,
    }
    write_json(folder / "done.json", content)
    words = ", ".join(f"{flag} {n}" for flag, n in flagged.items())
    log.info(
        "%d of %d galaxies have a %s%s -> %s",
        estimated,
        total,
        config.target.estimate,
        f" (flagged: {words})" if words else "",
        folder,
    )
