"""How far a galaxy is from the training galaxies, in the embedding that its p(z) is made from."""

from typing import Self

import torch
from torch import Tensor, nn

LEAST_VARIANCE = 1e-4  # of a direction, in units of the largest: embeddings in bf16 are no more precise
GROUP = 32  # training galaxies of which the nearest is found first


class Neighbours(nn.Module):
    """Distance to the k-th nearest of a sample of training galaxies.

    Galaxies unlike any in training lie far from all of them, whatever p(z) says (Sun et al. 2022, ICML,
    arXiv:2204.06507). The distance is Euclidean and exact. Each dimension of the embedding is first scaled to
    unit variance over the sample, and then each principal direction, as in a Mahalanobis distance (Lee et al.
    2018, NeurIPS, arXiv:1807.03888): what sets a star apart is seen in directions in which galaxies hardly
    differ. Sun et al. scale each embedding to unit length instead, which would hide that a galaxy is too
    bright or too faint.

    ValueError where there are fewer than two embeddings (m, d), or they are not finite. Where there are fewer
    than k, the farthest counts.
    """

    mean: Tensor
    whitening: Tensor
    train_embeddings: Tensor  # (m, d), and far ones that fill the last group
    squares: Tensor

    def __init__(self, train: Tensor, k: int) -> None:
        super().__init__()
        if len(train) < 2 or not bool(torch.isfinite(train).all()):
            raise ValueError("needs at least two embeddings, all of them finite")
        self.k = min(k, len(train))
        mean, whitening = _whitening(train)
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        whitened, fill = self._whitened(train), -len(train) % GROUP
        self.register_buffer("train_embeddings", nn.functional.pad(whitened, (0, 0, 0, fill)))
        squares = nn.functional.pad(whitened.square().sum(dim=1), (0, fill), value=torch.inf)
        self.register_buffer("squares", squares)
        self.threshold = float("inf")

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (n, d) to distances (n,)."""
        # All distances by matrix product: at 128 dimensions and more a k-d tree takes 5-20 times as long.
        x = self._whitened(embeddings)
        squares = torch.addmm(self.squares, x, self.train_embeddings.T, alpha=-2)
        groups = squares.view(len(x), -1, GROUP)
        # The k nearest lie in the k groups whose own nearest are the nearest: no need to sort them all.
        k = min(self.k, groups.shape[1])
        nearest = groups.amin(dim=2).topk(k, largest=False).indices[:, :, None].expand(-1, -1, GROUP)
        found = groups.gather(1, nearest).flatten(1).topk(self.k, largest=False).values[:, -1]
        distance: Tensor = (found + x.square().sum(dim=1)).clamp_min(0).sqrt()
        return distance

    def _whitened(self, embeddings: Tensor) -> Tensor:
        return (embeddings - self.mean) @ self.whitening

    def set_threshold(self, validation: Tensor, quantile: float) -> Self:
        """Call far what lies beyond this quantile of validation galaxies' (n, d) distances."""
        self.threshold = float(torch.quantile(self(validation), quantile))
        return self


def _whitening(train: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (d,), and the matrix (d, d) that gives each principal direction unit variance."""
    scale, mean = torch.std_mean(train.double(), dim=0)
    # What is constant over the sample, but for rounding, tells nothing: a dead unit of a network.
    alive = scale > 1e-6 * mean.abs().clamp_min(scale.max())
    weight = torch.where(alive, 1 / scale, 0.0)
    scaled = (train - mean) * weight
    variances, directions = torch.linalg.eigh(scaled.T @ scaled / (len(train) - 1))
    least = LEAST_VARIANCE * variances.max().clamp_min(torch.finfo(variances.dtype).tiny)
    whitening = weight[:, None] * directions / torch.sqrt(variances.clamp_min(0) + least)
    return mean.float(), whitening.float()
