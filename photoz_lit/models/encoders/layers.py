"""What encoders are made of: convolutions, pools that follow TensorFlow's "SAME" rule, scales of inputs.

Even kernels of average pools pad after the last row and column only, and leave the padding out of the mean.
Networks of these layers run under bfloat16 autocast in the channels-last layout without falling back to
float32 or to another layout on the way.
"""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from photoz_lit.data.transforms import ImageInputs, Inputs
from photoz_lit.models.encoders.settings import EncoderSettings, ImageSettings


class Encoder(nn.Module):
    """From a galaxy's inputs and E(B-V), mag, (n,) to embeddings (n, n_features).

    Every encoder is made from (n_columns, pixels, settings, generator): bands of the image or columns of the
    catalogue, side of the image (read by encoders of images only), its own `Settings`, and the source of its
    initial weights.
    """

    Settings: ClassVar[type[EncoderSettings]] = ImageSettings
    n_features: int

    def __init__(
        self, n_columns: int, pixels: int, settings: Any, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()

    @staticmethod
    def inputs(settings: Any, kind: str, with_errors: bool) -> Inputs:
        """Return what happens to a store's inputs first; magnitudes may have errors."""
        return ImageInputs(settings.stretch_scale)

    def standardise(self, inputs: Tensor, ebv: Tensor) -> None:
        """Take shift and scale of inputs, if the encoder has them, from training galaxies."""


def initialise(module: nn.Module, bias: float, generator: torch.Generator | None = None) -> None:
    """Draw all weights of a module afresh, in place.

    Convolutions and linear layers get Xavier uniform weights and constant biases, PReLU slopes start at 0
    (Lin et al. 2022, section 3: with a bias of 0.1).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)
        elif isinstance(layer, nn.PReLU):
            nn.init.zeros_(layer.weight)


def mean_of_2x2_same(x: Tensor) -> Tensor:
    """Average pool of kernel 2 and stride 1 that keeps the size (TensorFlow "SAME").

    Leaving the padding out of the mean equals repeating the last row and column. Sums of shifted slices,
    because a padded `avg_pool2d` does not compile and a replicating `pad` falls back to float32 under
    autocast.
    """
    rows = x + torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)
    return 0.25 * (rows + torch.cat([rows[..., 1:], rows[..., -1:]], dim=3))


def flatten_rows_columns_channels(x: Tensor) -> Tensor:
    """Flatten feature maps (n, c, H, W) to (n, H W c), channel fastest: free of copies in channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1)


def append_ebv(features: Tensor, ebv: Tensor) -> Tensor:
    """Append E(B-V), shape (n,), as the last of the features (n, d), in their precision."""
    return torch.cat([features, ebv.to(features.dtype)[:, None]], dim=1)


def halve() -> nn.AvgPool2d:
    """Average pool of kernel and stride 2; an odd size rounds up and the mean leaves the padding out."""
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)


def halved(pixels: int, times: int) -> int:
    """Size of a map after `times` pools of `halve`."""
    for _ in range(times):
        pixels = (pixels + 1) // 2
    return pixels


def conv_prelu(n_in: int, n_out: int, kernel: int) -> nn.Sequential:
    """Convolution that keeps the size (odd kernel), then a PReLU with one slope a channel."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2), nn.PReLU(n_out, init=0.0))


def conv_relu(n_in: int, n_out: int, kernel: int, padding: int) -> nn.Sequential:
    """Convolution, then ReLU."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, kernel, padding=padding), nn.ReLU())


def two_layers(n_in: int, width: int) -> nn.Sequential:
    """Two fully connected layers of the same width with ReLU."""
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())


def silu_layers(*widths: int) -> nn.Sequential:
    """Fully connected layers from the first width over the others to the last, each with SiLU."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers)


class Standardisation(nn.Module):
    """Shift and scale of each feature, taken from training data and kept in the state of the model.

    Until `fit` is called features pass unchanged.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_columns))
        self.register_buffer("scale", torch.ones(n_columns))

    @torch.no_grad()
    def fit(self, columns: Tensor) -> None:
        """Set mean and standard deviation from training data (n, n_columns); a constant column has scale 1.

        Raises
        ------
        ValueError
            There are fewer than two rows, or a value is not finite.
        """
        columns = columns.to(self.mean.device, torch.float64)
        if len(columns) < 2 or not bool(torch.isfinite(columns).all()):
            raise ValueError("standardisation needs at least two rows of finite features")
        scale, mean = torch.std_mean(columns, dim=0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(scale > 1e-6 * (1 + mean.abs()), scale, 1.0))

    def forward(self, columns: Tensor) -> Tensor:
        """Return (columns - mean) / scale, in float32, shape (n, n_columns)."""
        return (columns.float() - self.mean) / self.scale
