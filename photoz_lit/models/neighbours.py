"""How far a galaxy is from the training galaxies, in the embedding that its p(z) is made from."""

from typing import Self

import torch
from torch import Tensor, nn

from photoz_lit.models.encoders import Standardisation


class Neighbours(nn.Module):
    """Distance to the k-th nearest of a sample of training galaxies.

    Galaxies unlike any in training lie far from all of them, whatever p(z) says (Sun et al. 2022, ICML,
    arXiv:2204.06507). The distance is Euclidean and exact; each dimension of the embedding is first scaled to
    unit variance over the sample. The paper scales each embedding to unit length instead, which would hide
    that a galaxy is too bright or too faint.

    Parameters
    ----------
    train : Tensor
        Embeddings (m, d) of training galaxies, at least two.
    k : int
        Which neighbour counts; the farthest one where there are fewer.
    """

    train_embeddings: Tensor

    def __init__(self, train: Tensor, k: int) -> None:
        super().__init__()
        self.k = min(k, len(train))
        self.standardisation = Standardisation(train.shape[1])
        self.standardisation.fit(train)
        self.register_buffer("train_embeddings", self.standardisation(train))
        self.threshold = float("inf")

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (n, d) to distances (n,)."""
        # All distances by matrix product: at 128 dimensions and more a k-d tree takes 5-20 times as long.
        distances = torch.cdist(self.standardisation(embeddings), self.train_embeddings)
        return distances.topk(self.k, largest=False).values[:, -1]

    def set_threshold(self, validation: Tensor, quantile: float) -> Self:
        """Call far what lies beyond this quantile of validation galaxies' (n, d) distances."""
        self.threshold = float(torch.quantile(self(validation), quantile))
        return self
