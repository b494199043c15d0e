"""Net_T, the Treyer variant of the network in Lin et al. 2022 (A&A 662, A36)."""

import torch
from torch import Tensor, nn

from photoz_lit.errors import ConfigError
from photoz_lit.models.encoders.layers import (
    Encoder,
    append_ebv,
    conv_relu,
    flatten_rows_columns_channels,
    halve,
    halved,
    initialise,
    mean_of_2x2_same,
    two_layers,
)
from photoz_lit.models.encoders.settings import ImageSettings


class InceptionT(nn.Module):
    """Inception block of Net_T: 5x5, 3x3, pool and 1x1 branches of fixed widths, in this order, with ReLU."""

    n_out = 156 + 156 + 101 + 109

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.branch_5x5 = nn.Sequential(conv_relu(n_in, 101, 1, 0), conv_relu(101, 156, 5, 2))
        self.branch_3x3 = nn.Sequential(conv_relu(n_in, 101, 1, 0), conv_relu(101, 156, 3, 1))
        self.branch_pool = conv_relu(n_in, 101, 1, 0)
        self.branch_1x1 = conv_relu(n_in, 109, 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_in, H, W) to (n, n_out, H, W)."""
        pooled = mean_of_2x2_same(self.branch_pool(x))
        return torch.cat([self.branch_5x5(x), self.branch_3x3(x), pooled, self.branch_1x1(x)], dim=1)


class NetT(Encoder):
    """Net_T; images need 49 pixels a side: three unpadded 3x3 convolutions follow the three pools.

    Raises
    ------
    ConfigError
        If the image is too small.
    """

    n_features = 1024

    def __init__(
        self, n_columns: int, pixels: int, settings: ImageSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_columns, pixels, settings, generator)
        side = halved(pixels, 3) - 6
        if side < 1:
            raise ConfigError(
                f"encoder=net_t needs cutouts of at least 49 pixels, survey.pixels={pixels}: "
                "type encoder=net_p or encoder=fast"
            )
        self.conv1 = conv_relu(n_columns, 96, 5, 2)
        self.conv2 = nn.Sequential(nn.Conv2d(96, 96, 3, padding=1), nn.Tanh())
        self.inception1 = InceptionT(96)
        self.inception2 = InceptionT(InceptionT.n_out)
        self.inception2b = InceptionT(InceptionT.n_out)
        self.inception3 = InceptionT(InceptionT.n_out)
        self.inception3b = InceptionT(InceptionT.n_out)
        self.inception4 = InceptionT(InceptionT.n_out)
        self.conv5 = conv_relu(InceptionT.n_out, 96, 3, 0)
        self.conv6 = conv_relu(96, 96, 3, 0)
        self.conv7 = conv_relu(96, 96, 3, 0)
        self.halve = halve()
        self.fc = two_layers(side**2 * 96 + 1, self.n_features)
        initialise(self, bias=0.1, generator=generator)

    def forward(self, image: Tensor, ebv: Tensor) -> Tensor:
        """Map images (n, n_bands, pixels, pixels) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        x = self.halve(self.conv2(self.conv1(image)))
        x = self.halve(self.inception2b(self.inception2(self.inception1(x))))
        x = self.halve(self.inception3b(self.inception3(x)))
        x = mean_of_2x2_same(self.conv7(self.conv6(self.conv5(self.inception4(x)))))
        features: Tensor = self.fc(append_ebv(flatten_rows_columns_channels(x), ebv))
        return features
