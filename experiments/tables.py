"""The tables: which arms, which measures, and what the paper has in that place."""

from dataclasses import dataclass

from experiments.arms import ARMS, CONTROLS, Arm


@dataclass(frozen=True)
class Measure:
    """A column: a metric of an entry of `spatialboost evaluate`.

    Attributes:
        call: which call of the command gives it, a key of `CALLS`.
        entry: "TASK/DATA_SET" of `evaluators.catalogue`.
        metric: its key in results.json.
        label: head of the column.
        higher_is_better: its direction.
    """

    call: str
    entry: str
    metric: str
    label: str
    higher_is_better: bool = True


# Tasks of one call of `spatialboost evaluate`; those that ask models are measured by arms of language alone.
CALLS = {
    "probes": ("depth_linear", "segmentation_linear", "knn_classification", "retrieval"),
    "more_probes": ("depth_dpt", "linear_classification"),
    "questions": ("spatial_questions",),  # to stage 2 and to the arm's own stage 3
    "reading": ("spatial_questions",),  # to new models that learn to read base and boosted encoder
}
MEASURES = {
    "depth": Measure("probes", "depth_linear/rooms", "rmse_m", "depth RMSE, linear (m)", False),
    "segmentation": Measure("probes", "segmentation_linear/rooms", "mean_iou", "mIoU (%)"),
    "classification": Measure("probes", "knn_classification/folder", "top1", "classes, neighbours (%)"),
    "retrieval": Measure("probes", "retrieval/roxford", "map_hard", "rooms found again, mAP hard (%)"),
    "depth_dpt": Measure("more_probes", "depth_dpt/rooms", "rmse_m", "depth RMSE, DPT (m)", False),
    "linear_classification": Measure("more_probes", "linear_classification/folder", "top1", "classes, linear (%)"),
    "questions": Measure("questions", "spatial_questions/rooms", "right", "own answers right (%)"),
    "reading": Measure("reading", "spatial_questions/rooms", "right", "a new reader's answers right (%)"),
}
PROBES = ("depth", "segmentation", "classification", "retrieval")


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper, in miniature.

    Attributes:
        title: what is compared.
        arms: rows, keys of `arms.ARMS`.
        controls: further rows.
        measures: columns, keys of `MEASURES`.
        shuffled: arms with their own control of shuffled answers: what they have over it, the true answers taught.
        reference: the arm that differences are taken from.
        paper_columns: what the paper measured in that place.
        paper: by arm, the paper's numbers; arms that it has not are absent.
        note: what a reader must know.
    """

    title: str
    arms: tuple[str, ...]
    measures: tuple[str, ...] = PROBES
    controls: tuple[str, ...] = ("language", *CONTROLS)
    shuffled: tuple[tuple[str, str], ...] = (("language", "shuffled_answers"),)
    reference: str = "base"
    paper_columns: tuple[str, ...] = ()
    paper: tuple[tuple[str, tuple[str, ...]], ...] = ()
    note: str = ""

    @property
    def all_arms(self) -> tuple[str, ...]:
        """Rows with base and controls, each once."""
        return tuple(dict.fromkeys(("base", *self.arms, *self.controls)))

    @property
    def taught(self) -> Arm:
        """The first arm that learns from language: whether the model that it starts from looks is told."""
        return next(ARMS[arm] for arm in self.all_arms if ARMS[arm].learns_from == "language")


ABLATION = ("ImageNet (%)", "ADE20K mIoU", "NYUd RMSE")
TABLES = {
    "main": Table(
        "Tables 1-5: base against boosted",
        ("base", "language"),
        (*PROBES[:2], "depth_dpt", *PROBES[2:], "linear_classification", "questions"),
        paper_columns=("NYUd RMSE, linear", "ADE20K mIoU", "NYUd RMSE, DPT", "ImageNet kNN", "Oxford-Hard mAP"),
        paper=(("base", (".31", "55.9", ".25", "85.8", "60.7")), ("language", (".25", "59.7", ".21", "87.7", "64.1"))),
        note="The paper's numbers are DINOv3 ViT-7B's on real images; only their directions can be compared.",
    ),
    "table6": Table(
        "Table 6: what supervises the encoder, on the same images and steps",
        ("base", "linear_depth", "linear_segmentation", "mask_decoder", "point_decoder", "language"),
        (*PROBES, "reading"),
        paper_columns=(*ABLATION, "ScanQA BLEU-1"),
        paper=(
            ("base", ("86.3", "47.7", ".38", "39.2")),
            ("linear_depth", ("85.7", "47.9", ".35", "36.9")),
            ("linear_segmentation", ("86.6", "48.8", ".45", "37.1")),
            ("mask_decoder", ("86.3", "50.1", ".42", "37.6")),
            ("point_decoder", ("84.8", "45.6", ".35", "37.3")),
            ("language", ("88.3", "51.5", ".32", "40.0")),
        ),
        note="Depth and segmentation heads are judged on what they were trained for: same rooms' family, same kind of "
        "map. DINOv2 ViT-L/14 in the paper.",
    ),
    "table7": Table(
        "Table 7: order of the turns, and number of views",
        ("single_reverse", "single_random", "single_view", "multi_view", "language"),
        paper_columns=ABLATION,
        paper=(
            ("single_reverse", ("87.4", "48.4", ".35")),
            ("single_random", ("87.4", "48.5", ".36")),
            ("single_view", ("87.6", "48.9", ".34")),
        ),
        note="The paper orders the turns of its single-view data; of single-view, multi-view and their mix it says "
        "that the mix is the best. `language` is the mix.",
    ),
    "figure5": Table(
        "Figure 5: how much data, at equal steps",
        ("data_12", "data_25", "data_50", "language"),
        note="The paper: 50K < 100K < 300K conversations at equal iterations. `language` has all of the data.",
    ),
    "figure6": Table(
        "Figure 6: what of the encoder trains, and what is forgotten",
        ("full", "full_slow", "lora", "lora_fast", "lora_matched", "language"),
        paper_columns=("ImageNet (%)",),
        paper=(("base", ("86.3",)), ("full", ("79.5",)), ("lora", ("83.7",)), ("language", ("87.6",))),
        note="Forgetting is what classes and retrieval lose against the base. `language` is dual-channel.",
    ),
    "table8": Table(
        "Table 8: the encoder's own kind of objective on the same images",
        ("own_objective", "language"),
        note="The paper: almost flat, sometimes worse. Here it is self-distillation, see docs/baselines.md.",
    ),
    "table9": Table(
        "Table 9: an encoder that has already been trained with depth",
        ("depth_base", "depth_language", "depth_shuffled"),
        (*PROBES, "reading"),
        shuffled=(("language", "shuffled_answers"), ("depth_language", "depth_shuffled")),
        reference="depth_base",
        note="Differences are from the base that was trained with depth; `language` is the boosted plain base.",
    ),
    "teaching": Table(
        "Teaching: what it takes for language to teach depth",
        ("questions", "questions_shuffled", "questions_plain", "dialogues", "dialogues_shuffled", "linear_depth"),
        controls=("captions_only", "random_encoder"),
        shuffled=(("questions", "questions_shuffled"), ("dialogues", "dialogues_shuffled")),
        note="The language model has learnt to read depth under pictures of depth; short questions are 16 an image. "
        "From few images their answers are learnt by heart: use preset `hour` or larger.",
    ),
    "levels": Table(
        "Levels: dialogues without pixel, object or scene turns",
        ("without_pixel", "without_object", "without_scene", "language"),
        reference="language",
        note="Differences are from the whole dialogue.",
    ),
    "design": Table(
        "Design: what the paper does not show",
        ("alpha_high", "alpha_low", "alpha_head", "alpha_layer", "upper_half", "without_captions", "language"),
        reference="language",
        note="Differences are from the paper's design: one alpha a channel from 0.5, all layers, captions kept.",
    ),
}
