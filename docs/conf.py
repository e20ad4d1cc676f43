"""The pages, as Sphinx builds them: strict, from this tree alone, readable without a network."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from casemate import __version__  # noqa: E402 - the path comes first.

project = "casemate"
author = "the casemate authors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docs.generate.weave",
]
exclude_patterns = ["generate", "systemd"]

# Two hyphens are an option, not a dash.
smartquotes = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# A single backtick is code, as in every comment of the tree; where it names something it leads to
# it.
default_role = "py:obj"
# Code that could name two things names none; it stays code.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autoclass_content = "both"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = f"casemate {version}"
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
# Nothing from elsewhere: no fonts, scripts or trackers, so that the pages work beside a broker
# that has no way out.
html_theme_options: dict[str, object] = {"footer_icons": [], "top_of_page_buttons": []}
