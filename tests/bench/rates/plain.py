"""Plain ports to compare with, as one would write them: float32, eager, NCHW, nothing fused, nothing cached.

Net_P after Pasquet et al. 2019 (A&A 621, A26, section 3); the photometry of `fast` from its docstring. Their
parts are named as the package's, so that weights can be handed over. Nothing of the package is imported.
"""

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rates.turns import Turns

BINS = 180


def conv(n_in: int, n_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2), nn.PReLU(n_out, init=0.0))


class Inception(nn.Module):
    def __init__(self, n_in: int, a: int, b: int, with_5x5: bool = True) -> None:
        super().__init__()
        self.branch_1x1 = conv(n_in, b, 1)
        if with_5x5:
            self.branch_5x5 = nn.Sequential(conv(n_in, a, 1), conv(a, b, 5))
        self.branch_3x3 = nn.Sequential(conv(n_in, a, 1), conv(a, b, 3))
        self.branch_pool = conv(n_in, a, 1)
        self.with_5x5, self.n_out = with_5x5, a + (3 if with_5x5 else 2) * b

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(F.pad(self.branch_pool(x), (0, 1, 0, 1), mode="replicate"), 2, stride=1)
        middle = [self.branch_5x5(x)] if self.with_5x5 else []
        return torch.cat([self.branch_1x1(x), *middle, self.branch_3x3(x), pooled], dim=1)


class NetP(nn.Module):
    n_features = 1024

    def __init__(self, n_bands: int = 5, pixels: int = 64) -> None:
        super().__init__()
        self.conv0 = conv(n_bands, 64, 5)
        self.inception0 = Inception(64, 48, 64)
        self.inception1 = Inception(self.inception0.n_out, 64, 92)
        self.inception2 = Inception(self.inception1.n_out, 92, 128)
        self.inception3 = Inception(self.inception2.n_out, 92, 128)
        self.inception4 = Inception(self.inception3.n_out, 92, 128, with_5x5=False)
        flat = self.inception4.n_out * (pixels // 8) ** 2
        self.fc = nn.Sequential(nn.Linear(flat + 1, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU())

    def forward(self, image: Tensor, ebv: Tensor) -> Tensor:
        x = F.avg_pool2d(self.conv0(image), 2)
        x = F.avg_pool2d(self.inception1(self.inception0(x)), 2)
        x = F.avg_pool2d(self.inception3(self.inception2(x)), 2)
        x = self.inception4(x).flatten(1)
        return self.fc(torch.cat([x, ebv[:, None]], dim=1))


def photometry(flux: Tensor) -> Tensor:
    """Measure cutouts (n, bands, pixels, pixels): the columns of `fast`."""
    bands, side = flux.shape[1:3]
    place = torch.arange(side, dtype=torch.float32, device=flux.device) - (side - 1) / 2
    y, x = torch.meshgrid(place, place, indexing="ij")
    far = torch.hypot(x, y) >= 0.72 * torch.hypot(x, y).max()
    scatter = (flux - flux.flip(2, 3)).abs()[:, :, far].median(dim=2).values
    noise = (1.4826 / 2**0.5 * scatter).clamp_min(1e-4)
    total = (flux / noise[:, :, None, None]).sum(dim=1, keepdim=True)
    smooth = F.avg_pool2d(total, 3, stride=1, padding=1)
    opposite = F.max_pool2d(smooth, 3, stride=1, padding=1).flip(2, 3)
    brighter = (smooth > 1.3 * opposite.clamp_min(0) + bands**0.5).float()
    neighbour = F.max_pool2d(brighter, 3, stride=1, padding=1) > brighter.flip(2, 3)
    flux = torch.where(neighbour, flux.flip(2, 3), flux)
    total = torch.where(neighbour, total.flip(2, 3), total)[:, 0]
    total = total / total.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-4)

    def column(v: Tensor) -> Tensor:
        return v[:, None, None]

    zero = torch.zeros(len(flux), device=flux.device)
    at = [zero, zero, zero + 9, zero, zero + 9]  # centre x, y; moments xx, xy, yy

    def distance() -> Tensor:
        dx, dy, determinant = x - column(at[0]), y - column(at[1]), at[2] * at[4] - at[3] ** 2
        form = column(at[4]) * dx**2 - 2 * column(at[3]) * dx * dy + column(at[2]) * dy**2
        return form / column(determinant)

    for _ in range(5):
        weighted = total * torch.exp(-0.5 * distance())
        norm = weighted.sum(dim=(1, 2))
        mx, my, xx, xy, yy = (
            (weighted * p).sum(dim=(1, 2)) / norm.clamp_min(1e-4) for p in (x, y, x * x, x * y, y * y)
        )
        xx, xy, yy = xx - mx * mx, xy - mx * my, yy - my * my
        length = torch.hypot(xx - yy, 2 * xy).clamp_min(1e-6)
        most = max(2.0, side / 5) ** 2
        major, minor = ((xx + yy + s * length).clamp(1.0, most) for s in (1, -1))
        mean, half = (major + minor) / 2, (major - minor) / 2
        along, across = half * (xx - yy) / length, half * 2 * xy / length
        new = [mx.clamp(-2, 2), my.clamp(-2, 2), mean + along, across, mean - along]
        at = [torch.where(norm > 1e-4, a, b) for a, b in zip(new, at, strict=True)]

    form, size = distance(), (at[2] * at[4] - at[3] ** 2) ** 0.25
    length = torch.hypot(at[2] - at[4], 2 * at[3]).clamp_min(1e-6)
    cosine, sine = column((at[2] - at[4]) / length), column(2 * at[3] / length)
    elongation = (cosine * (x**2 - y**2) + 2 * sine * x * y) / column(size**2)
    weights = [torch.exp(-form / 2.0 ** (i - 2)) for i in range(8)]
    sums = torch.stack([(w[:, None] * flux).sum(dim=(2, 3)) for w in weights], dim=1)
    magnitude = torch.asinh(sums / 2)
    shape = [
        (weights[a][:, None] * m[:, None] * flux).sum(dim=(2, 3)) / sums[:, a].clamp_min(1)
        for a in (4, 6)
        for m in (form, elongation)
    ]
    own = torch.stack([size.log(), length / (at[2] + at[4])], dim=1)
    colour, concentration = magnitude.diff(dim=2), magnitude.diff(dim=1)
    parts = [magnitude.flatten(1), colour.flatten(1), concentration.flatten(1), own]
    return torch.cat([*parts, torch.stack(shape, dim=1).clamp(-20, 20).flatten(1)], dim=1)


class Fast(nn.Module):
    n_features = 128

    def __init__(self, n_columns: int = 129) -> None:
        super().__init__()
        widths = [n_columns + 1, 128, 128, 128]
        layers = [[nn.Linear(a, b), nn.SiLU()] for a, b in pairwise(widths)]
        self.layers = nn.Sequential(*(part for pair in layers for part in pair))
        self.mean, self.scale = torch.zeros(n_columns + 1), torch.ones(n_columns + 1)

    def forward(self, inputs: Tensor, ebv: Tensor) -> Tensor:
        columns = inputs if inputs.ndim == 2 else photometry(inputs)
        both = (torch.cat([columns, ebv[:, None]], dim=1) - self.mean.to(ebv)) / self.scale.to(ebv)
        return self.layers(both.clamp(-4, 4))


ENCODERS = {"net_p": NetP, "fast": Fast}


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def batches(path: str, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return n cutouts, E(B-V) and redshift bins, ready in memory: reading costs the port nothing."""
    x = torch.from_numpy(np.resize(np.load(path, mmap_mode="r")[:n], (n, 5, 64, 64)).astype(np.float32))
    where = device()
    return x.to(where), torch.full((n,), 0.05, device=where), torch.arange(n, device=where) % BINS


def stretched(x: Tensor) -> Tensor:
    return torch.sign(x) * (torch.sqrt(torch.abs(x) + 1) - 1)


def training(encoder: str, path: str, batch: str, of: str = "cutouts") -> Callable[[], float]:
    """Train on one batch again and again; of `columns`: photometry is done."""
    x, ebv, z_bin = batches(path, int(batch))
    x = stretched(x) if encoder == "net_p" else photometry(x) if of == "columns" else x
    net = ENCODERS[encoder]().to(x.device)
    head = nn.Linear(net.n_features, BINS).to(x.device)
    optimiser = torch.optim.AdamW([*net.parameters(), *head.parameters()], 1e-4, foreach=False, fused=False)

    def step() -> float:
        optimiser.zero_grad()
        F.cross_entropy(head(net(x, ebv)), z_bin).backward()
        optimiser.step()
        return len(x)

    return step


def inference(encoder: str, path: str, batch: str) -> Callable[[], float]:
    x, ebv, _ = batches(path, int(batch))
    net = ENCODERS[encoder]().to(x.device).eval()

    @torch.no_grad()
    def step() -> float:
        net(stretched(x) if encoder == "net_p" else x, ebv).cpu()
        return len(x)

    return step


def heads(encoder: str, path: str, batch: str) -> Callable[[], float]:
    """A step of a head whose encoder runs again in it, frozen."""
    x, ebv, z_bin = batches(path, int(batch))
    net = ENCODERS[encoder]().to(x.device).eval()
    head = nn.Linear(net.n_features, BINS).to(x.device)
    optimiser = torch.optim.AdamW(head.parameters(), 1e-3, foreach=False, fused=False)

    def step() -> float:
        optimiser.zero_grad()
        with torch.no_grad():
            embedding = net(stretched(x) if encoder == "net_p" else x, ebv)
        F.cross_entropy(head(embedding), z_bin).backward()
        optimiser.step()
        return 1

    return step


def reading(folder: str, batch: str) -> Callable[[], float]:
    """Read a `.npy` a galaxy in any order, turn, stretch and stack them."""
    paths, rng = sorted(Path(folder).glob("*.npy")), np.random.default_rng(0)

    def one(path: Path) -> np.ndarray:
        x = np.load(path)
        x = np.rot90(x, rng.integers(4), axes=(1, 2))
        x = x[:, :, ::-1] if rng.integers(2) else x
        return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1)

    def step() -> float:
        chosen = [paths[i] for i in rng.integers(0, len(paths), int(batch))]
        torch.from_numpy(np.stack([one(path) for path in chosen])).to(device())
        return len(chosen)

    return step


def galsim(pixels: str = "64") -> Callable[[], float]:
    """Draw a bulge and a disc in five bands with seeing and noise, as GalSim's users do, on one core."""
    import galsim as g

    rng, side = np.random.default_rng(0), int(pixels)
    dice = g.BaseDeviate(1)

    def draw() -> float:
        size, share, q, angle = rng.uniform(1, 4), rng.uniform(), rng.uniform(0.3, 1), rng.uniform(0, np.pi)
        for fwhm in rng.uniform(1.1, 1.6, 5):
            bulge = g.DeVaucouleurs(half_light_radius=size / 2, flux=100 * share)
            disc = g.Exponential(half_light_radius=size, flux=100 * (1 - share))
            galaxy = (bulge + disc).shear(q=q, beta=angle * g.radians)
            image = g.Convolve(galaxy, g.Moffat(beta=3, fwhm=fwhm)).drawImage(nx=side, ny=side, scale=0.396)
            image.addNoise(g.GaussianNoise(dice, sigma=0.02))
        return 1

    return draw


def gemm(dtype: str, side: str) -> Callable[[], float]:
    """Multiply square matrices; a unit is so many floating-point operations."""
    kind, n = getattr(torch, dtype), int(side)
    a, b = (torch.randn(n, n, device=device()).to(kind) for _ in range(2))
    out = torch.empty_like(a)

    def multiply() -> float:
        torch.mm(a, b, out=out)
        return 2.0 * n**3

    return multiply


def copy(size: str) -> Callable[[], float]:
    """Copy within memory; a unit is bytes read and written."""
    a = torch.ones(int(size) // 4, device=device())
    b = torch.empty_like(a)

    def once() -> float:
        b.copy_(a)
        return 2.0 * a.nbytes

    return once


PIECES = {f.__name__: f for f in (training, inference, heads, reading, galsim, gemm, copy)}

if __name__ == "__main__":
    turns = Turns()
    turns.serve(PIECES[sys.argv[1]](*sys.argv[2:]))
