"""The shallow networks Net_S1, Net_S2 and Net_S3 of Lin et al. 2022 (A&A 662, A36)."""

import itertools
from typing import ClassVar

import torch
from torch import Tensor, nn

from photoz_lit.models.encoders.layers import Encoder, append_ebv, conv_prelu, halve, initialise, two_layers
from photoz_lit.models.encoders.settings import ImageSettings


class NetS(Encoder):
    """1, 2 or 3 convolutions of 3x3x64, global mean, two fully connected layers of 256.

    An average pool halves the map between convolutions; none follows the last one.
    """

    n_features = 256
    n_convolutions: ClassVar[int]

    def __init__(
        self, n_columns: int, pixels: int, settings: ImageSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_columns, pixels, settings, generator)
        widths = [n_columns] + [64] * self.n_convolutions
        self.convolutions = nn.ModuleList(
            conv_prelu(n_in, n_out, 3) for n_in, n_out in itertools.pairwise(widths)
        )
        self.halve = halve()
        self.fc = two_layers(64 + 1, self.n_features)
        initialise(self, bias=0.1, generator=generator)

    def forward(self, image: Tensor, ebv: Tensor) -> Tensor:
        """Map images (n, n_bands, pixels, pixels) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        x = self.convolutions[0](image)
        for convolution in self.convolutions[1:]:
            x = convolution(self.halve(x))
        features: Tensor = self.fc(append_ebv(x.mean((2, 3)), ebv))
        return features


class NetS1(NetS):
    """Net_S1: one convolution."""

    n_convolutions = 1


class NetS2(NetS):
    """Net_S2: two convolutions."""

    n_convolutions = 2


class NetS3(NetS):
    """Net_S3: three convolutions."""

    n_convolutions = 3
