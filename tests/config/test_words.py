from pathlib import Path

import pytest
from command import parsed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz_lit.__main__ import conf_folder
from photoz_lit.config import for_hydra
from photoz_lit.config.words import quote, shown
from photoz_lit.errors import ConfigError

NAMES = (
    *("gal (1).csv", "größe.csv", "a,b.csv", "a=b.csv", "[x].csv", "{x}.csv", "a#b", "a&b;c", "~x y"),
    *(
        "bob's.csv",
        'say "x".csv',
        "back\\slash",
        "ends\\",
        "\\'",
        "${seed}.csv",
        "$HOME",
        "1e3",
        "007",
        "true",
    ),
    *(
        "a: b",
        "*.fits",
        "?",
        "%41",
        "@home",
        "!x",
        "日本.csv",
        "a\tb",
        " x",
        "x ",
        "nul",
        "-1",
        "a||b",
        "E(B-V)",
    ),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_taken_as_it_is_typed(name: str) -> None:
    run = name.replace("\\", "_")  # a folder of its own
    config = parsed(
        *("stage=predict", "data=arrays", "model=m", f"data.path={name}", f"data.images={name}"),
        *(
            f"data.columns.ebv={name}",
            f"target.label={name}",
            "run=" + name.replace("\\", "_"),
            f"output_dir=out {name}",
        ),
    )
    path = str(Path(name).absolute())
    assert (config.data.path, config.data.images) == (path, path)
    assert (config.data.columns["ebv"], config.target.label) == (name, name)
    assert config.run == run
    assert Path(config.output_dir).name == f"out {name}"


@settings(deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"])))
def test_any_text_comes_back_from_hydra(text: str) -> None:
    if "${" in text:  # an interpolation that is none is resolved with the settings
        return
    word = f"++run={quote(text)}"
    assert OverridesParser.create().parse_override(word).value() == text
    assert shown(word) == f"run={text}"


@pytest.mark.parametrize(
    ("word", "put"),
    [
        ("seed=1", "++seed=1"),
        ("+seed=1", "++seed=1"),
        ("head=single", "++head=single"),
        ("data.path=null", "++data.path=null"),
        ("data.path='a','b'", "++data.path='a','b'"),
        ("data.images=a/{object_id}/*-{band}.fits", "++data.images='a/{object_id}/*-{band}.fits'"),
        ("data.images_key=SCI_{band}", "++data.images_key='SCI_{band}'"),
        ("run=null", "++run='null'"),
        ("run=", "++run=''"),
        ("correction=full", "correction=full"),
        ("hydra.verbose=true", "hydra.verbose=true"),
        ("data.magnitudes=[u, E(B-V),'a,b']", "++data.magnitudes=['u','E(B-V)','a,b']"),
        ("data.magnitudes=[]", "++data.magnitudes=[]"),
        ("data.columns={ebv: E(B-V), ra: null}", "++data.columns={ebv:'E(B-V)',ra:null}"),
        ("data.region=[1,2,3,4]", "++data.region=[1,2,3,4]"),
    ],
)
def test_words_are_put_as_hydra_reads_them(word: str, put: str) -> None:
    for multirun in (False, True):
        assert for_hydra([word], [conf_folder()], multirun=multirun) == [put]


def test_in_a_sweep_choices_are_jobs_and_a_comma_in_a_text_stays() -> None:
    words = [
        "seed=1,2",
        "head=single,multi",
        "correction=none,full",
        "data.path=a,b.csv",
        "data.thin=[],[1,2,0]",
    ]
    put = for_hydra(words, [conf_folder()], multirun=True)
    assert put[:3] == ["++seed=1,2", "++head=single,multi", "correction=none,full"]
    assert put[3:] == ["++data.path='a,b.csv'", "++data.thin=[],[1,2,0]"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["correction=none,full"], ["correction=none,full", "add -m"]),
        (["seed=1,2"], ["seed=1,2", "add -m"]),
        (["head=single,multi"], ["add -m"]),
        (["seed=1", "seed=2"], ["seed is typed twice", "seed=1", "seed=2"]),
        (["seed=1", "+seed=2"], ["seed is typed twice"]),
        (["correction=none", "correction=full"], ["correction is typed twice"]),
        (["~data.path"], ["~data.path", "data.path=null"]),
        (["correction=ful"], ["correction=full?"]),
    ],
)
def test_words_that_cannot_be_meant(words: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        for_hydra(words, [conf_folder()], multirun=False)
    for part in said:
        assert part in str(caught.value)


def test_a_position_alone_is_short_for_images_of_sdss() -> None:
    text = "[150 2, 10:00:00 +2:00:00 r=16 ebv=0.1, NGC 1]"
    for words in (
        (f"position={text}",),
        ("data=sdss", f"data.position={text}"),
        ("experiment=demo", f"position={text}"),
    ):
        data = parsed("stage=predict", "model=sdss_main", *words).data
        assert (data.source, data.position, data.images) == ("sdss", text, None)
