"""A hook of mkdocs: pages that live beside what they describe join the site where they are.

Every page of the navigation that ``docs`` does not hold is taken from the repository at that path,
and whatever files such a page links to (configs, results, pictures) come with it. So a README is
written once, and its links work on the site as they do in the checkout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's pages and what they link to."""
    waiting = [path for path in _pages(config.nav) if files.get_file_from_path(path) is None]
    while waiting:
        path = waiting.pop()
        source = ROOT / path
        if files.get_file_from_path(path) is not None or not source.is_file():
            continue  # mkdocs itself tells of a page or a link that leads nowhere
        files.append(File.generated(config, path, abs_src_path=str(source)))
        if path.endswith(".md"):
            waiting += _linked(path, source.read_text(encoding="utf-8"))
    return files


def _pages(nav: object) -> Iterator[str]:
    """Paths of the navigation, whichever way they are nested."""
    if isinstance(nav, str):
        yield nav
    for item in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from _pages(item)


def _linked(page: str, text: str) -> Iterator[str]:
    """Files of the repository that a page links to, relative to its root."""
    for target in _LINK.findall(text):
        if "://" in target or target.startswith("/"):
            continue
        parts: list[str] = []
        for part in (PurePosixPath(page).parent / target).parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        yield "/".join(parts)
