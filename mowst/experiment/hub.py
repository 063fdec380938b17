"""Classifiers on the Hugging Face hub, by `huggingface_hub`, which need not be installed for anything else.

What its `ModelHubMixin` pushes is the folder that `mowst.experiment.whole` writes. Nothing is fetched unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mowst.errors import InputError
from mowst.experiment.whole import FILES


@contextmanager
def hub(name: str) -> Iterator[Any]:
    """Give `huggingface_hub`, and say in a line what goes wrong with it.

    Raises:
        InputError: it is not installed, or refuses what is asked of it.
    """
    try:
        import huggingface_hub
    except ImportError:
        why = "is no folder here, and the Hugging Face hub needs huggingface_hub"
        raise InputError(f"{name}: {why}: pip install 'mowst[hub]'") from None
    try:
        yield huggingface_hub
    except InputError:
        raise
    except Exception as error:  # of the network, and of whoever answers: anything
        raise InputError(f"{name}: the Hugging Face hub: {type(error).__name__}: {error}") from None


def pushed(write: Callable[[Path], object], repo_id: str, **options: Any) -> str:
    """Push the folder that `write` writes to a repository of the hub, and return the address of the commit.

    Args:
        write: writes a folder.
        repo_id: name/model.
        options: of `ModelHubMixin.push_to_hub`, such as private, token, commit_message, branch.

    Raises:
        InputError: the hub refuses it or is not there, or `huggingface_hub` is not installed.
    """
    with hub(repo_id) as library:
        mixin: Any = library.ModelHubMixin

        class Shared(mixin):
            """What the mixin pushes."""

            def _save_pretrained(self, save_directory: Path) -> None:
                write(save_directory)

        return str(Shared().push_to_hub(repo_id, **options))


def fetched(name: str, *, download: bool = False, **options: Any) -> Path:
    """Return the folder of a model of the hub: what was fetched before, and if asked for, fetched now.

    Args:
        name: name/model.
        download: whether the network may be used.
        options: of `huggingface_hub.snapshot_download`, such as revision, token, cache_dir.

    Raises:
        InputError: it is not there, or `huggingface_hub` is not installed.
    """
    with hub(name) as library:
        if not download:
            try:
                return Path(library.snapshot_download(name, local_files_only=True, allow_patterns=FILES, **options))
            except library.errors.LocalEntryNotFoundError:
                raise InputError(
                    f"{name}: is no folder here, and was not fetched before; download=True fetches it from the hub"
                ) from None
        return Path(library.snapshot_download(name, allow_patterns=FILES, **options))
