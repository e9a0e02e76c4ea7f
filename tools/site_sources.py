"""Puts the files that the documentation links to, outside `docs/`, onto its site as pages.

A hook of MkDocs. `[default.py](../configs/default.py)` leads to the file on GitHub, where this
would be a link out of the site; here it leads to a page that shows the file.
"""

import pathlib
import re
from typing import Any

_ROOT = pathlib.Path(__file__).parents[1]
_LINK = re.compile(r'\]\(\.\./([^)\s#]+)\)')
_LANGUAGES = {'.sbatch': 'bash', '.sh': 'bash', '.py': 'python', '.yaml': 'yaml', '.json': 'json'}
_MOST_CHARACTERS = 40_000  # of a page


def on_files(files: Any, config: Any) -> Any:
    """Adds a page for each file or folder that a page links to."""
    from mkdocs.structure.files import File, InclusionLevel

    pages = [file for file in files if file.is_documentation_page()]
    links = {link for page in pages for link in _LINK.findall(page.content_string)}
    for link in sorted(links):
        target = (_ROOT / link).resolve()
        if not target.exists():
            continue  # MkDocs names it
        page = File.generated(config, _page_of(link), content=_show(link, target))
        page.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links to files outside `docs/` into links to their pages."""

    def replace(match: re.Match) -> str:
        name = _page_of(match[1])
        return f']({name})' if files.get_file_from_path(name) else match[0]

    return _LINK.sub(replace, markdown)


def _page_of(link: str) -> str:
    return f'source/{link.strip("/")}.md'


def _show(link: str, target: pathlib.Path) -> str:
    head = f'---\ntitle: {link}\nsearch:\n  exclude: true\n---\n\n# {link}\n\n'
    if target.is_dir():
        return head + ''.join(f'- `{path.name}`\n' for path in sorted(target.glob('[!_.]*')))
    text = target.read_text()
    if len(text) > _MOST_CHARACTERS:
        text = text[:_MOST_CHARACTERS] + '\n…'
    return f'{head}````{_LANGUAGES.get(target.suffix, "text")}\n{text}\n````\n'
