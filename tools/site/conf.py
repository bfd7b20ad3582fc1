"""How Sphinx builds the site: `make site`. Not here: the order of the pages (`contents`)."""

from __future__ import annotations

from sphinx.application import Sphinx

import segue
from tools.site.contents import hidden_contents

project = "segue"
author = "The segue contributors"
release = segue.__version__
extensions = ["myst_parser", "sphinxcontrib.mermaid", "sphinx_copybutton"]
root_doc = "index"
html_theme = "furo"
html_title = f"segue {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
#: Links lead to headings as they do where the files are read; tables of results repeat headings below others.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["myst.header"]
nitpicky = True
#: What a reader copies from a terminal's text is what they type.
copybutton_prompt_text = "$ "


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Give the start page its tables of contents."""
    if name == app.config.root_doc:
        source[0] = hidden_contents(source[0])


def setup(app: Sphinx) -> None:
    """Connect what above is a function."""
    app.connect("source-read", add_contents)
