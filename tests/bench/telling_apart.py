"""Classifiers that tell real galaxies from simulated ones, by numbers and by pixels, and how well they do.

Each galaxy is scored by a classifier that was trained on other galaxies (five folds). Needs scikit-learn.
"""

import numpy as np
import torch
from morphology import BANDS, SIDE, Floats, Image, Mask, R
from numpy.typing import NDArray
from scipy import ndimage, stats

REPEATS = 4  # of the five folds, for the trees
SCALE = np.array([0.036, 0.0145, 0.0224, 0.0353, 0.136], np.float32)[
    :, None, None
]  # nanomaggies, for the CNN


def auc(real: Mask, score: Floats) -> tuple[float, float]:
    """Return the area under the ROC curve and its error (Hanley & McNeil 1982, Radiology 143, 29)."""
    m, n = int(real.sum()), int((~real).sum())
    area = (stats.rankdata(score)[real].sum() - m * (m + 1) / 2) / (m * n)
    q1, q2 = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    return float(area), float(np.sqrt((area * (1 - area) + (m - 1) * q1 + (n - 1) * q2) / (m * n)))


def folds(real: Mask, seed: int) -> NDArray[np.intp]:
    """Give each galaxy one of five folds, as many real and as many simulated ones in each."""
    rng, fold = np.random.default_rng(seed), np.empty(len(real), np.intp)
    for kind in (real, ~real):
        fold[kind] = rng.permutation(np.arange(kind.sum()) % 5)
    return fold


def tell_by_numbers(table: Floats, real: Mask, seed: int) -> tuple[Floats, Floats]:
    """Tell real galaxies by their numbers (n, k), with boosted trees: scores of those not trained on, (n,).

    Also returns by how much the area under the curve falls when a number is shuffled among these, (k,).
    """
    from sklearn.ensemble import GradientBoostingClassifier

    rng, score = np.random.default_rng(seed), np.zeros(len(real))
    falls, weight = np.zeros(table.shape[1]), np.where(real, (~real).sum() / real.sum(), 1.0)
    for repeat, k in np.ndindex(REPEATS, 5):
        test = folds(real, seed + repeat) == k
        trees = GradientBoostingClassifier(
            n_estimators=80, max_depth=3, subsample=0.7, max_features="sqrt", random_state=seed + repeat
        ).fit(table[~test], real[~test], weight[~test])
        score[test] += (held_out := trees.decision_function(table[test]))
        for i in range(table.shape[1]):
            other = table[test].copy()
            other[:, i] = rng.permutation(other[:, i])
            fallen = auc(real[test], held_out)[0] - auc(real[test], trees.decision_function(other))[0]
            falls[i] += fallen / (5 * REPEATS)
    return score, falls


def views(cutouts: Image) -> dict[str, Image]:
    """Return what a network may see of cutouts: all, a part, without detail below two pixels, one band."""
    scaled = cutouts / SCALE
    soft = ndimage.gaussian_filter(scaled, (0, 0, 2, 2))[..., ::2, ::2] * 4
    shown = {"all": scaled, "centre": np.where(R < 12, scaled, 0), "outskirts": np.where(R > 16, scaled, 0)}
    bands = {f"{band} alone": scaled[:, i : i + 1] for i, band in enumerate(BANDS)}
    shown |= {"smoothed": soft} | bands
    return {name: np.arcsinh(view).astype(np.float32) for name, view in shown.items()}


def tell_by_pixels(images: Image, real: Mask, seed: int, *, epochs: int = 15) -> Floats:
    """Tell real galaxies by pixels (n, bands, side, side), with a small network: scores as of the trees."""
    pixels, label = torch.from_numpy(images), torch.from_numpy(real.astype(np.float32))
    weight = torch.tensor(float((~real).sum() / real.sum()))
    score, fold = np.zeros(len(real)), folds(real, seed)
    for k in range(5):
        torch.manual_seed(seed + k)
        net, train = _network(images.shape[1], strided=images.shape[-1] == SIDE), np.flatnonzero(fold != k)
        optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
        batches = -(-len(train) // 32)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * batches)
        for _ in range(epochs):
            for batch in torch.from_numpy(train)[torch.randperm(len(train))].chunk(batches):
                seen = _turn(pixels[batch], int(torch.randint(8, ())))
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    net(seen)[:, 0], label[batch], pos_weight=weight
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        net.eval()
        test = np.flatnonzero(fold == k)
        with torch.no_grad():
            logit = torch.stack([net(_turn(pixels[test], side))[:, 0] for side in range(8)]).mean(0).numpy()
        score[test] = (logit - logit.mean()) / logit.std()  # folds have networks of their own scale
    return score


def _turn(images: torch.Tensor, side: int) -> torch.Tensor:
    """Show one of the eight symmetries of a square."""
    turned = torch.rot90(images, side % 4, (2, 3))
    return turned.transpose(2, 3) if side > 3 else turned


def _network(bands: int, *, strided: bool) -> torch.nn.Sequential:
    def block(before: int, after: int, size: int = 3, stride: int = 1) -> list[torch.nn.Module]:
        conv = torch.nn.Conv2d(before, after, size, stride, size // 2, bias=False)
        return [conv, torch.nn.BatchNorm2d(after), torch.nn.ReLU()]

    deep = [*block(16, 24), torch.nn.MaxPool2d(2), *block(24, 32), torch.nn.MaxPool2d(2), *block(32, 32)]
    pool = [torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Dropout(0.3), torch.nn.Linear(128, 1)]
    return torch.nn.Sequential(*block(bands, 16, 5, 2 if strided else 1), *deep, *pool)
