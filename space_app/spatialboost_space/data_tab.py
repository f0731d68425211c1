"""Browse a reasoning data set: the images of a row, its turns, and what each turn speaks of, drawn."""

from typing import Any

import gradio as gr

from spatialboost_space.ask_tab import Chat, as_chat
from spatialboost_space.board import mark_board, pictures_of
from spatialboost_space.data import choices, read_row, source_or_default, turn_marks, turns_of
from spatialboost_space.errors import endpoint, friendly, missing
from spatialboost_space.settings import limits
from spatialboost_space.uploads import read_image

ALL_TURNS = "all turns"


def open_if_needed(source: str, choice: str | None) -> Any:
    """Fill the choice of configuration and split where it is empty."""
    if choice:
        return gr.skip()
    found = choices(source_or_default(source))
    return gr.Dropdown(choices=found, value=found[0])


def show_row(source: str, choice: str | None, index: float) -> tuple[Any, Chat, Any, str, dict[str, Any]]:
    """A row: the board, the dialogue, the turns to choose from, a sentence, and what the turns speak of."""
    source = source_or_default(source)
    row, total = read_row(source, choice or choices(source)[0], int(index or 0))
    images = [read_image(image["bytes"]) for image in row["images"][: limits().images]]
    turns = turns_of(row)
    marks = {ALL_TURNS: turn_marks(row)}
    if len(row.get("turns") or []) == len(turns):
        marks |= {f"turn {place + 1}": list(turn_marks(row, place)) for place in range(len(turns))}
    board = gr.HTML(value=[], pictures=pictures_of(images), spoken=marks[ALL_TURNS])
    facts = [f"row {int(index or 0)} of {total}", f"{len(turns)} turns", row.get("source"), row.get("licence")]
    return (
        board,
        as_chat(turns),
        gr.Radio(choices=list(marks), value=ALL_TURNS),
        ", ".join(str(fact) for fact in facts if fact),
        marks,
    )


def show_turn(turn: str, marks: dict[str, Any]) -> Any:
    """Draw what one turn speaks of, or all."""
    return gr.HTML(spoken=(marks or {}).get(turn, []))


def data_row(source: str = "", choice: str = "", index: int = 0) -> dict[str, Any]:
    """A row of a spatial reasoning data set: its dialogue and the points and objects that each turn speaks of.

    Args:
        source: id of a public data set on the Hub; empty for the one of this Space.
        choice: "config / split", such as "single_view / train"; empty for the first.
        index: of the row, from 0.

    Returns:
        The number of rows, and the turns, each with question, answer and marks (image, x, y and for boxes x1, y1).
    """
    source = source_or_default(source)
    row, total = read_row(source, choice or choices(source)[0], int(index or 0))
    known = len(row.get("turns") or [])
    turns = [
        {"question": asked, "answer": answered, "marks": turn_marks(row, place) if place < known else []}
        for place, (asked, answered) in enumerate(turns_of(row))
    ]
    return {"rows": total, "choices": choices(source), "id": row.get("id"), "turns": turns}


def build() -> None:
    """Lay out the tab."""
    missing("data")
    gr.Markdown("The dialogues that the encoder learned from. Choose a turn to see on the image what it speaks of.")
    with gr.Row():
        source = gr.Textbox(
            "", label="Data set: a public id on the Hub, or empty for this Space's own", elem_id="data_source"
        )
        choice = gr.Dropdown([], label="Configuration and split", elem_id="data_choice", allow_custom_value=True)
        index = gr.Number(0, label="Row", precision=0, minimum=0, elem_id="data_index")
    with gr.Row():
        show = gr.Button("Show", variant="primary", elem_id="data_show", min_width=80)
        before = gr.Button("Previous", elem_id="data_before", min_width=80)
        after = gr.Button("Next", elem_id="data_after", min_width=80)
    summary = gr.Textbox(label="This row", interactive=False, elem_id="data_summary")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            board = mark_board("Images of the row", "data_board", "", readonly=True)
            turn = gr.Radio([ALL_TURNS], value=ALL_TURNS, label="Draw", elem_id="data_turn")
        with gr.Column(min_width=280, scale=2):
            chat = gr.Chatbot(
                label="Dialogue",
                render_markdown=False,
                height=560,
                elem_id="data_chat",
                autoscroll=False,
                buttons=["copy"],
            )
    marks = gr.State({})
    row: dict[str, Any] = {
        "fn": friendly(show_row),
        "inputs": [source, choice, index],
        "outputs": [board, chat, turn, summary, marks],
        "api_visibility": "private",
        "concurrency_id": "compute",
    }
    quick: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    source.change(lambda: gr.Dropdown(choices=[], value=None), None, [choice], **quick)
    gr.on(
        [show.click, index.submit, source.submit], friendly(open_if_needed), [source, choice], [choice], **quick
    ).then(**row)
    before.click(lambda number: max(0, int(number or 0) - 1), [index], [index], **quick).then(**row)
    after.click(lambda number: int(number or 0) + 1, [index], [index], **quick).then(**row)
    turn.change(show_turn, [turn, marks], [board], show_progress="hidden", **quick)
    with gr.Column(visible=False):
        named = gr.Textbox(label="configuration and split")  # any: the choices of the page are not known yet
        endpoint(data_row, [source, named, index], [gr.JSON(label="row")], "data_row")
