"""Encoders: from a galaxy's image (or its catalogue columns) and E(B-V) to an embedding.

`NetP`, `NetT` and `NetS` (Net_S1 .. Net_S3) are the networks of Lin et al. 2022 (A&A 662, A36), of the
family of Pasquet et al. 2019 (A&A 621, A26). Their embedding is the output of the second fully connected
layer after its ReLU. Average pools follow TensorFlow's "SAME" rule: even kernels pad after the last row and
column only, and the padding is left out of the mean.

Images are already stretched, `(n, n_bands, pixels, pixels)`; E(B-V) is in mag, `(n,)`. The networks run under
bfloat16 autocast in the channels-last layout without falling back to float32 or to another layout on the way.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODERS = ("net_p", "net_t", "net_s1", "net_s2", "net_s3", "fast", "mlp", "precomputed")


def initialise(module: nn.Module, bias: float, generator: torch.Generator | None = None) -> None:
    """Draw all weights of a module afresh, in place.

    Convolutions and linear layers get Xavier uniform weights and constant biases, PReLU slopes start at 0
    (Lin et al. 2022, section 3: with a bias of 0.1).

    Parameters
    ----------
    module : nn.Module
        Any module; its sub-modules are visited in order of registration.
    bias : float
        Value of every bias.
    generator : torch.Generator, optional
        Source of the random weights; PyTorch's global generator by default.
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

    Parameters
    ----------
    x : Tensor
        Shape (n, c, H, W).

    Returns
    -------
    Tensor
        Shape (n, c, H, W).
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


def _halved(pixels: int, times: int) -> int:
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


class InceptionP(nn.Module):
    """Inception block of Net_P (Pasquet et al. 2019, section 3).

    Concatenates, in this order: 1x1 -> b; 1x1 -> a then 5x5 -> b; 1x1 -> a then 3x3 -> b; 1x1 -> a then the
    pool of kernel 2 and stride 1. Each convolution is followed by a PReLU.

    Parameters
    ----------
    n_in : int
        Input channels.
    a, b : int
        Channels of the reductions and of the convolutions after them.
    with_5x5 : bool
        Whether the block has its 5x5 branch.
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


class NetP(nn.Module):
    """Net_P, the network of Pasquet et al. 2019 (section 3) as Lin et al. 2022 use it.

    Parameters
    ----------
    n_bands : int
        Bands of the image.
    pixels : int
        Side of the image.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    n_features = 1024

    def __init__(self, n_bands: int, pixels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.conv0 = conv_prelu(n_bands, 64, 5)
        self.inception0 = InceptionP(64, 48, 64)
        self.inception1 = InceptionP(self.inception0.n_out, 64, 92)
        self.inception2 = InceptionP(self.inception1.n_out, 92, 128)
        self.inception3 = InceptionP(self.inception2.n_out, 92, 128)
        self.inception4 = InceptionP(self.inception3.n_out, 92, 128, with_5x5=False)
        self.halve = halve()
        n_flat = _halved(pixels, 3) ** 2 * self.inception4.n_out
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


class InceptionT(nn.Module):
    """Inception block of Net_T: 5x5, 3x3, pool and 1x1 branches of fixed widths, in this order, with ReLU.

    Parameters
    ----------
    n_in : int
        Input channels.
    """

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


class NetT(nn.Module):
    """Net_T, the Treyer variant of the network in Lin et al. 2022.

    Parameters
    ----------
    n_bands : int
        Bands of the image.
    pixels : int
        Side of the image, at least 49: three unpadded 3x3 convolutions follow the three pools.
    generator : torch.Generator, optional
        Source of the initial weights.

    Raises
    ------
    ValueError
        If the image is too small.
    """

    n_features = 1024

    def __init__(self, n_bands: int, pixels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        side = _halved(pixels, 3) - 6
        if side < 1:
            raise ValueError(
                f"net_t needs images of at least 49 pixels a side, got {pixels}: use net_p or fast"
            )
        self.conv1 = conv_relu(n_bands, 96, 5, 2)
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


class NetS(nn.Module):
    """The shallow networks Net_S1, Net_S2, Net_S3: 1, 2 or 3 convolutions of 3x3x64, global mean, two FC 256.

    An average pool halves the map between convolutions; none follows the last one (Lin et al. 2022).

    Parameters
    ----------
    n_convolutions : int
        Number of convolutions.
    n_bands : int
        Bands of the image.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    n_features = 256

    def __init__(self, n_convolutions: int, n_bands: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        widths = [n_bands] + [64] * n_convolutions
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


class Standardisation(nn.Module):
    """Shift and scale of each feature, taken from training data and kept in the state of the model.

    Parameters
    ----------
    n_columns : int
        Number of features. Until `fit` is called they pass unchanged.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_columns))
        self.register_buffer("scale", torch.ones(n_columns))

    @torch.no_grad()
    def fit(self, columns: Tensor) -> None:
        """Set mean and standard deviation from training data.

        Parameters
        ----------
        columns : Tensor
            Shape (n, n_columns), at least two rows. A constant column gets the scale 1.

        Raises
        ------
        ValueError
            If there are fewer than two rows or a value is not finite.
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


class MLP(nn.Module):
    """Fully connected encoder for catalogues.

    Call `standardise` with the training data before training.

    Parameters
    ----------
    n_columns : int
        Features of a galaxy (magnitudes, colours, errors), without E(B-V).
    hidden : sequence of int
        Widths of the layers; the last one is the size of the embedding.
    dropout : float
        Probability to drop a hidden unit, before each layer after the first.
    generator : torch.Generator, optional
        Source of the initial weights.

    Raises
    ------
    ValueError
        If there is no hidden layer.
    """

    def __init__(
        self,
        n_columns: int,
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("mlp needs at least one hidden width, such as hidden=[256, 256]")
        self.standardisation = Standardisation(n_columns + 1)
        self.n_features = hidden[-1]
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(zip([n_columns + 1, *hidden[:-1]], hidden, strict=True)):
            if i > 0 and dropout > 0:
                layers.append(nn.Dropout(dropout))
            layers += [nn.Linear(n_in, n_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        initialise(self, bias=0.0, generator=generator)

    def standardise(self, columns: Tensor, ebv: Tensor) -> None:
        """Take shift and scale of the inputs from training columns (n, n_columns) and E(B-V) (n,), mag."""
        self.standardisation.fit(torch.cat([columns, ebv[:, None]], dim=1))

    def forward(self, columns: Tensor, ebv: Tensor) -> Tensor:
        """Map catalogue columns (n, n_columns) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        embedding: Tensor = self.layers(self.standardisation(torch.cat([columns, ebv[:, None]], dim=1)))
        return embedding


def round_apertures(pixels: int, sigmas: Sequence[float]) -> Tensor:
    """Gaussian weights around the centre of a square map: they do not change under its 8 symmetries.

    Parameters
    ----------
    pixels : int
        Side of the map.
    sigmas : sequence of float
        Widths in pixels; infinity gives equal weights.

    Returns
    -------
    Tensor
        Shape (len(sigmas), pixels^2), row by row, 1 at the centre.
    """
    offset = torch.arange(pixels, dtype=torch.float64) - (pixels - 1) / 2
    radius_squared = (offset[:, None] ** 2 + offset[None, :] ** 2).flatten()
    widths = torch.tensor(sigmas, dtype=torch.float64)[:, None]
    return torch.exp(-0.5 * radius_squared / widths**2).float()


class AperturePhotometry(nn.Module):
    """Magnitudes, colours and concentrations in round apertures, from a stretched image, in float32.

    They are what catalogues offer, and the symmetries of the square leave them unchanged: a short training
    need not learn them. Fluxes enter as asinh(flux / 1 nanomaggy), a magnitude that stays finite for fluxes
    below zero (Lupton et al. 1999), beside its differences between neighbouring bands and neighbouring
    apertures.

    Parameters
    ----------
    n_bands : int
        Bands of the image.
    pixels : int
        Side of the image.
    sigmas : sequence of float
        Widths of the Gaussian apertures in pixels.
    """

    apertures: Tensor

    def __init__(self, n_bands: int, pixels: int, sigmas: Sequence[float] = (1.5, 3.0, 6.0, 12.0)) -> None:
        super().__init__()
        self.register_buffer("apertures", round_apertures(pixels, sigmas), persistent=False)
        n = len(sigmas)
        self.n_columns = n * n_bands + n * (n_bands - 1) + (n - 1) * n_bands

    def forward(self, image: Tensor) -> Tensor:
        """Map stretched images (n, n_bands, pixels, pixels) to columns (n, n_columns)."""
        with torch.autocast(image.device.type, enabled=False):
            stretched = image.float().permute(0, 2, 3, 1).flatten(1, 2)
            # The inverse of the stretch sign(x) (sqrt(|x| + 1) - 1).
            flux = stretched.abs().add_(2).mul_(stretched)
            magnitude = torch.asinh(self.apertures @ flux)
            colour = magnitude[:, :, 1:] - magnitude[:, :, :-1]
            concentration = magnitude[:, 1:] - magnitude[:, :-1]
            return torch.cat([magnitude.flatten(1), colour.flatten(1), concentration.flatten(1)], dim=1)


class Residual(nn.Module):
    """Residual block without normalisation: x + conv(relu(conv(relu(x)))), the identity at first.

    Parameters
    ----------
    n_channels : int
        Channels of input and output.
    n_inner : int
        Channels between the convolutions.
    inner_kernel : int
        Kernel of the first convolution (odd); the second one's is 3.
    """

    def __init__(self, n_channels: int, n_inner: int, inner_kernel: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(n_channels, n_inner, inner_kernel, padding=inner_kernel // 2)
        self.outer = nn.Conv2d(n_inner, n_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_channels, H, W) to the same shape."""
        change: Tensor = self.outer(F.relu(self.inner(F.relu(x))))
        return x + change


class Fast(nn.Module):
    """Small residual network for training in minutes on two CPU cores.

    Patches of 4x4 pixels become 64 channels (no convolution runs at full resolution), one residual block
    works at a quarter and two at an eighth of the size, and means under Gaussians of three widths around
    the centre keep the radial information. Aperture photometry of the image and E(B-V) join them before two
    fully connected layers. There is no batch normalisation: nothing changes in evaluation or when frozen.

    Call `standardise` with training data before training: the photometry and E(B-V) enter at unit scale.

    Parameters
    ----------
    n_bands : int
        Bands of the image.
    pixels : int
        Side of the image. Sides that 8 does not divide are padded with zeros, evenly.
    n_features : int
        Size of the embedding.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    pool_weights: Tensor

    def __init__(
        self, n_bands: int, pixels: int, n_features: int = 128, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.n_features = n_features
        padding = -pixels % 8
        self.padding = (padding // 2, padding - padding // 2) * 2
        self.stem = nn.Conv2d(n_bands, 64, 4, stride=4)
        self.quarter = Residual(64, 32, inner_kernel=1)
        self.down = nn.Conv2d(64, 96, 2, stride=2)
        self.eighth = nn.Sequential(Residual(96, 64, inner_kernel=3), Residual(96, 32, inner_kernel=1))
        weights = round_apertures((pixels + padding) // 8, (0.7, 2.0, math.inf))
        self.register_buffer("pool_weights", weights / weights.sum(1, keepdim=True), persistent=False)
        self.photometry = AperturePhotometry(n_bands, pixels)
        self.standardisation = Standardisation(self.photometry.n_columns + 1)
        n_joined = 3 * 96 + self.photometry.n_columns + 1
        self.fc = nn.Sequential(nn.Linear(n_joined, 256), nn.ReLU(), nn.Linear(256, n_features), nn.ReLU())
        initialise(self, bias=0.0, generator=generator)
        for block in (self.quarter, *self.eighth):
            nn.init.zeros_(block.outer.weight)

    def standardise(self, image: Tensor, ebv: Tensor) -> None:
        """Take shift and scale of photometry and E(B-V) from training data; a few thousand galaxies do.

        Parameters
        ----------
        image : Tensor
            Stretched images, shape (n, n_bands, pixels, pixels).
        ebv : Tensor
            E(B-V) in mag, shape (n,).
        """
        self.standardisation.fit(append_ebv(self.photometry(image), ebv))

    def forward(self, image: Tensor, ebv: Tensor) -> Tensor:
        """Map images (n, n_bands, pixels, pixels) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        x = F.pad(image, self.padding) if any(self.padding) else image
        x = self.eighth(self.down(F.relu(self.quarter(self.stem(x)))))
        cells = F.relu(x).permute(0, 2, 3, 1).flatten(1, 2)
        pooled = (self.pool_weights.to(cells.dtype) @ cells).flatten(1)
        columns = self.standardisation(append_ebv(self.photometry(image), ebv))
        embedding: Tensor = self.fc(torch.cat([pooled, columns.to(pooled.dtype)], dim=1))
        return embedding


class Precomputed(nn.Module):
    """Passes vectors through that were made before: by this frozen encoder, or by any other method.

    Parameters
    ----------
    n_features : int
        Size of a vector. Until `standardise` is called vectors pass unchanged.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.standardisation = Standardisation(n_features)

    def standardise(self, vectors: Tensor, ebv: Tensor) -> None:
        """Take shift and scale from training vectors (n, n_features)."""
        self.standardisation.fit(vectors)

    def forward(self, vectors: Tensor, ebv: Tensor) -> Tensor:
        """Return the vectors (n, n_features), scaled; what E(B-V) tells is in them already."""
        scaled: Tensor = self.standardisation(vectors)
        return scaled


Encoder = NetP | NetT | NetS | Fast | MLP | Precomputed


def build_encoder(
    name: str,
    n_bands: int,
    pixels: int,
    *,
    n_features: int = 128,
    hidden: Sequence[int] = (256, 256),
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Encoder:
    """Build an encoder by name.

    Parameters
    ----------
    name : str
        One of `ENCODERS`.
    n_bands : int
        Bands of the image; for `mlp` columns without E(B-V), for `precomputed` the size of a vector.
    pixels : int
        Side of the image; `mlp` and `precomputed` do not read it.
    n_features : int
        Size of the embedding of `fast`; the networks of the paper have their own.
    hidden, dropout : sequence of int, float
        Widths and dropout of `mlp`.
    generator : torch.Generator, optional
        Source of the initial weights; PyTorch's global generator by default.

    Returns
    -------
    Encoder
        Maps (image or columns, ebv) to embeddings (n, encoder.n_features).

    Raises
    ------
    ValueError
        If there is no such encoder.
    """
    match name:
        case "net_p":
            return NetP(n_bands, pixels, generator)
        case "net_t":
            return NetT(n_bands, pixels, generator)
        case "net_s1" | "net_s2" | "net_s3":
            return NetS(int(name[-1]), n_bands, generator)
        case "fast":
            return Fast(n_bands, pixels, n_features, generator)
        case "mlp":
            return MLP(n_bands, hidden, dropout, generator)
        case "precomputed":
            return Precomputed(n_bands)
        case _:
            raise ValueError(f"no encoder is called {name!r}; choose one of: {', '.join(ENCODERS)}")
