"""Configuration of the documentation: ``sphinx-build -W --keep-going docs build/site`` makes ``build/site/index.html``.

The build runs every example on its pages. Neither the build nor the site uses the network.
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
# The extensions are programs, not pages.
exclude_patterns = ["extensions", "images"]
templates_path = ["_templates"]

# ---- with -W, every warning ends the build -------------------------------------------------------------------

nitpicky = True
nitpick_ignore_regex = [
    # Python's exceptions: without the network there is no index of Python's documentation.
    ("py:class", "(Exception|ValueError|RuntimeError|FloatingPointError)"),
]

# ---- pages whose files are elsewhere in the repository -------------------------------------------------------

mirrored_pages = {
    "tutorial.ipynb": "examples/ten_minutes.ipynb",
    "examples.md": "examples/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
}
# Pages that replace other documents of the repository as targets of links.
mirrored_targets = {"README.md": "index.md"}

# ---- examples ------------------------------------------------------------------------------------------------

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
# A cell that writes a warning to stderr is an error.
nb_output_stderr = "error"

# ---- pages ---------------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "substitution"]
myst_heading_anchors = 4
# Generated from the contract, so that it is complete.
myst_substitutions = {
    "activations": "\n".join(
        ["| name | formula |", "|---|---|", *(f"| `{name}` | `{kind.formula}` |" for name, kind in ACTIVATIONS.items())]
    )
}

# ---- the API -------------------------------------------------------------------------------------------------

default_role = "code"
autosummary_generate = True
# The docstrings describe the types.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# scikit-learn generates and documents these methods for every estimator.
autodoc_default_options = {
    "exclude-members": "set_fit_request, set_partial_fit_request, set_predict_request, set_score_request"
}
# Inherited members are documented on the page of the base class.
autodoc_inherit_docstrings = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
# Link our own names only; there is no index of Python's and NumPy's names.
numpydoc.xref.DEFAULT_LINKS.clear()
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {name: f"nnbackend.{name}" for name in nnbackend.__all__ if name[0].isupper()}
# The numpydoc rules that our docstrings follow (https://numpydoc.readthedocs.io/en/latest/validation.html). Other rules
# require sections where one line is enough.
numpydoc_validation_checks = {
    *("GL01", "GL03", "GL05", "GL06", "GL07", "GL08", "GL09", "GL10"),
    *("SS01", "SS02", "SS03", "SS04", "PR02", "PR05", "PR06", "PR09", "PR10", "RT04", "RT05"),
}
# Python writes the docstrings of the fields of a named tuple.
numpydoc_validation_exclude = {r"\.LearningRates\.(suggestion|rates|losses)$"}

# ---- appearance ----------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "nnbackend"
html_static_path = ["_static"]
html_css_files = ["nnbackend.css"]
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Pages without subpages have no sidebar.
html_sidebars = {page: [] for page in ("tutorial", "design", "examples", "contributing", "changes")}
html_favicon = "_static/favicon.svg"
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div.highlight-python pre, div.highlight-ipython3 pre, div.highlight-sh pre"
linkcheck_anchors = False
