"""Net_P, the network of Pasquet et al. 2019 (A&A 621, A26), as Lin et al. 2022 (A&A 662, A36) use it."""

import torch
from torch import Tensor, nn

from photoz_lit.models.encoders.layers import (
    Encoder,
    append_ebv,
    conv_prelu,
    flatten_rows_columns_channels,
    halve,
    halved,
    initialise,
    mean_of_2x2_same,
    two_layers,
)
from photoz_lit.models.encoders.settings import ImageSettings


class InceptionP(nn.Module):
    """Inception block of Net_P (Pasquet et al. 2019, section 3).

    Concatenates, in this order: 1x1 -> b; 1x1 -> a then 5x5 -> b; 1x1 -> a then 3x3 -> b; 1x1 -> a then the
    pool of kernel 2 and stride 1. Each convolution is followed by a PReLU.
    """

    def __init__(self, n_in: int, a: int, b: int, with_5x5: bool = True) -> None:
        super().__init__()
        self.branch_1x1 = conv_prelu(n_in, b, 1)
        self.branch_5x5 = nn.Sequential(conv_prelu(n_in, a, 1), conv_prelu(a, b, 5)) if with_5x5 else None
        self.branch_3x3 = nn.Sequential(conv_prelu(n_in, a, 1), conv_prelu(a, b, 3))
        self.branch_pool = conv_prelu(n_in, a, 1)
        self.n_out = a + (3 if with_5x5 else 2) * b

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_in, H, W) to (n, n_out, H, W)."""
        branches = [self.branch_1x1(x)]
        if self.branch_5x5 is not None:
            branches.append(self.branch_5x5(x))
        branches += [self.branch_3x3(x), mean_of_2x2_same(self.branch_pool(x))]
        return torch.cat(branches, dim=1)


class NetP(Encoder):
    """Net_P (Pasquet et al. 2019, section 3); its embedding is the second fully connected layer's."""

    n_features = 1024

    def __init__(
        self, n_columns: int, pixels: int, settings: ImageSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_columns, pixels, settings, generator)
        self.conv0 = conv_prelu(n_columns, 64, 5)
        self.inception0 = InceptionP(64, 48, 64)
        self.inception1 = InceptionP(self.inception0.n_out, 64, 92)
        self.inception2 = InceptionP(self.inception1.n_out, 92, 128)
        self.inception3 = InceptionP(self.inception2.n_out, 92, 128)
        self.inception4 = InceptionP(self.inception3.n_out, 92, 128, with_5x5=False)
        self.halve = halve()
        n_flat = halved(pixels, 3) ** 2 * self.inception4.n_out
        self.fc = two_layers(n_flat + 1, self.n_features)
        initialise(self, bias=0.1, generator=generator)

    def forward(self, image: Tensor, ebv: Tensor) -> Tensor:
        """Map images (n, n_bands, pixels, pixels) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        x = self.halve(self.conv0(image))
        x = self.halve(self.inception1(self.inception0(x)))
        x = self.halve(self.inception3(self.inception2(x)))
        x = self.inception4(x)
        features: Tensor = self.fc(append_ebv(flatten_rows_columns_channels(x), ebv))
        return features
