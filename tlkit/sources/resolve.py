"""Resolves a source, the string that a user types, to a folder or a preset."""

import dataclasses
import difflib
import os
import pathlib

from ..errors import SourceError
from ..files import user_path
from .catalog.cards import Card, read_card
from .catalog.catalog import CATALOG, catalog_names
from .download.download import cached_url, fetch_archive, fetch_bucket, fetch_url
from .download.download_errors import OFFLINE_HINT, require_network
from .download.http import is_archive
from .download.kaggle import fetch_kaggle
from .store.lock import check_lock
from .store.saved_model_check import (
    check_saved_model,
    is_saved_model,
    missing_model_message,
)

_FORMS = (
    "A source is a folder, a .tar or .tar.gz, a name on the shelf, a name in the "
    "catalog, https://…, kaggle://owner/model/framework/variation, gs://… or preset://…"
)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """The result of resolving a source: either `path` or `preset` is set.

    Attributes:
        name: Short name, for labels.
        path: Folder of a complete SavedModel, or None.
        preset: Argument of keras-nlp's `from_preset` (a preset's name, a `kaggle://`
            handle or a folder), or None.
        card: The encoder's card, or None if there is none.
        tried: The folders and addresses that were tried, in order.
    """

    name: str
    path: pathlib.Path | None = None
    preset: str | None = None
    card: Card | None = None
    tried: tuple[str, ...] = ()


def resolve(source: str | os.PathLike[str], *, verbose: int = 1) -> Resolved:
    """Finds an encoder by its source, and fetches it if necessary.

    The source is one of these, tried in this order:

    - a folder, or its `.tar`, `.tar.gz` or `.tgz`;
    - a name on the shelf: the highest version of `saved_models/<name>/<version>/`, in
      the working directory or in `TLKIT_SAVED_MODELS`;
    - a short name in the catalog;
    - `https://…` of TF Hub, Kaggle or any server that responds as TF Hub does;
      `kaggle://owner/model/framework/variation[/version]`; `gs://…`; `preset://…`, a
      preset of keras-nlp.

    Cached models and folders with a `tlkit.lock` are compared with the SHA-256 of
    every file. With `TLKIT_OFFLINE=1` in the environment, the network is not used.

    Args:
        source: The source. Fetched models are cached.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        The folder or preset, with the encoder's card if there is one.

    Raises:
        SourceError: No encoder was found, or its files are damaged or changed.
        ExtraError: The source needs a package that is not installed.

    Example:
        >>> tlkit.sources.resolve("saved_models/resnet50").path
        PosixPath('saved_models/resnet50/1')
    """
    resolved = _resolve(os.fspath(source).strip(), verbose=verbose)
    if resolved.preset is not None and not pathlib.Path(resolved.preset).is_dir():
        require_network(
            f"The preset {resolved.preset}",
            "keras-nlp fetches presets: where there is a network, save it with "
            "preset.save_to_preset(folder), and give that folder as the source.",
        )
    return resolved


def _resolve(text: str, *, verbose: int) -> Resolved:
    if not text:
        raise SourceError(f"The source is empty. {_FORMS}.")
    scheme, separator, rest = text.partition("://")
    if separator:
        return _from_scheme(scheme.lower(), text, rest, verbose=verbose)
    folder, shelf = user_path(text), _shelf()
    for path in (folder, shelf / text):
        if path.is_dir():
            return _from_folder(path, (str(folder), str(shelf / text)))
        if path.is_file() and is_archive(path.name):
            return _from_archive(path)
    if text in CATALOG:
        return _from_card(CATALOG[text], verbose=verbose)
    raise SourceError(_not_found_message(text, folder, shelf))


def _shelf() -> pathlib.Path:
    return user_path(os.environ.get("TLKIT_SAVED_MODELS") or "saved_models")


def _from_folder(folder: pathlib.Path, tried: tuple[str, ...]) -> Resolved:
    tried = tried[: tried.index(str(folder)) + 1]
    name = folder.absolute().name
    check_lock(folder)
    if not is_saved_model(folder):
        if (folder / "config.json").exists():
            return Resolved(name=name, preset=str(folder), tried=tried)
        versions = [int(path.name) for path in folder.iterdir() if _is_version(path)]
        if not versions:
            raise SourceError(missing_model_message(folder))
        folder = folder / str(max(versions))
        check_lock(folder)
    elif name.isdecimal():
        name = folder.absolute().parent.name
    check_saved_model(folder, full=False)
    card = _card_in(folder)
    return Resolved(
        name=card.name if card else name, path=folder, card=card, tried=tried
    )


def _from_archive(archive: pathlib.Path) -> Resolved:
    folder = fetch_archive(archive)
    card = _card_in(folder)
    name = card.name if card else archive.name.partition(".")[0]
    return Resolved(name=name, path=folder, card=card, tried=(str(archive),))


def _card_in(folder: pathlib.Path) -> Card | None:
    """Returns the card in a folder, with the full path of its preprocessor."""
    card = read_card(folder)
    if card is None or not (card.preprocessor or "").startswith(("./", "../")):
        return card
    path = os.path.abspath(folder / card.preprocessor)
    return dataclasses.replace(card, preprocessor=path)


def _is_version(path: pathlib.Path) -> bool:
    return path.is_dir() and path.name.isdecimal() and str(int(path.name)) == path.name


def _from_scheme(scheme: str, text: str, rest: str, *, verbose: int) -> Resolved:
    if scheme in ("http", "https"):
        card = _card_of(rest)
        folder = fetch_url(text, verbose=verbose)
    elif scheme == "gs":
        card = None
        folder = fetch_bucket(text, verbose=verbose)
    elif scheme == "kaggle":
        if rest.lower().split("/")[2:3] == ["keras"]:
            return Resolved(name=_label(rest), preset=text, tried=(text,))
        card = _card_of(rest)
        folder = fetch_kaggle(rest)
    elif scheme == "preset":
        return Resolved(name=_label(rest), preset=rest, tried=(text,))
    else:
        raise SourceError(f"No source begins with {scheme}://. {_FORMS}.")
    card = _card_in(folder) or card
    name = card.name if card else _label(rest)
    return Resolved(name=name, path=folder, card=card, tried=(text,))


def _from_card(card: Card, *, verbose: int) -> Resolved:
    # The cache first, then Kaggle: since 2023 tfhub.dev is only a redirect to it, which
    # sometimes fails (tensorflow/hub#932).
    cached = [url for url in card_urls(card) if cached_url(url) is not None]
    if not cached and not card.preset:
        require_network(f"The encoder {card.name!r}")
    failures = []
    for url in cached[:1] or card_urls(card):
        try:
            folder = fetch_url(url, verbose=verbose)
        except SourceError as error:
            failures.append(str(error).removesuffix(OFFLINE_HINT).strip())
            continue
        return Resolved(name=card.name, path=folder, card=card, tried=(url,))
    if card.preset:
        tried = (*card_urls(card), f"preset://{card.preset}")
        return Resolved(name=card.name, preset=card.preset, card=card, tried=tried)
    raise SourceError(
        f"The encoder {card.name!r} could not be fetched. Tried:\n  "
        + "\n  ".join(failures)
        + f"\n{OFFLINE_HINT}"
    )


def card_urls(card: Card) -> tuple[str, ...]:
    """Returns the addresses of a card's encoder, in the order in which to try them."""
    urls = []
    if card.kaggle:
        # Addresses of pages capitalize the framework.
        path = card.kaggle.replace("/tensorFlow2/", "/TensorFlow2/")
        urls.append(f"https://www.kaggle.com/models/{path}")
    if card.tfhub:
        urls.append(f"https://tfhub.dev/{card.tfhub}")
    return tuple(urls)


def _card_of(address: str) -> Card | None:
    """Returns the card with whose handle an address ends, in whatever version."""
    bare = _without_version(address.partition("?")[0].lower())
    for card in CATALOG.values():
        for handle in (card.kaggle, card.tfhub):
            if handle and bare.endswith(_without_version(handle.lower())):
                return card
    return None


def _without_version(path: str) -> str:
    head, _, last = path.rstrip("/").rpartition("/")
    return f"/{head}" if last.isdecimal() else f"/{path.rstrip('/')}"


def _label(address: str) -> str:
    """Returns the last part of an address that is not a version."""
    parts = [part for part in address.partition("?")[0].split("/") if part]
    names = [part for part in parts if not part.isdecimal()]
    return (names or parts or ["encoder"])[-1]


def _not_found_message(text: str, folder: pathlib.Path, shelf: pathlib.Path) -> str:
    if folder.is_file():
        return f"{folder} is a file, and a source is a folder. " + (
            "Load it with keras.saving.load_model and give the model."
            if folder.suffix in (".keras", ".h5")
            else "If it is an archive, use .tar or .tar.gz, or unpack it first."
        )
    shelved = [path.name for path in shelf.glob("*") if path.is_dir()]
    names = [*shelved, *catalog_names()]
    lines = [
        f"There is no encoder {text!r}. Tried: the folder {folder}, the shelf "
        f"{shelf / text}, the catalog."
    ]
    near = difflib.get_close_matches(text, names, n=4, cutoff=0.5)
    if near:
        lines.append(f"Did you mean: {', '.join(near)}?")
    if text.count("/") in (3, 4) and not text.startswith(("/", ".")):
        lines.append(f"For a model on Kaggle type kaggle://{text}")
    if text.startswith(("tfhub.dev/", "www.kaggle.com/", "kaggle.com/")):
        lines.append(f"Type https://{text}")
    lines.append(f"{_FORMS}; tlkit.sources.catalog_names() lists the catalog.")
    return "\n".join(lines)
