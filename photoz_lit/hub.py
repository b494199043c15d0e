"""Models on the Hugging Face Hub, for others to find; nothing is sent unless `export.push` asks for it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from photoz_lit.errors import ConfigError, DataError

PATIENCE = 5  # seconds, for the hub to answer
HEADER = "---\nlibrary_name: photoz_lit\ntags: [astronomy, photometric-redshifts]\n---\n\n"


def check_push(name: str) -> Any:
    """Return the hub's client; an error, within seconds, where nothing could be sent.

    ConfigError where the name is not OWNER/NAME; DataError where the client, a token or the network is
    missing.
    """
    import requests

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ConfigError(f"export.push={name} must be OWNER/NAME, a repository of yours on the hub")
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise DataError("export.push needs huggingface-hub: type pip install 'photoz_lit[hub]'") from error
    if hub.get_token() is None:
        raise DataError(f"export.push={name}: you are not logged in: type hf auth login, or set HF_TOKEN")
    try:
        requests.head(hub.constants.ENDPOINT, timeout=PATIENCE)
    except requests.RequestException as error:
        where = f"{hub.constants.ENDPOINT} does not answer ({type(error).__name__})"
        raise DataError(
            f"export.push={name}: {where}: leave it out, and push where there is a network"
        ) from error
    return hub


def push(folders: Sequence[Path], name: str) -> str:
    """Upload exported models, one as it is or several in folders of their own; return where they are.

    Their cards are the README. Errors as of `check_push`; DataError where the hub refuses.
    """
    hub, cards = check_push(name), []
    files: dict[str, Path | bytes] = {}
    for folder in folders:
        prefix = f"{folder.name}/" if len(folders) > 1 else ""
        cards.append((folder / "card.md").read_text())
        own = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
        files |= {prefix + path.name: path for path in own}
    files["README.md"] = (HEADER + "\n".join(cards)).encode()
    try:
        api = hub.HfApi()
        api.create_repo(name, exist_ok=True)
        operations = [hub.CommitOperationAdd(place, content) for place, content in files.items()]
        return str(api.create_commit(name, operations, commit_message="A model of photoz_lit"))
    except Exception as error:  # its client raises many kinds
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"export.push={name}: the hub refuses ({said}); the models are in {folders[0].parent}"
        ) from error
