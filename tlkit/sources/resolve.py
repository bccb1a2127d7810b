"""From the string that a user types to a folder or a preset."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib

from ..errors import SourceError
from .catalog.cards import Card, read_card
from .catalog.catalog import CATALOG, catalog_names
from .download.download import cached_url, fetch_archive, fetch_bucket, fetch_url
from .download.download_errors import OFFLINE, refuse_network
from .download.http import is_archive
from .download.kaggle import fetch_kaggle
from .store.lock import check_lock
from .store.saved_model_check import check_saved_model, explain_folder, is_saved_model

_FORMS = (
    "A source is a folder, a .tar or .tar.gz, a name on the shelf, a name in the "
    "catalog, https://…, kaggle://owner/model/framework/variation, gs://… or preset://…"
)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Where a source leads: either `path` or `preset` is set.

    Attributes:
        name: Short name, for labels.
        path: Folder with a whole SavedModel, or None.
        preset: What `from_preset` of keras-nlp takes (a preset's name, a `kaggle://`
            handle or a folder), or None.
        card: What is known about the encoder, or None.
        tried: What was tried on the way, in order.
    """

    name: str
    path: pathlib.Path | None = None
    preset: str | None = None
    card: Card | None = None
    tried: tuple[str, ...] = ()


def resolve(source: str | os.PathLike[str], *, verbose: int = 1) -> Resolved:
    """Finds an encoder by its source, and fetches it where needed.

    In this order, the source may be: a folder, or a `.tar`, `.tar.gz` or `.tgz` of
    one; a name on the shelf `saved_models/<name>/<version>/` (in the working directory,
    or where the variable `TLKIT_SAVED_MODELS` says), of which the highest version
    counts; a short name in the catalog; `https://…` of TF Hub, Kaggle or any server
    that answers as TF Hub does; `kaggle://owner/model/framework/variation[/version]`;
    `gs://…`; `preset://…`, a preset of keras-nlp.

    A folder with a `tlkit.lock`, and what is in the cache, is compared with the SHA-256
    of every file. With `TLKIT_OFFLINE=1` in the environment no network is touched.

    Args:
        source: The source. What was fetched once is not fetched again.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        The folder or preset, with the encoder's card where there is one.

    Raises:
        SourceError: Nothing usable is there, or files are not what they were; says
            what was tried and what to do.
        ExtraError: The source needs a package that is not installed.

    Example:
        >>> tlkit.sources.resolve("saved_models/flowers").path
        PosixPath('saved_models/flowers/3')
    """
    found = _resolve(os.fspath(source).strip(), verbose=verbose)
    if found.preset is not None and not pathlib.Path(found.preset).is_dir():
        refuse_network(
            f"The preset {found.preset}",
            "keras-nlp fetches presets: where there is a network, save it with "
            "preset.save_to_preset(folder), and give that folder as the source.",
        )
    return found


def _resolve(text: str, *, verbose: int) -> Resolved:
    if not text:
        raise SourceError(f"The source is empty. {_FORMS}.")
    scheme, separator, rest = text.partition("://")
    if separator:
        return _from_scheme(scheme.lower(), text, rest, verbose=verbose)
    folder, shelf = pathlib.Path(text).expanduser(), _shelf()
    for place in (folder, shelf / text):
        if place.is_dir():
            return _from_folder(place, (str(folder), str(shelf / text)))
        if place.is_file() and is_archive(place.name):
            return _from_archive(place)
    if text in CATALOG:
        return _from_card(CATALOG[text], verbose=verbose)
    raise SourceError(_not_found(text, folder, shelf))


def _shelf() -> pathlib.Path:
    return pathlib.Path(os.environ.get("TLKIT_SAVED_MODELS") or "saved_models")


def _from_folder(folder: pathlib.Path, tried: tuple[str, ...]) -> Resolved:
    tried = tried[: tried.index(str(folder)) + 1]
    name = folder.absolute().name
    check_lock(folder)
    if not is_saved_model(folder):
        if (folder / "config.json").exists():
            return Resolved(name=name, preset=str(folder), tried=tried)
        versions = [int(path.name) for path in folder.iterdir() if _is_version(path)]
        if not versions:
            raise SourceError(explain_folder(folder))
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
    """The card in a folder; what it says relative to the folder becomes a full path."""
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
    # Kaggle first: since 2023 tfhub.dev has been no more than a redirect to it, and
    # one that fails at times (tensorflow/hub#932).
    # But what was fetched before comes before both.
    kept = [url for url in card_urls(card) if cached_url(url) is not None]
    if not kept and not card.preset:
        refuse_network(f"The encoder {card.name!r}")
    failures = []
    for url in kept[:1] or card_urls(card):
        try:
            folder = fetch_url(url, verbose=verbose)
        except SourceError as error:
            failures.append(str(error).removesuffix(OFFLINE).strip())
            continue
        return Resolved(name=card.name, path=folder, card=card, tried=(url,))
    if card.preset:
        tried = (*card_urls(card), f"preset://{card.preset}")
        return Resolved(name=card.name, preset=card.preset, card=card, tried=tried)
    raise SourceError(
        f"The encoder {card.name!r} could not be fetched. Tried:\n  "
        + "\n  ".join(failures)
        + f"\n{OFFLINE}"
    )


def card_urls(card: Card) -> tuple[str, ...]:
    """Returns the addresses at which a card's encoder should be, best first."""
    urls = []
    if card.kaggle:
        # Page addresses spell the framework with a capital.
        path = card.kaggle.replace("/tensorFlow2/", "/TensorFlow2/")
        urls.append(f"https://www.kaggle.com/models/{path}")
    if card.tfhub:
        urls.append(f"https://tfhub.dev/{card.tfhub}")
    return tuple(urls)


def _card_of(address: str) -> Card | None:
    """Finds the card of an address, whatever the version at its end."""
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
    """Returns the last part of an address that is more than a version."""
    parts = [part for part in address.partition("?")[0].split("/") if part]
    telling = [part for part in parts if not part.isdecimal()]
    return (telling or parts or ["encoder"])[-1]


def _not_found(text: str, folder: pathlib.Path, shelf: pathlib.Path) -> str:
    if folder.is_file():
        return f"{folder} is a file, and a source is a folder. " + (
            "Load it with keras.saving.load_model and give the model."
            if folder.suffix in (".keras", ".h5")
            else "Unpack it first if it is an archive; .tar and .tar.gz are taken."
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
