"""Sphinx configuration: Markdown pages, and a reference made from the docstrings."""

from epicsx import __version__

project = "epicsx"
author = "the epicsx developers"
project_copyright = "the epicsx developers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = f"epicsx {release}"
html_static_path = ["_static"]

autodoc_typehints = "none"  # the docstrings say types, shapes and units
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
nitpicky = False
