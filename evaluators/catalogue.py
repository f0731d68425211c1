"""The one table of tasks and the one of data sets: what can be measured, on what, and under which terms."""

import difflib
import importlib
import re
from typing import Any, NamedTuple

DEPTH = ("depth_linear", "depth_dpt")
SEGMENTATION = ("segmentation_linear", "segmentation_multiscale")
NYUD_TERMS = (
    "NYU Depth v2 has no explicit licence and is used for research; the folder is BTS's or BinsFormer's subset with "
    "nyu_train.txt and nyu_test.txt."
)
KITTI_TERMS = "CC BY-NC-SA 3.0, after registration at cvlibs.net; the folder has input/, gt_depth/ and Eigen's lists."
ADE20K_TERMS = "For non-commercial research and education; the folder is ADEChallengeData2016 (SceneParse150)."
VOC_TERMS = "Photos under Flickr's terms of use; the folder is VOCdevkit/VOC2012, splits train and val."
ADROIT_TERMS = (
    "No scripted expert: demonstrations come from a folder, such as Minari's D4RL/pen/expert-v2 or "
    "D4RL/relocate/expert-v2 (`minari download`)."
)
CORTEXBENCH_TERMS = (
    "No scripted expert: demonstrations come from CortexBench (dl.fbaipublicfiles.com/eai-vc, CC-BY-NC, pickles) or a "
    "folder of .npz files."
)
TRIFINGER_TERMS = (
    "CortexBench's trifinger-demos (dl.fbaipublicfiles.com/eai-vc/trifinger_demos.zip, CC-BY-NC); no simulator with "
    "its controller is on PyPI, so actions on held-out demonstrations are measured."
)

CLASSIFICATION = ("knn_classification", "linear_classification")
IMAGENET_TERMS = (
    "For research only; the Hub's copy is gated: accept its terms on its page and log in with `hf auth login`, or "
    "pass a folder with train/CLASS/ and val/CLASS/, or a copy of timm/imagenet-1k-wds."
)
OXFORD_PARIS_TERMS = (
    "Flickr photographs, each under its owner's terms, for research: revisitop's folder (cmp.felk.cvut.cz/revisitop) "
    "with jpg/ and its ground truth."
)
MET_TERMS = (
    "The museum's pictures are CC0, queries from visitors for research: images/ and ground_truth/ of "
    "cmp.felk.cvut.cz/met, unpacked side by side."
)
AMSTERTIME_TERMS = "For research: old/ and new/ of doi.org/10.4121/19580806."
BLINK_TERMS = "Apache-2.0 on its card; the photographs keep the terms of their sources."
CV_BENCH_TERMS = "Apache-2.0 on its card; the images keep the terms of ADE20K, COCO and Omni3D."
THREEDSRBENCH_TERMS = "CC-BY-4.0 on the original's card (ccvl/3DSRBench); COCO's photographs keep Flickr's terms."
VSI_BENCH_TERMS = (
    "Apache-2.0 on its card, but the videos are of ScanNet, ScanNet++ and ARKitScenes, whose terms must be accepted: "
    "download nyu-visionx/VSI-Bench and unpack its three zip files there."
)


class Task(NamedTuple):
    """A way to measure.

    Attributes:
        family: of the paper's six.
        title: for the report.
        module: in this package; see `contract.TaskModule`.
        extra: the optional dependencies that it needs beyond `eval`.
        asks_vlm: whether it asks the models of `--base-vlm` and `--boosted-vlm`, not the encoders.
    """

    family: str
    title: str
    module: str
    extra: str | None = None
    asks_vlm: bool = False


class DataSet(NamedTuple):
    """What is measured on.

    Attributes:
        title: for the report.
        tasks: which can read it, in the order of the report.
        terms: licence and gate in one sentence; None for what we make ourselves.
        hub_id: where today's `datasets` can read it; None: only a local folder.
        needs_data: False for simulators, which are there as soon as their packages are.
        unasked: of a simulator, the presets in which a task that is named uses it without `--data`; minutes each.
    """

    title: str
    tasks: tuple[str, ...]
    terms: str | None = None
    hub_id: str | None = None
    needs_data: bool = True
    unasked: tuple[str, ...] = ()


TASKS = {
    "depth_linear": Task("depth", "depth, linear head", "depth"),
    "depth_dpt": Task("depth", "depth, DPT head", "depth_dpt"),
    "segmentation_linear": Task("segmentation", "segmentation, linear head", "segmentation"),
    "segmentation_multiscale": Task("segmentation", "segmentation, multi-scale", "segmentation_multiscale"),
    "knn_classification": Task("classification", "classification, nearest neighbours", "knn_classification"),
    "linear_classification": Task("classification", "classification, linear head", "linear_classification"),
    "retrieval": Task("retrieval", "retrieval", "retrieval"),
    "scene_segmentation": Task("scenes", "3D semantic segmentation, linear layer", "scenes.scene_segmentation"),
    "registration": Task("scenes", "registration of partial point clouds", "scenes.registration"),
    "scene_answers": Task("scenes", "answers about scenes", "scenes.scene_answers"),
    "scene_grounding": Task("scenes", "grounding of descriptions", "scenes.scene_grounding"),
    "robot_success": Task("robots", "behaviour cloning, success", "robots.success", "robot"),
    "robot_actions": Task("robots", "behaviour cloning, error of held-out actions", "robots.offline_actions"),
    "robot_return": Task("robots", "behaviour cloning, return", "robots.returns", "robot"),
    "spatial_questions": Task("language", "spatial questions", "language.spatial_questions", asks_vlm=True),
    "blink": Task("language", "BLINK", "language.blink", asks_vlm=True),
    "cv_bench": Task("language", "CV-Bench", "language.cv_bench", asks_vlm=True),
    "threedsrbench": Task("language", "3DSRBench", "language.threedsrbench", asks_vlm=True),
    "vsi_bench": Task("language", "VSI-Bench", "language.vsi_bench", "data", asks_vlm=True),
}

SCENES = ("scene_segmentation", "registration")
SCANNET_TERMS = (
    "Send the signed ScanNet Terms of Use (github.com/ScanNet/ScanNet; non-commercial) to its authors, download and "
    "export the scans with SensReader."
)
SCANQA_TERMS = "The questions are at github.com/ATR-DBI/ScanQA, the scans are ScanNet's, whose terms must be signed."
SQA3D_TERMS = "CC-BY-4.0, at github.com/SilongYong/SQA3D; the scans are ScanNet's, whose terms must be signed."
SCANREFER_TERMS = (
    "Fill in the form at github.com/daveredrum/ScanRefer; the scans are ScanNet's, whose terms must be signed."
)

DATA_SETS = {
    "rooms": DataSet("data of `spatialboost build`", (*DEPTH, *SEGMENTATION, *SCENES, "spatial_questions")),
    "scannet": DataSet("ScanNet v2", SCENES, SCANNET_TERMS),
    "scanqa": DataSet("ScanQA", ("scene_answers",), SCANQA_TERMS),
    "sqa3d": DataSet("SQA3D", ("scene_answers",), SQA3D_TERMS),
    "scanrefer": DataSet("ScanRefer", ("scene_grounding",), SCANREFER_TERMS),
    "nyud": DataSet("NYU Depth v2", DEPTH, NYUD_TERMS),
    "kitti": DataSet("KITTI, Eigen's split", DEPTH, KITTI_TERMS),
    "ade20k": DataSet("ADE20K", SEGMENTATION, ADE20K_TERMS),
    "voc": DataSet("Pascal VOC 2012", SEGMENTATION, VOC_TERMS),
    "imagenet": DataSet("ImageNet-1k", CLASSIFICATION, IMAGENET_TERMS, hub_id="ILSVRC/imagenet-1k"),
    "folder": DataSet("pictures in class folders", CLASSIFICATION),
    "roxford": DataSet("ROxford5k", ("retrieval",), OXFORD_PARIS_TERMS),
    "rparis": DataSet("RParis6k", ("retrieval",), OXFORD_PARIS_TERMS),
    "met": DataSet("Met", ("retrieval",), MET_TERMS),
    "amstertime": DataSet("AmsterTime", ("retrieval",), AMSTERTIME_TERMS),
    "landmarks": DataSet("pictures in place folders", ("retrieval",)),
    "blink": DataSet("BLINK, questions about space", ("blink",), BLINK_TERMS, hub_id="BLINK-Benchmark/BLINK"),
    "cv_bench": DataSet("CV-Bench", ("cv_bench",), CV_BENCH_TERMS, hub_id="nyu-visionx/CV-Bench"),
    "threedsrbench": DataSet(
        "3DSRBench", ("threedsrbench",), THREEDSRBENCH_TERMS, hub_id="oscarqjh/3DSRBench_lmmseval"
    ),
    "vsi_bench": DataSet("VSI-Bench", ("vsi_bench",), VSI_BENCH_TERMS),
    "metaworld_bin_picking": DataSet(
        "MetaWorld bin-picking", ("robot_success",), needs_data=False, unasked=("full", "cpu")
    ),
    "metaworld_assembly": DataSet("MetaWorld assembly", ("robot_success",), needs_data=False, unasked=("full",)),
    "metaworld_button_press_topdown": DataSet(
        "MetaWorld button-press-topdown", ("robot_success",), needs_data=False, unasked=("full",)
    ),
    "metaworld_drawer_open": DataSet("MetaWorld drawer-open", ("robot_success",), needs_data=False, unasked=("full",)),
    "metaworld_hammer": DataSet("MetaWorld hammer", ("robot_success",), needs_data=False, unasked=("full",)),
    "adroit_pen": DataSet("Adroit pen", ("robot_success",), ADROIT_TERMS),
    "adroit_relocate": DataSet("Adroit relocate", ("robot_success",), ADROIT_TERMS),
    "dmcontrol_walker_stand": DataSet("DMControl walker stand", ("robot_return",), CORTEXBENCH_TERMS),
    "dmcontrol_walker_walk": DataSet("DMControl walker walk", ("robot_return",), CORTEXBENCH_TERMS),
    "dmcontrol_reacher_easy": DataSet("DMControl reacher easy", ("robot_return",), CORTEXBENCH_TERMS),
    "dmcontrol_cheetah_run": DataSet("DMControl cheetah run", ("robot_return",), CORTEXBENCH_TERMS),
    "dmcontrol_finger_spin": DataSet("DMControl finger spin", ("robot_return",), CORTEXBENCH_TERMS),
    "trifinger_reach_cube": DataSet("TriFinger reach cube", ("robot_actions",), TRIFINGER_TERMS),
    "trifinger_move_cube": DataSet("TriFinger move cube", ("robot_actions",), TRIFINGER_TERMS),
}


def task_module(task: str) -> Any:
    """The module of a task, a `contract.TaskModule`."""
    return importlib.import_module(f"evaluators.{TASKS[task].module}")


def families() -> list[str]:
    """The task families, in the order of the report."""
    return list(dict.fromkeys(task.family for task in TASKS.values()))


def parse_tasks(text: str) -> list[str]:
    """The task names of "all" or of a comma-separated list of tasks and families.

    Raises:
        ValueError: for another name, with the list and the nearest name.
    """
    if text == "all":
        return list(TASKS)
    chosen: list[str] = []
    for name in map(str.strip, text.split(",")):
        found = [task for task, row in TASKS.items() if name in (task, row.family)]
        if not found:
            raise ValueError(f"--tasks {name!r} is no task{_near(name, [*TASKS, *families()])}")
        chosen += found
    return list(dict.fromkeys(chosen))


def kind_of(name: str) -> str:
    """The key of DATA_SETS of what is called NAME or NAME.LABEL."""
    return name.partition(".")[0]


def title_of(name: str) -> str:
    """The title of a data set NAME or NAME.LABEL, for the report."""
    kind, _, label = name.partition(".")
    return DATA_SETS[kind].title + (f" ({label})" if label else "")


def parse_data(entries: list[str]) -> dict[str, str | None]:
    """Where each data set is.

    Args:
        entries: `NAME=PATH`, `NAME.LABEL=PATH` where one NAME has several places, `NAME` (its Hub id), or a bare
            `PATH` of built rooms.

    Raises:
        ValueError: for another name, a bare NAME of a data set that is on no Hub, or one name twice.
    """
    places: dict[str, str | None] = {}
    for entry in entries:
        name, separator, path = entry.partition("=")
        if separator and kind_of(name) not in DATA_SETS:
            raise ValueError(f"--data {entry!r}: {name!r} is no data set{_near(name, list(DATA_SETS))}")
        if separator and not re.fullmatch(r"\w+(\.[\w-]+)?", name):
            raise ValueError(f"--data {entry!r}: write NAME.LABEL=PLACE, the label of letters, digits, - and _")
        if not separator and entry not in DATA_SETS:
            name, path = "rooms", entry
        elif not separator and DATA_SETS[name].needs_data and DATA_SETS[name].hub_id is None:
            raise ValueError(f"--data {entry!r} is on no Hub that we could name: pass {entry}=FOLDER")
        if name in places:
            raise ValueError(f"--data names {name!r} twice: write {kind_of(name)}.LABEL=PLACE, LABEL as you like")
        places[name] = path or DATA_SETS[kind_of(name)].hub_id
    return places


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{hint}: pass {', '.join(known)}"
