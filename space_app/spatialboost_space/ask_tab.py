"""Chat about one or several images, with points and regions."""

from collections.abc import Iterator
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from spatialboost_space import models
from spatialboost_space.board import mark_board, pictures_of
from spatialboost_space.errors import Refusal, endpoint, friendly, missing
from spatialboost_space.examples import examples
from spatialboost_space.marks import (
    conversation,
    declarations,
    mention,
    named_points,
    on_grid,
    read_marks,
    spoken_marks,
)
from spatialboost_space.settings import limits
from spatialboost_space.uploads import ENDINGS, as_data_url, read_file

HELP = "Click for a point, drag for a region. Keyboard: arrow keys and Enter, or R at two corners."
Turn = tuple[str, str]
Chat = list[dict[str, Any]]


def open_images(paths: list[str] | None) -> list[Image.Image]:
    """The uploaded images, checked.

    Raises:
        Refusal: there are none or too many, or one is refused.
    """
    if not paths:
        raise Refusal("Give one or several images first, or choose an example.")
    if len(paths) > limits().images:
        raise Refusal(f"{len(paths)} images: {limits().images} are the limit.")
    return [read_file(path) for path in paths]


def check_question(question: str, turns: list[Turn]) -> str:
    """The question without blanks around it.

    Raises:
        Refusal: it is empty or too long, or the conversation is.
    """
    question = (question or "").strip()
    if not question:
        raise Refusal("Write a question first.")
    if len(question) > limits().question_characters:
        raise Refusal(f"The question has {len(question)} characters; {limits().question_characters} are the limit.")
    if len(turns) >= limits().turns:
        raise Refusal(f"The conversation has {len(turns)} turns, which is the limit: clear it or undo some.")
    return question


def show_images(paths: list[str] | None) -> tuple[Any, Any, list[Turn], Chat]:
    """Show new images on the board and begin a new conversation."""
    images = open_images(paths) if paths else []
    board = gr.HTML(value=[], pictures=pictures_of(images), spoken=[], grid=models.image_grid())
    return board, paths or [], [], []


def show_example(file: str, question: str) -> tuple[Any, Any, list[Turn], Chat, None, str]:
    """Show an example picture, and put its question into the text box."""
    return (*show_images([file]), None, question)


def steps_of(question: str, num_images: int) -> list[str]:
    """The questions that lead to an answer turn by turn: the depth at each point that it names, then itself."""
    points = dict.fromkeys(mention(mark, num_images) for mark in named_points(question, num_images))
    return [f"What is the depth at {point}?" for point in points] + [question]


def respond(
    question: str, marks: Any, paths: list[str], turns: list[Turn], in_steps: bool
) -> Iterator[tuple[Chat, list[Turn], Any, Any]]:
    """Answer a question, streamed: the chat, the answered turns, what the board shows, and the emptied text box."""
    images = open_images(paths)
    question = check_question(question, turns)
    regions = [mark for mark in read_marks(marks, len(images)) if mark["x1"] is not None]
    grid = models.image_grid()
    question = on_grid(question, grid)
    declared = on_grid(declarations(question, regions, len(images)), grid)
    last = " ".join(filter(None, [question, declared]))
    asked = [*steps_of(question, len(images))[:-1], last] if in_steps else [last]
    for one in asked[: limits().turns - len(turns)]:
        answer = ""
        yield as_chat([*turns, (one, "…")]), turns, gr.skip(), "" if one is asked[0] else gr.skip()
        for answer in models.stream_answer(images, conversation(len(images), turns, one)):
            yield as_chat([*turns, (one, answer)]), [*turns, (one, answer)], gr.skip(), gr.skip()
        turns = [*turns, (one, answer or "(no answer)")]
        yield as_chat(turns), turns, gr.HTML(spoken=spoken_marks(answer, len(images), regions)), gr.skip()


def as_chat(turns: list[Turn]) -> Chat:
    """The turns as messages of the page; what was written is text, of which gradio would make markup."""
    return [
        {"role": role, "content": escape(text, quote=False)}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


def undo(turns: list[Turn]) -> tuple[Chat, list[Turn], Any, str]:
    """Take back the last turn; its question returns to the text box."""
    question = turns[-1][0] if turns else ""
    return as_chat(turns[:-1]), turns[:-1], gr.HTML(spoken=[]), question


def clear() -> tuple[Chat, list[Turn], Any, str]:
    """Begin again with the same images."""
    return [], [], gr.HTML(value=[], spoken=[]), ""


def ask(images: list[str], question: str, earlier_turns: list[list[str]] | None = None) -> Iterator[str]:
    """Ask about one or several images; the answer is streamed.

    Args:
        images: PNG, JPEG or WebP files.
        question: names points as (x, y), from (0, 0) at the top left to (1, 1) at the bottom right, and with several
            images as "(0.2, 0.4) in image 2"; the model reads the centres of the pixels that these points are in.
        earlier_turns: of this conversation, pairs of question and answer.

    Returns:
        The answer.
    """
    opened = open_images(images)
    turns = earlier_turns or []
    if not isinstance(turns, list) or not all(
        isinstance(turn, list | tuple) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        for turn in turns
    ):
        raise Refusal("earlier_turns is a list of pairs of texts: [[question, answer], ...].")
    pairs = [(turn[0], turn[1]) for turn in turns]
    question = on_grid(check_question(question, pairs), models.image_grid())
    yield from models.stream_answer(opened, conversation(len(opened), pairs, question))


def _example_buttons() -> list[tuple[gr.Button, str, str]]:
    """A column for each example picture, with its questions below it: button, file and question of each."""
    buttons = []
    with gr.Row(elem_id="ask_examples", equal_height=False):
        for row in examples():
            with gr.Column(min_width=160), Image.open(row["file"]) as picture:
                source = as_data_url(picture.convert("RGB"), 240)
                gr.HTML(
                    f'<img src="{source}" alt="{escape(row["alt"])}">',
                    css_template="img { width: 100%; border-radius: 6px; }",
                )
                buttons += [(gr.Button(text, size="sm"), row["file"], text) for text in row["questions"]]
    return buttons


def build() -> None:
    """Lay out the tab."""
    missing("vlm")
    paths, turns = gr.State([]), gr.State([])
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            upload = gr.File(
                label=f"Images (up to {limits().images})",
                file_count="multiple",
                file_types=sorted(ENDINGS),
                elem_id="ask_upload",
                height=120,
            )
            board = mark_board("Images", "ask_board", HELP)
        with gr.Column(min_width=280, scale=2):
            chat = gr.Chatbot(
                label="Conversation",
                elem_id="ask_chat",
                height=420,
                render_markdown=False,
                sanitize_html=True,
                buttons=["copy"],
            )
            question = gr.Textbox(
                label="Question",
                placeholder="How far away is ... (click the image to name a point)",
                elem_id="ask_question",
                max_length=limits().question_characters,
                lines=1,
            )
            in_steps = gr.Checkbox(
                label="Reason in steps: first the depth at each point that the question names", elem_id="ask_steps"
            )
            with gr.Row():
                send = gr.Button("Ask", variant="primary", elem_id="ask_send", min_width=80)
                halt = gr.Button("Stop", elem_id="ask_stop", min_width=80)
                back = gr.Button("Undo", elem_id="ask_undo", min_width=80)
                anew = gr.Button("Restart", elem_id="ask_clear", min_width=80)
    gr.Markdown("### Examples\nA click on a question asks it about the picture above it.")
    buttons = _example_buttons()
    private: dict[str, Any] = {"api_visibility": "private"}
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", **private}
    fresh = [board, paths, turns, chat]
    gr.on([upload.upload, upload.clear, upload.delete], friendly(show_images), [upload], fresh, **private)
    name_mark = Path(__file__).with_name("mention.js").read_text(encoding="utf-8")
    board.mark(None, [question, board], [question], js=name_mark)  # in the browser: fast clicks must not overtake
    answered: dict[str, Any] = {
        "fn": friendly(respond),
        "inputs": [question, board, paths, turns, in_steps],
        "outputs": [chat, turns, board, question],
        "concurrency_id": "compute",
        "show_progress_on": [chat],  # elsewhere it would hide the images
        **private,
    }
    running = [gr.on([send.click, question.submit], **answered)]
    for button, file, text in buttons:
        example = button.click(friendly(partial(show_example, file, text)), None, [*fresh, upload, question], **quick)
        running.append(example.success(**answered))
    halt.click(None, None, None, cancels=running)
    back.click(undo, [turns], [chat, turns, board, question], **quick)
    gr.on([anew.click, chat.clear], clear, None, [chat, turns, board, question], **quick)
    with gr.Column(visible=False):
        earlier, answer = gr.JSON([], label="earlier turns"), gr.Textbox(label="answer")
        endpoint(ask, [upload, question, earlier], [answer], "ask")
