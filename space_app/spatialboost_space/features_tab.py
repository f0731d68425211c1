"""What the encoders see: principal components of patch features, and alpha per layer."""

from typing import Any

import gradio as gr
import pandas
from PIL import Image

from spatialboost_space import models
from spatialboost_space.errors import endpoint, friendly, missing
from spatialboost_space.examples import files
from spatialboost_space.pictures import enlarge, principal_colours
from spatialboost_space.uploads import image_input, needed


def features(image: str | None) -> tuple[Image.Image, Image.Image]:
    """Patch features of the base and of the boosted encoder, as colours.

    Args:
        image: a PNG, JPEG or WebP.

    Returns:
        Two pictures, base and boosted: the first three principal components of the patch features as red, green and
        blue, in one basis for both, so that equal colours mean equal features.
    """
    return _pictures(needed(image))


def _pictures(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    maps = [models.patch_features(part, image) for part in ("depth_base", "depth_boosted")]
    base, boosted = principal_colours(*maps)
    return enlarge(base, image.size), enlarge(boosted, image.size)


def show_features(image: str | None) -> tuple[tuple[Image.Image, Image.Image], str]:
    """What the page shows: both pictures under a slider, and a sentence."""
    opened = needed(image)
    height, width, channels = models.patch_features("depth_base", opened).shape
    return _pictures(opened), f"{height} x {width} patches of {channels} numbers each."


def follow_image(image: str | None) -> tuple[Any, str]:
    """`show_features` of a new image, nothing where it was taken away."""
    return (None, "") if image is None else show_features(image)


def alpha() -> list[dict[str, float]]:
    """The mix of the two attention channels in each layer of the boosted encoder.

    Returns:
        Per layer the mean, least and largest alpha; output = alpha * Attn + (1 - alpha) * Attn_plus.
    """
    return [
        {key: round(value, 4) if key != "layer" else int(value) for key, value in row.items()}
        for row in models.alpha_table()
    ]


def show_alpha() -> tuple[gr.BarPlot, pandas.DataFrame]:
    """The plot and the table of alpha."""
    rows = pandas.DataFrame(alpha(), columns=["layer", "mean", "min", "max"])
    plot = rows.assign(layer=rows["layer"].astype(str)).rename(columns={"mean": "alpha"})
    return gr.BarPlot(plot), rows


def build() -> None:
    """Lay out the tab."""
    missing("depth_base", "depth_boosted")
    gr.Markdown(
        "The first three principal components of the patch features as red, green and blue, found over both encoders "
        "together: equal colours mean equal features."
    )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            image = image_input(label="Image", elem_id="features_image", height=320)
            run = gr.Button("Show features", variant="primary", elem_id="features_run")
            gr.Examples([[file] for file in files()], [image], label="Examples", elem_id="features_examples")
        with gr.Column(min_width=280, scale=2):
            maps = gr.ImageSlider(
                label="Left of the line: base. Right of it: boosted.", elem_id="features_maps", format="png"
            )
            summary = gr.Markdown(elem_id="features_summary")
    gr.Markdown("### Alpha per layer\n`alpha * Attn(x) + (1 - alpha) * Attn_plus(x)`: 0.5 is where training starts.")
    read = gr.Button("Read alpha", elem_id="alpha_run")
    with gr.Row(equal_height=False):
        plot = gr.BarPlot(
            x="layer",
            y="alpha",
            y_lim=[0, 1],
            x_title="layer",
            y_title="mean alpha",
            height=240,
            elem_id="alpha_plot",
            label="Mean alpha per layer",
        )
        table = gr.Dataframe(label="Alpha per layer", interactive=False, elem_id="alpha_table")
    shown = [maps, summary]
    run.click(friendly(show_features), [image], shown, api_visibility="private", concurrency_id="compute")
    image.change(friendly(follow_image), [image], shown, api_visibility="private", concurrency_id="compute")
    read.click(friendly(show_alpha), None, [plot, table], api_visibility="private")
    with gr.Column(visible=False):
        endpoint(
            features,
            [image],
            [gr.Image(label="base", format="png"), gr.Image(label="boosted", format="png")],
            "features",
        )
        endpoint(alpha, [], [gr.JSON(label="alpha per layer")], "alpha")
