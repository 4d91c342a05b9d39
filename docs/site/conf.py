"""How Sphinx builds the site from the sources that `tools.site` writes."""

from docutils import nodes

project = "Speech emotion recognition on voices never heard"
extensions = ["nbsphinx", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_extra"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Notebooks that test on people whom the network has never heard",
    "fixed_sidebar": True,
    "page_width": "1170px",
    "sidebar_width": "200px",
    "show_relbars": False,
}
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_title = project
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures stay short; docstrings give shapes and units
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
nbsphinx_execute = "never"
nbsphinx_requirejs_path = ""
nbsphinx_widgets_path = ""
suppress_warnings = ["config.cache"]


def describe_figures(app, doctree, name):
    """Give every figure that has no text of its own the page's title and the heading above it."""
    title = next(iter(doctree.findall(nodes.title)), None)
    for image in doctree.findall(nodes.image):
        if not image.get("alt") or image["alt"] == image.get("uri"):
            parts = [title.astext() if title else project]
            section = image.parent
            while section is not None and not isinstance(section, nodes.section):
                section = section.parent
            if section is not None and section[0].astext() != parts[0]:
                parts.append(section[0].astext())
            image["alt"] = "Figure: " + ", ".join(parts)


def setup(app):
    """Connect the above."""
    app.connect("doctree-resolved", describe_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
