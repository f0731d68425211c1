"""What the Hub's /api/validate-yaml refuses in a README's metadata."""

import re

import yaml

LICENCES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "gpl-3.0", "unknown", "other",
}  # fmt: skip
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
RELATIONS = {"finetune", "adapter", "merge", "quantized"}
TASKS = {
    "image-feature-extraction", "image-text-to-text", "depth-estimation", "image-segmentation", "image-classification",
    "visual-question-answering", "image-to-text",
}  # fmt: skip
SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M"}
REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}|[\w.-]{1,96}")


def problems(content, kind):
    """Sentences, none for a good card; a README without metadata is allowed."""
    if not content.startswith("---"):
        return []
    try:
        data = yaml.safe_load(content.split("\n---", 1)[0].removeprefix("---")) or {}
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    return list(_problems(data, kind or "model"))


def _listed(value):
    return value if isinstance(value, list) else [] if value is None else [value]


def _problems(data, kind):
    for licence in _listed(data.get("license")):
        if licence not in LICENCES:
            yield f'"license" must be one of {sorted(LICENCES)}'
    if not all(isinstance(tag, str) for tag in _listed(data.get("tags"))):
        yield '"tags" must be strings'
    if kind == "model":
        yield from _model_problems(data)
    if kind == "dataset":
        if not set(_listed(data.get("task_categories"))) <= TASKS:
            yield '"task_categories" holds an unknown task'
        if not set(_listed(data.get("size_categories"))) <= SIZES:
            yield f'"size_categories" must be of {sorted(SIZES)}'
        if not all({"config_name", "data_files"} <= one.keys() for one in _listed(data.get("configs"))):
            yield '"configs" need "config_name" and "data_files"'
    if kind == "space":
        yield from _space_problems(data)


def _model_problems(data):
    if "pipeline_tag" in data and data["pipeline_tag"] not in TASKS:
        yield f'"pipeline_tag" must be one of {sorted(TASKS)}'
    for key in ("base_model", "datasets"):
        if not all(isinstance(one, str) and REPOSITORY.fullmatch(one) for one in _listed(data.get(key))):
            yield f'"{key}" must be ids of the Hub'
    if data.get("base_model_relation", "finetune") not in RELATIONS:
        yield f'"base_model_relation" must be one of {sorted(RELATIONS)}'
    for model in _listed(data.get("model-index")):
        if "name" not in model:
            yield '"model-index[0].name" is required'
        for result in model.get("results", []):
            if not result.get("task", {}).get("type") or not result.get("dataset", {}).get("type"):
                yield '"model-index" results need task.type and dataset.type'
            if not all({"type", "value"} <= metric.keys() for metric in result.get("metrics", [{}])):
                yield '"model-index" metrics need type and value'


def _space_problems(data):
    if data.get("sdk") not in ("gradio", "static", "docker"):
        yield '"sdk" must be one of [gradio, static, docker]'
    for key in ("colorFrom", "colorTo"):
        if data.get(key, "red") not in COLOURS:
            yield f'"{key}" must be one of {sorted(COLOURS)}'
    if len(str(data.get("short_description", ""))) > 60:
        yield '"short_description" must be 60 characters or fewer'
