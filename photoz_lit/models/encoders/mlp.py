"""Fully connected encoder for catalogues of magnitudes, or on top of vectors."""

import torch
from torch import Tensor

from photoz_lit.data.transforms import CatalogueInputs, Inputs, VectorInputs
from photoz_lit.errors import ConfigError
from photoz_lit.models.encoders.layers import Encoder, Standardisation, initialise, silu_layers
from photoz_lit.models.encoders.settings import MLPSettings


class MLP(Encoder):
    """Fully connected layers; magnitudes, colours, errors and E(B-V) enter at unit scale.

    Raises
    ------
    ConfigError
        If there is no hidden layer.
    """

    Settings = MLPSettings

    def __init__(
        self, n_columns: int, pixels: int, settings: MLPSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_columns, pixels, settings, generator)
        hidden = settings.hidden
        if not hidden:
            raise ConfigError(f"encoder.hidden={hidden} must name at least one layer, e.g. [256,256]")
        self.standardisation = Standardisation(n_columns + 1)
        self.n_features = hidden[-1]
        self.layers = silu_layers(n_columns + 1, *hidden)
        initialise(self, bias=0.0, generator=generator)

    @staticmethod
    def inputs(settings: MLPSettings, kind: str, with_errors: bool) -> Inputs:
        """Return magnitudes, colours and errors, or vectors as they are."""
        if kind == "vectors":
            return VectorInputs()
        return CatalogueInputs(settings.noise, with_errors)

    def standardise(self, inputs: Tensor, ebv: Tensor) -> None:
        """Take shift and scale of the inputs from training columns (n, n_columns) and E(B-V) (n,), mag."""
        self.standardisation.fit(torch.cat([inputs, ebv[:, None]], dim=1))

    def forward(self, columns: Tensor, ebv: Tensor) -> Tensor:
        """Map catalogue columns (n, n_columns) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        embedding: Tensor = self.layers(self.standardisation(torch.cat([columns, ebv[:, None]], dim=1)))
        return embedding
