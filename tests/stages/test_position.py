"""`position=`: from a place on the sky to a line, a page and the usual files, without a network."""

import bz2
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.coordinates.name_resolve import NameResolveError
from astropy.table import Table
from command import Outcome, only, places, run, run_well, state
from faulty_server import FrameServer, SkyServer
from matplotlib.image import imread
from synthetic_frames import SHAPE, frame_header, frame_wcs, write_frame, write_survey

from photoz_lit.data.dust import ebv_at
from photoz_lit.data.sdss import fetch, query, walk
from photoz_lit.data.sdss.frames import Field
from photoz_lit.results import read_pdf

CENTRE = (150.0, 12.7)
GALAXY, STAR, EDGE, SKY = (200.0, 150.0), (320.0, 220.0), (6.0, 150.0), (80.0, 60.0)  # pixels
FLUX = {"u": 15.0, "g": 60.0, "r": 130.0, "i": 185.0, "z": 230.0}  # nanomaggies: an old galaxy at z = 0.1
OUTSIDE = "on none of the frames: bring those that show it; the nearest here are run 1000 camcol 3 field"
WORDS = ("stage=predict", "model=sdss_main", "trainer.accelerator=cpu", "trainer.threads=1")


def typed(pixel: tuple[float, float]) -> str:
    ra, dec = frame_wcs(*CENTRE).pixel_to_world_values(*pixel)
    return f"{ra:.6f} {dec:.6f}"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a field of a galaxy, one at the edge and a star, in five bands, and another far away."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(3)
    y, x = np.indices(SHAPE)
    for band, flux in FLUX.items():
        image = rng.normal(0, 0.02, SHAPE)
        for place in (GALAXY, EDGE):
            image += flux / (2 * np.pi * 9) * np.exp(-np.hypot(x - place[0], y - place[1]) / 3)
        image += flux / (2 * np.pi * 2) * np.exp(-((x - STAR[0]) ** 2 + (y - STAR[1]) ** 2) / 4)
        for number, centre in ((10, CENTRE), (50, (170.0, 12.7))):
            header = frame_header(*centre)
            write_frame(folder, Field(1000, 3, number), band, image.astype(np.float32), header)
    return folder


@pytest.fixture(scope="module")
def finished(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...], Outcome]:
    """Predict at two positions."""
    folder = tmp_path_factory.mktemp("finished")
    position = f"position={typed(GALAXY)} ebv=0.03 r=17.1; {typed(GALAXY)}; {typed(SKY)}; 170.5 12.7"
    words = (*WORDS, "data.ebv_maps=none", position, f"data.images={frames}", *places(folder))
    return folder, words, run_well(*words)


def test_a_line_a_page_and_the_usual_files(finished: tuple[Path, tuple[str, ...], Outcome]) -> None:
    folder, _, outcome = finished
    table = Table.read(only(folder, "photo_z.fits"), mask_invalid=False)
    run_folder = only(folder, "photo_z.fits").parent
    lines = (run_folder / "positions.txt").read_text().splitlines()
    assert len(lines) == len(table) == 4
    for i, line in enumerate(lines, 1):
        assert f"{line}\n  -> {run_folder / f'photo_z_{i}.png'}\n" in outcome.out
        picture = imread(run_folder / f"photo_z_{i}.png")
        assert picture.shape[0] > 400
        assert np.ptp(picture[..., :3]) > 0.9
    z, low, high = (table[f"photo_z{name}"][0] for name in ("", "_lower", "_upper"))
    place = typed(GALAXY)
    assert lines[0].startswith(
        f"{place}: photo_z {z:.3f} (68 %: {low:.3f} to {high:.3f}), flag {table['flag'][0]}. "
    )
    assert "r 17.10 (typed). E(B-V) 0.030 (typed)." in lines[0]
    assert "Cut from run 1000 camcol 3 field 10." in lines[0]
    assert "known" not in lines[0]
    assert "peak" not in lines[0]
    assert lines[2].startswith(f"{typed(SKY)}: no photo_z, flag empty. No source is seen at the position.")
    assert lines[3].startswith(f"170.5 12.7: no photo_z, flag frame. O{OUTSIDE[1:]} 50, 0.49 deg away")
    assert np.isnan(table["photo_z"][2:]).all()
    assert np.isfinite(np.concatenate(list(read_pdf(run_folder)))[:2]).all()


def test_without_dust_it_says_what_that_does(finished: tuple[Path, tuple[str, ...], Outcome]) -> None:
    folder, words, _ = finished
    line = (only(folder, "positions.txt")).read_text().splitlines()[1]
    assert re.search(r"r 17\.\d\d \(measured\)\.", line)
    told = re.search(
        r"E\(B-V\) is not known: photo_z ([\d.]+) without dust, ([\d.]+) with E\(B-V\) 0\.10", line
    )
    assert told is not None
    other = words[-4].partition("; ")[0].replace("ebv=0.03 r=17.1", "ebv=0.1")
    run_well(*WORDS, other, *words[-3:], "run=dusty")
    table = Table.read(only(folder / "runs" / "dusty", "photo_z.fits"), mask_invalid=False)
    assert float(told[2]) == pytest.approx(table["photo_z"][0], abs=6e-4)
    assert float(told[1]) > float(told[2])


def test_dust_is_looked_up(frames: Path, tmp_path: Path) -> None:
    run_well(*WORDS, f"position={typed(GALAXY)}", f"data.images={frames}", *places(tmp_path))
    ebv = ebv_at(*CENTRE)[0]
    assert f"E(B-V) {ebv:.3f} (SFD map)." in only(tmp_path, "positions.txt").read_text()
    table = Table.read(only(tmp_path, "photo_z.fits"), mask_invalid=False)
    assert table["ebv"][0] == pytest.approx(ebv)


def test_again_it_is_finished_and_the_line_stands(finished: tuple[Path, tuple[str, ...], Outcome]) -> None:
    folder, words, _ = finished
    before = state(folder / "runs" / "main")
    again = run_well(*words)
    assert "is complete: skipped" in again.out
    for line in only(folder / "runs" / "main", "positions.txt").read_text().splitlines():
        assert line in again.out
    assert state(folder / "runs" / "main") == before
    only(folder / "runs" / "main", "positions.txt").unlink()  # as where it was interrupted
    run_well(*words)
    after = state(folder / "runs" / "main")
    assert {name: digest for name, (_, digest) in after.items()} == {n: d for n, (_, d) in before.items()}


@pytest.mark.slow
def test_plain_frames_and_compressed_ones_say_the_same(
    frames: Path, finished: tuple[Path, tuple[str, ...], Outcome], tmp_path: Path
) -> None:
    (tmp_path / "frames" / "deep").mkdir(parents=True)
    for path in frames.glob("*.fits.bz2"):
        (tmp_path / "frames" / "deep" / path.stem).write_bytes(bz2.decompress(path.read_bytes()))
    words = [word.replace(str(frames), str(tmp_path / "frames")) for word in finished[1][:-2]]
    run_well(*words, *places(tmp_path))
    ours, theirs = (
        only(folder, "positions.txt").read_text() for folder in (tmp_path, finished[0] / "runs" / "main")
    )
    assert ours == theirs


def test_a_place_beside_the_galaxy_is_told(frames: Path, tmp_path: Path) -> None:
    beside = (GALAXY[0] + 4, GALAXY[1])
    outcome = run_well(*WORDS, f"position={typed(beside)} ebv=0", f"data.images={frames}", *places(tmp_path))
    # Four pixels and the half by which no pixel is at the middle.
    assert re.search(r"The brightest peak nearby in r is 1\.[3-9] arcsec away", outcome.out)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("position=150 95", "Latitude"),
        ("position=150", "must have ra and dec"),
        ("position=151.5 12.7 ebv=0", f"{OUTSIDE} 10, 1.46 deg away at 150.000 +12.700"),
        (f"position={typed(EDGE)}", "too much of the cutout lies off the frames"),
        ("position=nonsense", "no coordinates, and as a name it could not be looked up (no network)"),
    ],
)
def test_what_cannot_be_is_told(
    word: str, said: str, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(name: str) -> SkyCoord:
        raise NameResolveError("no network")

    monkeypatch.setattr(SkyCoord, "from_name", no_network)
    assert said in run(*WORDS, word, f"data.images={frames}", *places(tmp_path)).message


def test_from_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = write_survey(tmp_path / "files", neighbours=True)
    monkeypatch.setattr(walk, "ROWS", SHAPE[0])
    inside, seam = (f"{survey.photo['ra'][i]:.7f} {survey.photo['dec'][i]:.7f}" for i in (1, 0))
    with SkyServer(survey.photo, survey.spec) as catalogue, FrameServer(survey.files) as archive:
        monkeypatch.setattr(query, "CATALOGUE", f"{catalogue.address}/dr17")
        monkeypatch.setattr(fetch, "FRAMES", f"{archive.address}/frames")
        run_well(*WORDS, f"position={inside}; {seam} ebv=0.2", *places(tmp_path))
        assert len(archive.paths) == len(set(archive.paths)) == 10
    table = Table.read(only(tmp_path, "photo_z.fits"), mask_invalid=False)
    assert np.isfinite(table["photo_z"]).all()
    np.testing.assert_allclose(table["ebv"], [0.05, 0.2], rtol=1e-4)
    lines = only(tmp_path, "positions.txt").read_text().splitlines()
    assert all("r 16.86 (catalogue)." in line for line in lines)
    assert ["E(B-V) 0.050 (catalogue)." in lines[0], "E(B-V) 0.200 (typed)." in lines[1]] == [True, True]


def test_a_missing_band_is_named(frames: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for path in frames.glob("frame-[ugri]-001000-3-0010.fits.bz2"):
        (tmp_path / "frames" / path.name).symlink_to(path)
    words = (*WORDS, f"position={typed(GALAXY)}", f"data.images={tmp_path / 'frames'}", *places(tmp_path))
    assert "no frame of band z in the folder (frame-z-001000-3-0010.fits.bz2)" in run(*words).message
    (tmp_path / "frames" / "frame-z-001000-3-0010.fits.bz2").symlink_to(
        frames / "frame-z-001000-3-0010.fits.bz2"
    )
    run_well(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data=stamps",), "data=stamps is other data: leave one out"),
        (("data.path=x.csv",), "leave data.path out"),
        (("data.region=[1,2,3,4]", "data.runs=[1]"), "leave data.region, data.runs out"),
        (("stage=representation",), "it is for stage=predict"),
        (("position=1 2",), "typed twice"),
        (("data.images=nowhere",), "no such file or folder"),
    ],
)
def test_words_that_contradict_a_position_are_refused(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    others = [w for w in WORDS if w.partition("=")[0] not in {word.partition("=")[0] for word in words}]
    assert said in run(*others, "position=150 2", *words, *places(tmp_path)).message


@pytest.mark.slow
def test_real_galaxies_of_real_frames(real_data: Path, tmp_path: Path) -> None:
    known = Table.read(real_data / "sdss_cutouts" / "galaxies.csv")
    known = known[[field in ("1035-6-17", "3918-3-213") for field in known["field"]]]
    position = ";".join(f"{row['ra']} {row['dec']} ebv=0.04" for row in known)
    run_well(*WORDS, f"position={position}", f"data.images={real_data / 'sdss_frames'}", *places(tmp_path))
    table = Table.read(only(tmp_path, "photo_z.fits"), mask_invalid=False)
    assert len(table) == 3
    assert list(table["flag"].astype(str)) == ["good"] * 3
    assert (np.abs(table["photo_z"] - known["spec_z"]) < 0.03).all()
    assert only(tmp_path, "positions.txt").read_text().count("Cut from run") == 3
