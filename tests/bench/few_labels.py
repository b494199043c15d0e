"""How few spec_z are enough: real SDSS magnitudes, with and without what the package's model knows.

    python tests/bench/few_labels.py --real sdss_mgs.csv --output FOLDER [--quick]

The table has spec_z, mag_u .. mag_z and mag_err_u .. mag_err_z. Settings were tuned on its first half. In
each draw 1,000 galaxies of the second half are judged, and n of all others have spec_z. Writes files
few_labels.svg, .png and .json, and prints a table. The estimate is the median.

The ways: `simulated` (`experiment=few_spectra`: heads on sdss_main_magnitudes, mixed with its own p(z)),
`scratch` (an mlp and its head on n labels, with errors), `trees` and `neighbours` (scikit-learn).
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from command import run_well

import photoz_lit
from photoz_lit import metrics
from photoz_lit.config import saved
from photoz_lit.grids import RedshiftGrid
from photoz_lit.models.encoders import build_encoder
from photoz_lit.models.encoders.settings import MLPSettings
from photoz_lit.models.heads import Head, PhotozNet
from photoz_lit.report.figures import style
from photoz_lit.results import read_pdf

Floats, Ints = NDArray[np.float64], NDArray[np.int64]
BANDS = "ugriz"
NUMBERS: tuple[int, ...] = (100, 300, 1000, 3000)
MODEL = "sdss_main_magnitudes"
N_TEST = 1000
GRID = RedshiftGrid(0.0, 0.4, 120)
HIDDEN = [128, 128]
LOOKS = {
    "scratch": (style.VERMILION, "o"),
    "simulated": (style.BLUE, "*"),
    "trees": (style.ORANGE, "s"),
    "neighbours": (style.GREY, "^"),
}


@dataclass(frozen=True)
class Galaxies:
    """Magnitudes and their errors (n, 5), mag, and spec_z (n,)."""

    magnitudes: Tensor
    errors: Tensor
    spec_z: Floats

    def __getitem__(self, rows: Any) -> "Galaxies":
        return Galaxies(self.magnitudes[rows], self.errors[rows], self.spec_z[rows])

    def noisy(self, rows: Tensor, times: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return magnitudes perturbed by so many times their errors, and the errors, of some galaxies."""
        m, e = self.magnitudes[rows], self.errors[rows]
        return m + times * e * torch.randn(m.shape, generator=generator), e


def read(path: Path) -> Galaxies:
    """Read a table."""
    table = Table.read(path)
    m, e = (
        torch.from_numpy(np.column_stack([table[f"{name}_{b}"] for b in BANDS])).float()
        for name in ("mag", "mag_err")
    )
    return Galaxies(m, e, np.asarray(table["spec_z"], dtype=np.float64))


def features(magnitudes: Tensor, errors: Tensor | None = None) -> Tensor:
    """Return magnitudes, colours and, if given, the logarithms of errors."""
    parts = [magnitudes, magnitudes[:, :-1] - magnitudes[:, 1:]]
    return torch.cat(parts if errors is None else [*parts, errors.log()], dim=1)


def labels(spec_z: Floats) -> Tensor:
    """Return soft labels, one bin wide, (n, K)."""
    p = np.exp(-0.5 * ((GRID.centres - spec_z[:, None]) / GRID.width) ** 2)
    return torch.from_numpy(p / p.sum(axis=1, keepdims=True)).float()


def new_network(columns: Tensor, seed: int) -> PhotozNet:
    """Make an mlp with one output that takes the scale of these columns."""
    generator = torch.Generator().manual_seed(seed)
    encoder = build_encoder("mlp", columns.shape[1], 0, MLPSettings("mlp", HIDDEN), generator)
    encoder.standardise(columns, torch.zeros(len(columns)))
    return PhotozNet(encoder, Head(encoder.n_features, 1, GRID.n_bins, generator))


def descend(
    modules: list[nn.Module],
    loss: Callable[[Tensor, torch.Generator], Tensor],
    n: int,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    batch: int = 128,
    seed: int = 0,
) -> None:
    """Train modules in one cycle; the loss is given numbers of galaxies and what random numbers come from."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [p for module in modules for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, total_steps=steps + 1, pct_start=0.2, cycle_momentum=False
    )
    for _ in range(steps):
        rows = torch.randint(n, (min(batch, n),), generator=generator)
        optimiser.zero_grad()
        loss(rows, generator).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        cycle.step()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy with soft labels."""
    return -(target * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()


def logits_of(net: PhotozNet, columns: Tensor) -> Tensor:
    """Return logits (n, K) of an mlp, for which E(B-V) is not known."""
    logits: Tensor = net(columns, torch.zeros(len(columns)))[0][:, 0]
    return logits


def fit(net: PhotozNet, data: Galaxies, with_errors: bool, noise: float, **how: Any) -> PhotozNet:
    """Train a network on galaxies whose magnitudes are perturbed by so many times their errors."""
    target = labels(data.spec_z)

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        m, e = data.noisy(rows, noise, generator)
        return cross_entropy(logits_of(net, features(m, e if with_errors else None)), target[rows])

    descend([net], loss, len(data.spec_z), **how)
    return net.eval()


@torch.inference_mode()
def pdf_of(logits: Tensor) -> Floats:
    """Return p(z) of logits."""
    return torch.softmax(logits, dim=1).numpy().astype(np.float64)


def scratch(train: Galaxies, test: Galaxies, seed: int) -> Floats:
    """Two mlps and their heads on the labels alone; their p(z) are averaged."""
    columns = features(train.magnitudes, train.errors)
    nets = [new_network(columns, number) for number in (seed, seed + 100)]
    for net in nets:
        fit(net, train, True, 1.0, steps=700, lr=2e-3, weight_decay=0.1, seed=seed)
    return _mean(nets, features(test.magnitudes, test.errors))


def _mean(nets: list[PhotozNet], columns: Tensor) -> Floats:
    return np.asarray(np.mean([pdf_of(logits_of(net, columns)) for net in nets], axis=0))


def of_residuals(estimate: Floats, spread: Floats) -> Floats:
    """Return Gaussian p(z) about estimates, on the bins."""
    p = np.exp(-0.5 * ((GRID.centres - estimate[:, None]) / spread[:, None]) ** 2) + 1e-12
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def by_sklearn(name: str, train: Galaxies, test: Galaxies, seed: int) -> Floats:
    """Trees or neighbours; p(z) is a Gaussian as wide as the residuals of cross-validation."""
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, x_test = (features(d.magnitudes, d.errors).numpy() for d in (train, test))
    if name == "neighbours":
        x, x_test = x[:, 2:9], x_test[:, 2:9]
        model = make_pipeline(StandardScaler(), KNeighborsRegressor(10, weights="distance"))
    else:
        model = GradientBoostingRegressor(
            n_estimators=150,
            max_depth=4,
            learning_rate=0.06,
            subsample=0.5,
            max_features=5,
            random_state=seed,
        )
    off = cross_val_predict(model, x, train.spec_z, cv=3) - train.spec_z
    spread = np.full(len(x_test), 1.4826 * np.median(np.abs(off)))
    return of_residuals(model.fit(x, train.spec_z).predict(x_test), spread)


def with_model(table: Table, train: Ints, test: Ints, seed: int) -> tuple[Floats, RedshiftGrid]:
    """Run `experiment=few_spectra` on these rows, and return p(z) of the test rows, and its bins."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for rows, file in ((train, "train.csv"), (test, "test.csv")):
            table[rows].write(folder / file)
        words = [f"data.path={folder / 'train.csv'}", f"data.test_path={folder / 'test.csv'}", f"seed={seed}"]
        words += [f"output_dir={folder / 'runs'}", f"data_dir={folder / 'data'}", "logger=none"]
        own = [*words, "data.columns.object_id=object_id", "trainer.threads=1", "n_bootstrap=2"]
        run_well("experiment=few_spectra", "fit_missing=true", *own)
        done = next(folder.glob("runs/*/classifier/*/done.json")).parent
        pdf, place = np.concatenate(list(read_pdf(done))), Table.read(done / "photo_z.fits")["object_id"]
        order = {one: i for i, one in enumerate(np.asarray(place).tolist())}
        ours = [order[one] for one in np.asarray(table["object_id"][test]).tolist()]
        return np.asarray(pdf[ours], dtype=np.float64), saved(done / "config.yaml").output_grid()


def scores(pdf: Floats, spec_z: Floats, grid: RedshiftGrid = GRID) -> dict[str, float]:
    """Judge p(z) and its median."""
    dz = metrics.residual(spec_z, metrics.median(pdf, grid))
    return {
        "sigma_mad": metrics.sigma_mad(dz),
        "crps": float(metrics.crps(pdf, spec_z, grid).mean()),
        "bias": metrics.bias(dz),
        "outlier_fraction": metrics.outlier_fraction(dz, 0.05),
    }


def rows_of(draw: int, n_rows: int, quick: bool) -> tuple[Ints, Ints]:
    """Return the rows with spec_z, in order of their choice, and those that are judged."""
    rng, half = np.random.default_rng(draw), n_rows // 2
    judged = rng.permutation(half)[:N_TEST] if quick else half + rng.permutation(n_rows - half)[:N_TEST]
    pool = np.setdiff1d(np.arange(half if quick else n_rows), judged)
    return rng.permutation(pool), judged


def curves(path: Path, numbers: tuple[int, ...], draws: int, quick: bool) -> dict[str, Any]:
    """Judge every way with so many labels, in several draws of them: lists of scores by way and number."""
    table, real, model = Table.read(path), read(path), photoz_lit.load(MODEL, device="cpu")
    table["object_id"], found = np.arange(len(table)), defaultdict(lambda: defaultdict(list))
    zero: list[dict[str, float]] = []
    for draw in range(draws):
        order, judged = rows_of(draw, len(table), quick)
        test = real[judged]
        alone = model.predict(table[judged], 0.0, table["mag_r"][judged])
        zero.append(scores(alone.pdf.astype(np.float64), test.spec_z, alone.grid))
        for n in numbers:
            own, train = order[:n], real[order[:n]]
            pdf, grid = with_model(table, own, judged, draw)
            found["simulated"][n].append(scores(pdf, test.spec_z, grid))
            found["scratch"][n].append(scores(scratch(train, test, draw), test.spec_z))
            for name in ("trees", "neighbours"):
                found[name][n].append(scores(by_sklearn(name, train, test, draw), test.spec_z))
            print(draw, n, {name: by[n][-1]["sigma_mad"] for name, by in found.items()}, flush=True)
    return {"zero": zero, "ways": found}


def draw_curves(found: dict[str, Any]) -> Figure:
    """Draw sigma_mad and CRPS by number of labels."""
    figure = Figure(figsize=(style.FULL_WIDTH, 3.6))
    words = {"sigma_mad": "sigma_mad of the median", "crps": "CRPS"}
    for place, (key, word) in enumerate(words.items()):
        ax = figure.add_subplot(1, 2, place + 1)
        for name, by_number in found["ways"].items():
            colour, marker = LOOKS[name]
            values = np.array([[one[key] for one in by_number[n]] for n in by_number])
            means, spread = values.mean(axis=1), values.std(axis=1)
            ax.errorbar(list(by_number), means, spread, color=colour, marker=marker, label=name, capsize=2)
        ax.axhline(
            np.mean([one[key] for one in found["zero"]]),
            color=style.BLUE,
            linestyle="--",
            label="sdss_main_magnitudes alone",
        )
        ax.set(xscale="log", xlabel="real galaxies with spec_z", title=word)
        ticks = list(next(iter(found["ways"].values())))
        ax.set_xticks(ticks, [f"{n}" for n in ticks], rotation=45)
        ax.minorticks_off()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("real", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tune: the first half alone")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = curves(asked.real, (300, 1000) if asked.quick else NUMBERS, asked.draws, asked.quick)
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "few_labels.json").write_text(json.dumps(found, indent=1))
    with rc_context(style.STYLE):
        figure = draw_curves(found)
        (asked.output / "few_labels.svg").write_bytes(style.as_svg(figure))
        (asked.output / "few_labels.png").write_bytes(style.as_png(figure))
    for name, by_number in {MODEL: {0: found["zero"]}, **found["ways"]}.items():
        for n, each in by_number.items():
            s, c, b = (np.array([one[key] for one in each]) for key in ("sigma_mad", "crps", "bias"))
            print(f"{name:22s} {n:5d}  {s.mean():.4f}+-{s.std():.4f} {c.mean():.5f}+-{c.std():.5f} ", end="")
            print(f"bias {b.mean():+.4f}")


if __name__ == "__main__":
    main()
