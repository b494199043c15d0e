from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from command import ROOT

from photoz_lit.config import Config
from photoz_lit.setting import contents_of, settings_of

MOST = 120


def declared(kind: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of all settings that there are, whatever is chosen."""
    hints = get_type_hints(kind)
    for f in fields(kind):
        key = f"{prefix}{f.name}"
        if "chosen" in f.metadata:
            contents = f.metadata["chosen"][0]
            for name in contents_of(contents):
                yield from declared(settings_of(contents, name), f"{key}.")
            continue
        inner = next((t for t in (*get_args(hints[f.name]), hints[f.name]) if is_dataclass(t)), None)
        if inner is not None:
            yield from declared(inner, f"{key}.")
        elif key != "names":
            yield key


def test_settings_are_few() -> None:
    assert len(set(declared(Config))) <= MOST


@pytest.mark.parametrize(
    "default", ["survey/sdss", "target/redshift", "data/mock", "encoder/fast", "trainer/auto", "logger/csv"]
)
def test_a_default_stands_with_its_declaration_alone(default: str) -> None:
    composed = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    assert composed.keys() == {"defaults"}
    held = yaml.safe_load((ROOT / "conf" / f"{default}.yaml").read_text())
    assert len(held) == 1  # the name of the choice
