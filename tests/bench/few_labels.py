"""How few spec_z are enough: real SDSS magnitudes, with and without what a simulated survey has taught.

    python tests/bench/few_labels.py --real sdss_mgs.csv --simulated catalogue.fits --output FOLDER [--quick]

Both are tables with spec_z, mag_u .. mag_z and mag_err_u .. mag_err_z. Settings were tuned on the first half
of the real table. Heads are fitted to n galaxies of the first half, in several draws, and judged on the
second. Writes few_labels.svg, .png and .json, and prints a table. The estimate is the median.

The ways: `scratch` (an mlp and its head on n labels), `simulated` (outputs behind a hidden layer, on the
frozen embedding of an mlp of simulated galaxies and on the errors, added to that mlp's own logits; its p(z)
is averaged with that of `scratch`),
`self-supervised` (an mlp that learnt to mend magnitudes of the first half, without labels, fine-tuned with a
head), `trees` and `neighbours` (scikit-learn).
"""

import argparse
import copy
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from photoz_lit import metrics
from photoz_lit.grids import RedshiftGrid
from photoz_lit.models.encoders import build_encoder
from photoz_lit.models.encoders.settings import MLPSettings
from photoz_lit.models.heads import Head, PhotozNet
from photoz_lit.report.figures import style

Floats, Ints = NDArray[np.float64], NDArray[np.int64]
BANDS = "ugriz"
NUMBERS: tuple[int, ...] = (100, 200, 300, 500, 1000, 2000, 2500)
GRID = RedshiftGrid(0.0, 0.4, 120)
HIDDEN = [128, 128]
STEPS = 2500  # of the mlp of simulated galaxies
WORTH = 1500  # labels: what the simulated survey counts for
FOLDS, SHARES = 5, (0.0, 0.25, 0.5, 0.75, 1.0)
LOOKS = {
    "scratch": (style.VERMILION, "o"),
    "simulated": (style.BLUE, "*"),
    "self-supervised": (style.GREEN, "D"),
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


def of_size(data: Galaxies) -> Tensor:
    """Return what the error in r says beyond the magnitudes, (n, 1): large galaxies have more sky in them.

    In units of its scatter in this survey: simulated and real errors are not of one scale.
    """
    m = data.magnitudes - 17.5
    known = torch.cat([torch.ones(len(m), 1), m, m**2, m[:, :1] * m[:, 2:3]], dim=1)
    error = data.errors[:, 2:3].log()
    rest = error - known @ torch.linalg.lstsq(known, error).solution
    return (rest / (1.4826 * rest.abs().median())).clamp(-3, 3)


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


def simulated(data: Galaxies, seed: int) -> PhotozNet:
    """Train the mlp of simulated galaxies; their errors are not enough like real ones to be features."""
    size, target = of_size(data), labels(data.spec_z)
    net = new_network(torch.cat([features(data.magnitudes), size], dim=1), seed)

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        m, _ = data.noisy(rows, 0.5, generator)
        return cross_entropy(logits_of(net, torch.cat([features(m), size[rows]], dim=1)), target[rows])

    descend([net], loss, len(size), steps=STEPS, lr=3e-3, weight_decay=0.01, batch=256, seed=seed)
    return net.eval()


def known_of(data: Galaxies) -> Galaxies:
    """Return galaxies with what the mlp of simulated ones reads, of a whole survey, as their magnitudes."""
    return Galaxies(torch.cat([features(data.magnitudes), of_size(data)], dim=1), data.errors, data.spec_z)


def on_simulated(nets: list[PhotozNet], train: Galaxies, test: Galaxies, seed: int) -> Floats:
    """Outputs that start from nothing, added to the logits of each frozen mlp; their p(z) are averaged."""
    return np.asarray(np.mean([_beside(net, train, test, seed) for net in nets], axis=0))


def blend(of_simulated: Floats, of_labels: Floats, n: int) -> Floats:
    """Return the mean of two p(z): n labels count as much as `WORTH` of them for the simulated survey."""
    return np.asarray((WORTH * of_simulated + n * of_labels) / (WORTH + n))


def _beside(net: PhotozNet, train: Galaxies, test: Galaxies, seed: int) -> Floats:
    def frozen(data: Galaxies) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x = net.encoder(data.magnitudes, torch.zeros(len(data.spec_z)))
            return torch.cat([x, data.errors.log()], dim=1), net.head(x)[0][:, 0]

    (x, base), (x_test, base_test), target = frozen(train), frozen(test), labels(train.spec_z)
    mean, scale = x.mean(dim=0), x.std(dim=0) + 1e-6

    def corrections(rows: Ints, wanted: Tensor) -> Tensor:
        """Fit outputs to some of the labels, and return what they add to the logits of others."""
        torch.manual_seed(seed)
        more = nn.Sequential(nn.Linear(x.shape[1], 64), nn.GELU(), last := nn.Linear(64, GRID.n_bins))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

        def added(inputs: Tensor) -> Tensor:
            correction: Tensor = more(((inputs - mean) / scale).clamp(-5, 5))
            return correction

        def loss(picked: Tensor, generator: torch.Generator) -> Tensor:
            return cross_entropy(base[rows][picked] + added(x[rows][picked]), target[rows][picked])

        # Few labels move little: with more steps the outputs learn 300 galaxies by heart.
        n = len(rows)
        steps, lr = min(2 * n // 5, 800), min(3e-3, 3e-6 * n)
        descend([more], loss, n, steps=steps, lr=lr, weight_decay=0.1, seed=seed)
        with torch.no_grad():
            return added(wanted)

    # How much of the correction is taken, labels that it was not fitted to say.
    number = np.arange(len(x))
    apart = torch.zeros_like(base)
    for fold in range(FOLDS):
        apart[number % FOLDS == fold] = corrections(number[number % FOLDS != fold], x[number % FOLDS == fold])
    crps = [metrics.crps(pdf_of(base + share * apart), train.spec_z, GRID).mean() for share in SHARES]
    share = SHARES[int(np.argmin(crps))]
    return pdf_of(base_test + share * corrections(number, x_test))


def mended(data: Galaxies, seed: int) -> PhotozNet:
    """Teach an mlp without labels: to tell all magnitudes and colours where one band is hidden."""
    columns = features(data.magnitudes, data.errors)
    net, usual = new_network(columns, seed), data.magnitudes.mean(dim=0)
    target = (columns - columns.mean(dim=0)) / columns.std(dim=0)
    tell = nn.Linear(net.encoder.n_features, columns.shape[1])

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        m, e = data.noisy(rows, 1.0, generator)
        hidden = torch.randint(len(BANDS), (len(rows),), generator=generator)
        hide = nn.functional.one_hot(hidden, len(BANDS)).bool()
        x = net.encoder(features(torch.where(hide, usual, m), e), torch.zeros(len(rows)))
        return nn.functional.mse_loss(tell(x), target[rows])

    descend([net.encoder, tell], loss, len(data.spec_z), steps=2000, lr=2e-3, weight_decay=0.01, seed=seed)
    return net


def self_supervised(nets: list[PhotozNet], train: Galaxies, test: Galaxies, seed: int) -> Floats:
    """The mlps that learnt without labels, fine-tuned with a head; their p(z) are averaged."""
    nets = copy.deepcopy(nets)
    for net in nets:
        fit(net, train, True, 1.0, steps=700, lr=2e-3, weight_decay=0.1, seed=seed)
    return _mean(nets, features(test.magnitudes, test.errors))


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


def scores(pdf: Floats, spec_z: Floats) -> dict[str, float]:
    """Judge p(z) and its median."""
    dz = metrics.residual(spec_z, metrics.median(pdf, GRID))
    return {
        "sigma_mad": metrics.sigma_mad(dz),
        "crps": float(metrics.crps(pdf, spec_z, GRID).mean()),
        "bias": metrics.bias(dz),
        "outlier_fraction": metrics.outlier_fraction(dz, 0.05),
    }


def curves(real: Galaxies, sim: Galaxies, numbers: tuple[int, ...], draws: int, half: int) -> dict[str, Any]:
    """Judge every way with so many labels, in several draws of them: lists of scores by way and number."""
    pool, test = real[:half], real[half:]
    nets, whole = [simulated(sim, seed) for seed in range(4)], known_of(real)
    learnt = [mended(pool, seed) for seed in (0, 1)]
    known, known_test = whole[:half], whole[half:]
    zero = _mean(nets, known_test.magnitudes)
    ways: dict[str, Callable[[Ints, int], Floats]] = {
        "scratch": lambda own, seed: scratch(pool[own], test, seed),
        "simulated": lambda own, seed: blend(
            on_simulated(nets, known[own], known_test, seed), scratch(pool[own], test, seed), len(own)
        ),
        "self-supervised": lambda own, seed: self_supervised(learnt, pool[own], test, seed),
        "trees": lambda own, seed: by_sklearn("trees", pool[own], test, seed),
        "neighbours": lambda own, seed: by_sklearn("neighbours", pool[own], test, seed),
    }
    found: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(half)
        for n in numbers:
            for name, way in ways.items():
                found[name][n].append(scores(way(order[:n], draw), test.spec_z))
    return {"zero": scores(zero, test.spec_z), "ways": found}


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
        ax.axhline(found["zero"][key], color=style.BLUE, linestyle="--", label="simulated survey alone")
        ax.set(xscale="log", xlabel="real galaxies with spec_z", title=word)
        ticks = list(next(iter(found["ways"].values())))
        ax.set_xticks(ticks, [f"{n}" for n in ticks], rotation=45)
        ax.minorticks_off()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("real", "simulated", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tune: the first half alone, 1,900 for 600")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    real, half, numbers = read(asked.real), 2500, NUMBERS
    if asked.quick:
        rows = np.random.default_rng(0).permutation(2500)
        real, half, numbers = real[rows], 1900, (300, 1000)
    found = curves(real, read(asked.simulated), numbers, asked.draws, half)
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "few_labels.json").write_text(json.dumps(found, indent=1))
    with rc_context(style.STYLE):
        figure = draw_curves(found)
        (asked.output / "few_labels.svg").write_bytes(style.as_svg(figure))
        (asked.output / "few_labels.png").write_bytes(style.as_png(figure))
    zero = found["zero"]
    print(f"{'simulated survey alone':22s}     0  {zero['sigma_mad']:.4f}         {zero['crps']:.5f}", end="")
    print(f"         bias {zero['bias']:+.4f}")
    for name, by_number in found["ways"].items():
        for n, each in by_number.items():
            s, c, b = (np.array([one[key] for one in each]) for key in ("sigma_mad", "crps", "bias"))
            print(f"{name:22s} {n:5d}  {s.mean():.4f}+-{s.std():.4f} {c.mean():.5f}+-{c.std():.5f} ", end="")
            print(f"bias {b.mean():+.4f}")


if __name__ == "__main__":
    main()
