"""Files from elsewhere, read without running what is in them; files of ours, written whole.

A path in an annotation file cannot leave the folder it is meant for, a weights file is data and
never code, and a reader never sees the half of a file that was being written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import IO, Any

import torch
from torch import Tensor

from segroi.utils.suggest import UsageError, existing_file

SAFETENSORS = ".safetensors"
_CONTENT = "segroi"  # key of safetensors' metadata that holds everything but the tensors


class PathError(UsageError):
    """A file name that leads out of its folder."""


class UnreadableFile(UsageError):
    """A weights file that is damaged, or none, or would have to be executed."""


def inside(folder: str | Path, name: str) -> Path:
    """The path of ``name`` under ``folder``.

    Names are compared as they are written: links that the user placed in the folder are followed,
    ``..`` never leads through one.

    Args:
        folder: folder that the name is relative to.
        name: file name out of a file that others wrote.

    Raises:
        PathError: it is absolute or leads out of the folder.
    """
    below = Path(os.path.normpath(name))
    strange = "\0" in name or "\\" in name and ".." in PureWindowsPath(name).parts
    if strange or below.is_absolute() or ".." in below.parts or not below.parts:
        raise PathError(f"{name!r} leads out of the folder {folder}")
    return Path(folder) / below


@contextlib.contextmanager
def atomic_write(
    path: str | Path, mode: str = "wb", previous: Path | None = None
) -> Iterator[IO[Any]]:
    """Open a draft that takes the place of ``path`` when all of it is on the disk.

    Args:
        path: file to write or to replace.
        mode: "wb", or "w" for text.
        previous: where the file that is replaced goes; it is gone without.

    Raises:
        UsageError: the disk is full or the folder cannot be written; the old file is still there.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeErrors on a full disk
        kept = " (the previous file is unharmed)" if path.exists() else ""
        raise UsageError(f"{path} cannot be written: {error}{kept}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path: str | Path, wanted: str) -> None:
    """Raise a UsageError unless the file has that SHA-256; nothing is wanted of ""."""
    if not wanted:
        return
    path = existing_file(path, "weights file")
    found = sha256(path)
    if found != wanted.strip().lower():
        raise UsageError(f"{path} is not the file that was asked for: its SHA-256 is {found}")


def digest_file(path: str | Path) -> Path:
    """Where the SHA-256 of a file is noted, as ``sha256sum`` does."""
    return Path(f"{path}.sha256")


def write_digest(path: str | Path) -> None:
    """Note the SHA-256 of a file beside it; ``sha256sum -c`` reads it too."""
    with atomic_write(digest_file(path), "w") as file:
        file.write(f"{sha256(path)}  {Path(path).name}\n")


def read_weights(path: str | Path) -> Any:
    """Read a ``.pth`` or ``.safetensors`` file; code in it is never run.

    Returns:
        What was saved. Of a ``.safetensors`` file: the tensors under "state_dict" beside what
        ``write_safetensors`` was given, or the tensors alone in a file of others.

    Raises:
        UnreadableFile: the file is damaged, no weights, or wants to execute something.
    """
    path = existing_file(path, "weights file")
    noted = digest_file(path)
    if noted.exists() and sha256(path) != noted.read_text().partition(" ")[0].strip():
        raise UnreadableFile(
            f"weights file {path} is not the one that {noted} is of: it was changed, or only a "
            "part of it was copied"
        )
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds on files that are not its own
        raise UnreadableFile(f"weights file {path} cannot be read: {_reason(error)}") from error


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]
) -> None:
    """Write tensors, and plain data beside them, as a ``.safetensors`` file.

    Args:
        path: file to write or to replace.
        tensors: what to store.
        content: plain data; goes as JSON into the file's metadata.
    """
    save = _safetensors("torch").save
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_write(path) as file:
        file.write(save(whole, metadata={_CONTENT: json.dumps(dict(content))}))


def _read_safetensors(path: Path) -> dict[str, Any]:
    library = _safetensors()
    try:
        with library.safe_open(path, framework="pt") as file:
            content = (file.metadata() or {}).get(_CONTENT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if content is None:
            return tensors
        plain = json.loads(content)
        return {**plain, "state_dict": tensors}
    except (library.SafetensorError, OSError, ValueError, TypeError) as error:
        raise UnreadableFile(f"weights file {path} cannot be read: {error}") from error


def _safetensors(part: str = "") -> Any:
    import importlib

    try:
        return importlib.import_module(f"safetensors.{part}".rstrip("."))
    except ImportError as error:
        text = "safetensors files need the package: pip install safetensors"
        raise UsageError(text) from error


def _reason(error: Exception) -> str:
    text = str(error)
    if "weights_only" in text or "Unsupported global" in text or "Unsupported operand" in text:
        # torch's own advice is to switch the protection off.
        detail = next((line.strip() for line in text.splitlines() if "GLOBAL" in line), "")
        return f"it wants more than tensors and plain data. {detail}".strip()
    return text.partition("\n")[0]
