"""Card templates, and the one function that fills them in."""

import hashlib
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).parent
CITATION = """## Citation

```bibtex
@article{jeon2026spatialboost,
  title   = {SpatialBoost: Enhancing Visual Representation through Language-Guided Reasoning},
  author  = {Jeon and Kim and Jang and Kim and Shin},
  journal = {arXiv preprint arXiv:2603.22057},
  year    = {2026}
}
@software{spatialboost_toolkit,
  title   = {SpatialBoost: an open toolkit for language-guided 3D reasoning in vision encoders},
  author  = {{The SpatialBoost toolkit contributors}},
  version = {0.1.0},
  year    = {2026}
}
```

The paper's authors have no part in this toolkit, and no official code or weights of theirs are in it."""
NOT_MEASURED = (
    "Not measured. Compare it with its base by `spatialboost evaluate` before you rely on it; `spatialboost publish "
    "--results`\nputs a full run's figures here."
)
DINOV3_LICENCE = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"


def licence_data(base: str | None) -> dict[str, Any]:
    """The card's metadata about the licence of weights that derive from `base`, an id of the Hub."""
    if is_dinov3(base):
        return {"license": "other", "license_name": "dinov3-license", "license_link": DINOV3_LICENCE}
    return {"license": "other"}


def licence_chain(base: str | None, model_type: str, parts: str) -> str:
    """What follows from the licences of all that went into a model, as Markdown.

    Args:
        base: id of the base encoder on the Hub; None = it came from a folder.
        model_type: of the base, such as "dinov3_vit".
        parts: what of this repository derives from the base, such as "All weights here".
    """
    name = f"[{base}](https://huggingface.co/{base})" if base else f"the base encoder, a {model_type} from a folder"
    lines = [
        "* The code is Apache-2.0. The weights are not covered by that.",
        f"* {parts} derive from {name}, and stay under its licence.",
    ]
    if model_type.startswith("dinov3"):
        whose = "Its" if is_dinov3(base) else "If the base holds weights that Meta released: their"
        lines.append(
            f"* {whose} [DINOv3 License]({DINOV3_LICENCE}) is not Apache. As summaries of it say: hand the "
            'weights on only under that same licence,\n  with a copy of it and the words "Built with DINOv3"; read it '
            "yourself, this is no legal advice."
        )
    return "\n".join([*lines, "* The data keep the licences of their sources: see their own card."])


def weights_digest(folder: str | Path) -> str:
    """SHA-256 over a folder's safetensors, by which a report is known to speak of them; "" where there are none."""
    digest, files = hashlib.sha256(), sorted(Path(folder).glob("*.safetensors"))
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest() if files else ""


def is_dinov3(base: str | None) -> bool:
    """Whether an id of the Hub names weights under the DINOv3 License."""
    return base is not None and base.startswith("facebook/dinov3-")


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
