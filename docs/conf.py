"""How the documentation is built: ``sphinx-build -W --keep-going docs build/site`` makes ``build/site/index.html``.

Every example on its pages runs meanwhile. Neither the build nor what it makes needs a network.
"""

import sys
from pathlib import Path

import numpydoc.xref

import nnbackend
from nnbackend.backends.activations import ACTIVATIONS

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "nnbackend"
copyright = "nnbackend's contributors"
version = release = nnbackend.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    # Ours, in extensions/.
    "mirrored",
    "stars",
    "dashboard",
]
# pictures.py and the extensions are programs, and what they leave behind is no page.
exclude_patterns = ["extensions", "images"]
templates_path = ["_templates"]

# ---- what is wrong ends the build (with -W) ------------------------------------------------------------------

nitpicky = True
nitpick_ignore_regex = [
    # Python's own, of whose names a build without a network has no index.
    ("py:class", "(Exception|ValueError|RuntimeError|FloatingPointError)"),
]

# ---- pages that stand elsewhere in the repository, where people also read them -------------------------------

mirrored_pages = {
    "tutorial.ipynb": "examples/ten_minutes.ipynb",
    "examples.md": "examples/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
}
# What a link to another of the repository's documents leads to here.
mirrored_targets = {"README.md": "index.md"}
repository_url = "https://github.com/nnbackend/nnbackend"

# ---- examples ------------------------------------------------------------------------------------------------

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
# A warning of a cell, too, is an error.
nb_output_stderr = "error"

# ---- pages ---------------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "substitution"]
myst_heading_anchors = 4
# Written from the contract itself, so that it is complete.
myst_substitutions = {
    "activations": "\n".join(
        ["| name | formula |", "|---|---|", *(f"| `{name}` | `{kind.formula}` |" for name, kind in ACTIVATIONS.items())]
    )
}

# ---- the API -------------------------------------------------------------------------------------------------

default_role = "code"
autosummary_generate = True
# Types stand in the docstrings, in words.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# scikit-learn makes these for every estimator, and its own pages tell of them.
autodoc_default_options = {"exclude-members": "set_fit_request, set_partial_fit_request, set_score_request"}
# What a class has from its base is told there.
autodoc_inherit_docstrings = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
# Our names become links; those of Python and NumPy would lead to an index that is not there.
numpydoc.xref.DEFAULT_LINKS.clear()
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {name: f"nnbackend.{name}" for name in nnbackend.__all__ if name[0].isupper()}
# Those of numpydoc's rules that our docstrings keep (https://numpydoc.readthedocs.io/en/latest/validation.html). Others
# ask for sections where a line says it all.
numpydoc_validation_checks = {
    *("GL01", "GL03", "GL05", "GL06", "GL07", "GL08", "GL09", "GL10"),
    *("SS01", "SS02", "SS03", "SS04", "PR02", "PR05", "PR06", "PR09", "PR10", "RT04", "RT05"),
}

# ---- how it looks --------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "nnbackend"
html_static_path = ["_static"]
html_css_files = ["nnbackend.css"]
html_theme_options = {
    "github_url": repository_url,
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Pages without pages below them.
html_sidebars = {page: [] for page in ("tutorial", "design", "examples", "contributing", "changes")}
html_favicon = "_static/favicon.svg"
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div.highlight-python pre, div.highlight-ipython3 pre, div.highlight-sh pre"
linkcheck_anchors = False
