"""Sphinx configuration: plain Markdown pages."""

project = "epicsx"
author = "the epicsx developers"
project_copyright = "the epicsx developers"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "alabaster"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
