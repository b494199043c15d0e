import functools
import json
import os
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photoz_lit.errors import ConfigError
from photoz_lit.models.encoders import ENCODERS, build_encoder, readers
from photoz_lit.models.encoders.layers import (
    Standardisation,
    flatten_rows_columns_channels,
    mean_of_2x2_same,
)
from photoz_lit.models.encoders.net_p import InceptionP, NetP
from photoz_lit.models.encoders.net_s import NetS
from photoz_lit.models.encoders.net_t import NetT
from photoz_lit.models.encoders.settings import MLPSettings
from photoz_lit.models.heads import Head, PhotozNet

TRAINED = [name for name in ENCODERS if name != "precomputed"]  # that one has no weights
OF_COLUMNS = ("mlp", "fast", "steady")
PAPER = ("P", "T", "S1", "S2", "S3")
NUMBERS = {
    "P_single": 25_826_972,
    "P_multi": 26_755_622,
    "T_single": 6_675_124,
    "T_multi": 7_603_774,
    "S1_single": 131_956,
    "S1_multi": 364_798,
    "S2_single": 168_948,
    "S2_multi": 401_790,
    "S3_single": 205_940,
    "S3_multi": 438_782,
}


# The golden recipe: weights and inputs are a hash of their names and positions.


def hashed_uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1): murmur3's final mix of position and name."""
    x = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return ((x ^ (x >> np.uint32(16))) / 2.0**32).reshape(shape)


@functools.cache
def hashed_variable(name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight, bias or PReLU slope in TensorFlow's axis order."""
    u = hashed_uniform(name, shape)
    match name.rsplit("/", 1)[1]:
        case "weights":
            value = (2 * u - 1) * np.sqrt(6 / np.prod(shape[:-1]))
        case "biases":
            value = 0.1 + 0.1 * (u - 0.5)
        case "prelu":
            value = 0.25 + 0.2 * (u - 0.5)
        case last:
            raise ValueError(last)
    return torch.from_numpy(value.astype(np.float32))


def golden_inputs(arrays: dict[str, Any], n_bands: int, pixels: int) -> tuple[Tensor, Tensor]:
    """Images (NCHW) and E(B-V), checked against `check_x_sum`, `check_x_first` and `reddening`."""
    n = len(arrays["reddening"])
    shape = (n, pixels, pixels, n_bands)
    u = hashed_uniform("input/x", shape)
    v = hashed_uniform("input/blob", (n, n_bands, 3))[:, None, None]
    i, j = np.arange(pixels)[:, None, None], np.arange(pixels)[None, :, None]
    amplitude, size, axis_ratio = 1 + 4 * v[..., 0], 2 + 4 * v[..., 1], 0.6 + 0.8 * v[..., 2]
    blob = amplitude * np.exp(-((i - 31.3) ** 2 + axis_ratio * (j - 28.7) ** 2) / (2 * size**2))
    x = (0.3 * (2 * u - 1) + blob).astype(np.float32)
    np.testing.assert_allclose(x.ravel()[:8], arrays["check_x_first"], rtol=1e-6)
    sums = [x.sum(dtype=np.float64), np.abs(x).sum(dtype=np.float64)]
    np.testing.assert_allclose(sums, arrays["check_x_sum"], rtol=1e-6)
    ebv = (0.2 * hashed_uniform("input/reddening", (n,))).astype(np.float32)
    np.testing.assert_allclose(ebv, arrays["reddening"], rtol=1e-6)
    return torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(ebv)


def golden_variables(key: str) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shape of each variable by its name, and `n_params`, from `a4_variables.json`."""
    folder = Path(os.environ.get("PHOTOZ_LIT_GOLDEN", Path(__file__).parent.parent / "golden"))
    entry = json.loads((folder / "a4_variables.json").read_text())[key]
    (variables,) = (value for value in entry.values() if isinstance(value, list))
    return {name: tuple(shape) for name, shape in variables}, entry["n_params"]


def inception_p_layers(block: InceptionP, name: str) -> dict[str, nn.Sequential]:
    """Layers of an inception block of Net_P by the variable's name."""
    layers: dict[str, Any] = {
        "S1_0": block.branch_3x3[0],
        "S2_0": block.branch_3x3[1],
        "S1_2": block.branch_pool,
        "S2_2": block.branch_1x1,
    }
    if block.branch_5x5 is not None:
        layers |= {"S1_1": block.branch_5x5[0], "S2_1": block.branch_5x5[1]}
    return {f"CNN/{name}_/{name}_{part}": layer for part, layer in layers.items()}


def layers_by_name(encoder: NetP | NetT | NetS) -> dict[str, Any]:
    """Every layer of an encoder by the name of its variables, and every recorded block."""
    named: dict[str, Any] = {}
    match encoder:
        case NetP():
            named["CNN/conv0"] = encoder.conv0
            for i in range(5):
                named |= inception_p_layers(getattr(encoder, f"inception{i}"), f"I{i}")
        case NetT():
            for i in (1, 2, 5, 6, 7):
                named[f"CNN/conv{i}"] = getattr(encoder, f"conv{i}")
            for i in ("1", "2", "2b", "3", "3b", "4"):
                block = getattr(encoder, f"inception{i}")
                named |= {f"CNN/inc{i}/a{k}": block.branch_5x5[k] for k in (0, 1)}
                named |= {f"CNN/inc{i}/b{k}": block.branch_3x3[k] for k in (0, 1)}
                named |= {f"CNN/inc{i}/c0": block.branch_pool, f"CNN/inc{i}/d1": block.branch_1x1}
        case NetS():
            named |= {f"CNN/conv{i}": layer for i, layer in enumerate(encoder.convolutions)}
    return named | {"netJ_origfc0_estimator": encoder.fc[0], "netJ_origfc1_estimator": encoder.fc[2]}


def golden_state(net: PhotozNet, variables: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The complete state of a network, with the recipe's value for each of the named variables."""
    values = {name.split("/", 1)[1]: hashed_variable(name, shape) for name, shape in variables.items()}
    names = {id(p): name for name, p in net.named_parameters()}
    state: dict[str, Tensor] = {}

    def put(parameter: Tensor, variable: str) -> None:
        value = values.pop(variable)
        state[names[id(parameter)]] = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.t()

    for name, layer in layers_by_name(net.encoder).items():
        affine = layer[0] if isinstance(layer, nn.Sequential) else layer
        put(affine.weight, f"{name}/weights")
        put(affine.bias, f"{name}/biases")
        if isinstance(layer, nn.Sequential) and isinstance(layer[1], nn.PReLU):
            put(layer[1].weight, f"{name}/prelu")
    if net.head.gate is not None:
        put(net.head.gate.weight, "fc_r/weights")
        put(net.head.gate.bias, "fc_r/biases")
    outputs = sorted(
        (name for name in values if name.startswith("netJ_origfc2_estimator")),
        key=lambda name: int(name.split("/")[0].removeprefix("netJ_origfc2_estimator").lstrip("_") or 0),
    )
    weights = [values.pop(name).T for name in outputs if name.endswith("weights")]
    biases = [values.pop(name) for name in outputs if name.endswith("biases")]
    state |= {"head.redshift.weight": torch.cat(weights), "head.redshift.bias": torch.cat(biases)}
    assert not values, f"variables without a place: {sorted(values)}"
    return state


def golden_net(name: str, kind: str, pixels: int = 64) -> tuple[PhotozNet, int, int]:
    """A network with the golden weights, its number of bands and its golden number of parameters."""
    variables, n_params = golden_variables(f"{name}_{kind}")
    n_bands = next(shape[2] for shape in variables.values() if len(shape) == 4)
    outputs = [s for v, s in variables.items() if "fc2_estimator" in v and v.endswith("/biases")]
    with torch.device("meta"):
        encoder = build_encoder(f"net_{name.lower()}", n_bands, pixels)
        head = Head(encoder.n_features, len(outputs), outputs[0][0])
        net = PhotozNet(encoder, head).eval()
    net.load_state_dict(golden_state(net, variables), strict=True, assign=True)
    return net, n_bands, n_params


@torch.no_grad()
def golden_logits(net: PhotozNet, image: Tensor, ebv: Tensor) -> np.ndarray:
    z_logits, gate_logits = net(image, ebv)
    flat = z_logits.flatten(1)
    return (flat if gate_logits is None else torch.cat([flat, gate_logits], dim=1)).numpy()


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("name", PAPER)
def test_golden_a4_networks_logits(golden: Any, name: str, kind: str) -> None:
    """Arrays `logits_{P,T,S1,S2,S3}_{single,multi}` and `n_params`."""
    arrays = golden("a4_networks")
    net, n_bands, n_params = golden_net(name, kind)
    image, ebv = golden_inputs(arrays, n_bands, 64)
    assert sum(p.numel() for p in net.parameters()) == n_params
    np.testing.assert_allclose(
        golden_logits(net, image, ebv), arrays[f"logits_{name}_{kind}"], rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("name", PAPER)
def test_golden_a4_networks_blocks(golden: Any, name: str) -> None:
    """Arrays `blocks_{names,stats,firstlast}_*`, for every convolution and inception block."""
    arrays = golden("a4_networks")
    net, n_bands, _ = golden_net(name, "multi")
    outputs: list[tuple[str, Tensor]] = []
    for variable, layer in layers_by_name(net.encoder).items():
        if variable.startswith("CNN"):
            layer.register_forward_hook(lambda _, __, out, v=variable: outputs.append((v, out)))
    for block_name, block in net.encoder.named_children():
        if block_name.startswith("inception"):
            block.register_forward_hook(lambda _, __, out, v=block_name: outputs.append((v, out)))
    with torch.no_grad():
        net(*golden_inputs(arrays, n_bands, 64))
    stats, ends = arrays[f"blocks_stats_{name}_multi"], arrays[f"blocks_firstlast_{name}_multi"]
    recorded = [str(block).split(":")[:2] for block in arrays[f"blocks_names_{name}_multi"]]
    done: set[int] = set()
    for variable, out in outputs:
        values = out.permute(0, 2, 3, 1).double().numpy()
        inception = variable.startswith("inception")
        # Blocks of Net_T share the names of their branches: the first one not yet seen is the one.
        short = variable.replace("inception", "inc" if name == "T" else "I").split("/")[-1]
        short += "_" if inception and name == "P" else ""
        function = f"inception_{name}" if inception else "conv2d"
        index = next(i for i, r in enumerate(recorded) if r == [function, short] and i not in done)
        done.add(index)
        found = [values.mean(), values.std(), values.min(), values.max(), np.abs(values).sum()]
        np.testing.assert_allclose(found, stats[index], rtol=2e-5, atol=1e-6, err_msg=variable)
        flat = values[1].ravel()
        np.testing.assert_allclose(
            np.r_[flat[:6], flat[-6:]], ends[index], rtol=0, atol=2e-5, err_msg=variable
        )
    n_expected = sum(function.startswith(("conv2d", "inception")) for function, _ in recorded)
    assert len(done) == n_expected


def test_golden_a4_networks_p_features(golden: Any) -> None:
    """Arrays `P_fc1_features` and `P_flat_first_image_i4_corner`."""
    arrays = golden("a4_networks")
    net, n_bands, _ = golden_net("P", "multi")
    assert isinstance(net.encoder, NetP)
    maps: list[Tensor] = []
    net.encoder.inception4.register_forward_hook(lambda _, __, out: maps.append(out))
    with torch.no_grad():
        features = net.encoder(*golden_inputs(arrays, n_bands, 64))
    np.testing.assert_allclose(features.numpy(), arrays["P_fc1_features"], rtol=0, atol=2e-5)
    corner = arrays["P_flat_first_image_i4_corner"]
    flat = flatten_rows_columns_channels(maps[0])[0].reshape(maps[0].shape[2], maps[0].shape[3], -1)
    np.testing.assert_allclose(flat[: corner.shape[0], : corner.shape[1]].numpy(), corner, rtol=0, atol=2e-5)


# Closed forms.


@pytest.mark.parametrize(("key", "n_params"), NUMBERS.items())
def test_number_of_parameters_is_the_published_one(key: str, n_params: int) -> None:
    name, kind = key.split("_")
    n_outputs = 6 if kind == "multi" else 1
    with torch.device("meta"):
        encoder = build_encoder(f"net_{name.lower()}", 5, 64)
        head = Head(encoder.n_features, n_outputs, 180)
    assert sum(p.numel() for m in (encoder, head) for p in m.parameters()) == n_params


@pytest.mark.parametrize("side", [1, 2, 7])
def test_stride_1_pool_leaves_the_padding_out(side: int) -> None:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    pooled = mean_of_2x2_same(x)
    for i in range(side):
        for j in range(side):
            expected = x[:, :, i : i + 2, j : j + 2].mean((2, 3))
            torch.testing.assert_close(pooled[:, :, i, j], expected)


def test_flatten_is_row_column_channel() -> None:
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    flat = flatten_rows_columns_channels(x)
    assert flat[1, (2 * 5 + 3) * 3 + 1] == x[1, 1, 2, 3]


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(("n_bands", "pixels"), [(5, 64), (3, 51)])
def test_any_bands_and_sizes(name: str, n_bands: int, pixels: int) -> None:
    generator = torch.Generator().manual_seed(2)
    encoder = build_encoder(name, n_bands, pixels, generator=generator).eval()
    shape = (2, n_bands) if name in OF_COLUMNS else (2, n_bands, pixels, pixels)
    inputs = torch.randn(shape, generator=generator)
    with torch.no_grad():
        one = encoder(inputs, torch.tensor([0.0, 0.1]))
        reddened = encoder(inputs, torch.tensor([0.0, 0.9]))
    assert one.shape == (2, encoder.n_features)
    assert torch.isfinite(one).all()
    torch.testing.assert_close(one[0], reddened[0])
    assert not torch.equal(one[1], reddened[1])


@pytest.mark.parametrize("name", TRAINED)
def test_weights_are_a_function_of_the_generator(name: str) -> None:
    def draw(seed: int) -> dict[str, Tensor]:
        return build_encoder(name, 5, 64, generator=torch.Generator().manual_seed(seed)).state_dict()

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_initial_values_are_the_papers() -> None:
    encoder = build_encoder("net_s3", 5, 64, generator=torch.Generator().manual_seed(3))
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0.1).all()
        elif parameter.ndim == 1:
            assert (parameter == 0).all()
    weight = encoder.convolutions[1][0].weight
    bound = (6 / (9 * 64 + 9 * 64)) ** 0.5
    assert bound * 0.99 < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in OF_COLUMNS])
def test_bfloat16_channels_last_without_upcasts(name: str) -> None:
    """No convolution or linear layer gets float32 features or another layout on the way."""
    encoder = build_encoder(name, 5, 64, generator=torch.Generator().manual_seed(4))
    encoder.to(memory_format=torch.channels_last)
    first = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    problems: list[str] = []

    def check(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        if layer is not first and x.dtype != torch.bfloat16:
            problems.append(f"{layer} got {x.dtype}")
        if x.ndim == 4 and not x.is_contiguous(memory_format=torch.channels_last):
            problems.append(f"{layer} got strides {x.stride()} for {tuple(x.shape)}")

    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.PReLU | nn.AvgPool2d):
            layer.register_forward_hook(check)
    image = torch.randn(2, 5, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        encoder(image, torch.zeros(2))
    assert not problems, "\n".join(problems)


def test_net_t_refuses_small_images() -> None:
    with pytest.raises(ConfigError, match="at least 49 pixels"):
        build_encoder("net_t", 5, 48)


def test_unknown_encoder_names_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"fast.*mlp.*net_s1"):
        build_encoder("resnet", 5, 64)


def test_standardisation_gives_zero_mean_and_unit_scale() -> None:
    generator = torch.Generator().manual_seed(5)
    columns = torch.randn(500, 3, generator=generator) * torch.tensor([2.0, 0.1, 0.0]) + torch.tensor(
        [18.0, 0, 7]
    )
    standardisation = Standardisation(3)
    torch.testing.assert_close(standardisation(columns), columns)
    standardisation.fit(columns)
    out = standardisation(columns)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("bad", [torch.zeros(1, 2), torch.tensor([[0.0, 1.0], [float("nan"), 2.0]])])
def test_standardisation_refuses_bad_features(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="at least two rows of finite"):
        Standardisation(2).fit(bad)


def test_mlp_keeps_its_standardisation_in_its_state() -> None:
    generator = torch.Generator().manual_seed(6)
    columns, ebv = torch.randn(50, 4, generator=generator) + 18, torch.rand(50, generator=generator)
    trained = build_encoder("mlp", 4, 0, MLPSettings(hidden=[16, 8]), generator).eval()
    trained.standardise(columns, ebv)
    loaded = build_encoder("mlp", 4, 0, MLPSettings(hidden=[16, 8])).eval()
    loaded.load_state_dict(trained.state_dict())
    assert trained.n_features == 8
    torch.testing.assert_close(loaded(columns, ebv), trained(columns, ebv), rtol=0, atol=0)


def test_mlp_needs_a_layer() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.hidden=\[\] must name at least one layer"):
        build_encoder("mlp", 4, 0, MLPSettings(hidden=[]))


def test_every_encoder_is_found_by_what_it_reads() -> None:
    assert readers("features") == ["mlp"]
    assert readers("vectors") == ["mlp", "precomputed"]
    assert set(readers("images")) == ENCODERS.keys() - {"mlp", "precomputed"}


def test_vectors_pass_unchanged_until_they_are_scaled() -> None:
    vectors = 3 + 2 * torch.randn(100, 4, generator=torch.Generator().manual_seed(8))
    encoder = build_encoder("precomputed", 4, 64)
    assert encoder.n_features == 4
    assert torch.equal(encoder(vectors, torch.zeros(100)), vectors)
    encoder.standardise(vectors, torch.zeros(100))
    scaled = encoder(vectors, torch.zeros(100))
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0), torch.ones(4))
