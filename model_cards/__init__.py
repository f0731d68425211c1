"""Card templates, and the one function that fills them in."""

from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent
CITATION = """## Citation

```bibtex
@article{jeon2026spatialboost,
  title   = {SpatialBoost: Enhancing Visual Representation through Language-Guided Reasoning},
  author  = {Jeon and Kim and Jang and Kim and Shin},
  journal = {arXiv preprint arXiv:2603.22057},
  year    = {2026}
}
```"""


def render(template_name: str, **values: object) -> str:
    """Fill in a template of this folder.

    Args:
        template_name: file name without ".md", such as "dataset_card".
        **values: one for every `$name` in the template; `$$` stands for a dollar sign.

    Raises:
        ValueError: there is no such template, or a value is missing or superfluous; names it.
    """
    file = FOLDER / f"{template_name}.md"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.md")))
        raise ValueError(f"template_name={template_name!r} is unknown: choose one of {known}.")
    template = Template(file.read_text(encoding="utf-8"))
    differing = sorted(set(template.get_identifiers()) ^ set(values))
    if differing:
        raise ValueError(f"values for template {template_name!r} are missing or superfluous: {', '.join(differing)}.")
    return template.substitute(values)
