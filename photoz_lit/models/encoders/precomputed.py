"""Vectors that another network or method has made, as they are."""

import torch
from torch import Tensor

from photoz_lit.data.transforms import Inputs, VectorInputs
from photoz_lit.models.encoders.layers import Encoder, Standardisation
from photoz_lit.models.encoders.settings import VectorSettings


class Precomputed(Encoder):
    """Passes vectors through, each column scaled once `standardise` has been called."""

    Settings = VectorSettings

    def __init__(
        self,
        n_columns: int,
        pixels: int = 0,
        settings: VectorSettings | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_columns, pixels, settings, generator)
        self.n_features = n_columns
        self.standardisation = Standardisation(n_columns)

    @staticmethod
    def inputs(settings: VectorSettings, kind: str, with_errors: bool) -> Inputs:
        """Return the vectors as they are."""
        return VectorInputs()

    def standardise(self, inputs: Tensor, ebv: Tensor) -> None:
        """Take shift and scale from training vectors (n, n_features)."""
        self.standardisation.fit(inputs)

    def forward(self, vectors: Tensor, ebv: Tensor) -> Tensor:
        """Return the vectors (n, n_features), scaled; what E(B-V) tells is in them already."""
        scaled: Tensor = self.standardisation(vectors)
        return scaled
