"""Pages of the site that do not lie in docs/: README and the other pages of the repository's root.

Links are written as they work in the repository, and lead to pages of the site here.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "LOG.md": "log.md",
    "CITATION.cff": "CITATION.cff",
}
"""File in the repository's root -> its page of the site."""
HISTORY = ("log.md", "changelog.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root."""
    for source, page in ROOT_PAGES.items():
        text = (Path(config.docs_dir).parent / source).read_text()
        files.append(File.generated(config, page, content=_with_site_links(text, folder="", page=page)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of a page of docs/ to the root lead to the site's page, and lists begin where they do elsewhere."""
    if page.file.src_uri in HISTORY:
        page.meta["search"] = {"boost": 0.2}  # below the pages that say how it is today
    if page.file.src_uri not in ROOT_PAGES.values():
        folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
        markdown = _with_site_links(markdown, folder=folder, page=page.file.src_uri)
    return _with_lists_apart(markdown)


def _with_site_links(text: str, *, folder: str, page: str) -> str:
    """Replace links, relative to a folder of the repository, by links relative to a page of the site."""

    def replace(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if "://" in target or not target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        path = ROOT_PAGES.get(path, path.removeprefix("docs/"))
        return f"]({posixpath.relpath(path, posixpath.dirname(page) or '.')}{anchor})"

    return re.sub(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", replace, text)


def _with_lists_apart(text: str) -> str:
    """Put an empty line before each list and table: the site's Markdown needs it, GitHub's does not."""
    item, lines, fenced = re.compile(r"[*-] |\d+\. |\|"), [""], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        before = lines[-1]
        if not fenced and item.match(line) and before and not item.match(before) and not before.startswith(" "):
            lines.append("")
        lines.append(line)
    return "\n".join(lines[1:])
