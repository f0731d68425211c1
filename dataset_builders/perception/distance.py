"""How different two images look: LPIPS."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_builders.geometry import Array
from dataset_builders.perception import PerceptionOptions
from dataset_builders.scene import InputError

SIDE_PIXELS = 256
WEIGHTS = {  # trunk -> file that torchvision downloads
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


class LpipsDistance:
    """LPIPS of the package `lpips`, with the trunk "alex" (the usual one), "vgg" or "squeeze".

    "squeeze:FOLDER" reads the trunk's weights, by torchvision's names, from the only .pth or .safetensors file in a
    folder. The features of an image are computed once, however many pairs it is in; always in float32.
    """

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Load the trunk and the linear layers, which come with the package.

        Raises:
            InputError: no such trunk, the package is missing, or the weights cannot be had.
        """
        try:
            import lpips
        except ImportError as error:
            raise InputError("--distance needs the package lpips; run pip install lpips.") from error
        from dataset_builders.perception.loading import choose_device

        trunk, _, folder = name.partition(":")
        if trunk not in WEIGHTS:
            raise InputError(f"--distance {name!r} is unknown; pass {', '.join(WEIGHTS)} or squeeze:FOLDER.")
        self._device = choose_device(options.device)
        self._batch_size = options.batch_size
        self._normalise = lpips.normalize_tensor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # lpips asks torchvision in words of its past
            if folder:
                model = lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)
                _load_trunk(model.net, Path(folder), name)
            else:
                model = _download(lpips, trunk)
        self._model = model.to(self._device).eval()

    def distances(self, images: Sequence[Array]) -> Array:
        """See `PerceptualDistance`; images of any size, compared at 256 x 256 pixels."""
        import torch

        result = np.zeros((len(images), len(images)))
        with torch.inference_mode():
            features = self._features(images)
            for first in range(1, len(images)):  # with all before it, as one batch
                distance = sum(
                    linear((layer[:first] - layer[first]).square()).mean(dim=(2, 3))[:, 0]
                    for linear, layer in zip(self._model.lins, features)
                )
                result[first, :first] = result[:first, first] = distance.double().cpu().numpy()
        return result

    def _features(self, images: Sequence[Array]) -> list[Any]:
        """Per layer of the trunk, unit feature vectors (V, C, h, w) of all images."""
        import torch

        parts = []
        for start in range(0, len(images), self._batch_size):
            chosen = [
                np.asarray(Image.fromarray(image).resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC))
                for image in images[start : start + self._batch_size]
            ]
            pixels = torch.from_numpy(np.stack(chosen)).to(self._device).permute(0, 3, 1, 2) / 127.5 - 1
            parts.append([self._normalise(layer) for layer in self._model.net(self._model.scaling_layer(pixels))])
        return [torch.cat(layers) for layers in zip(*parts)]


def _download(lpips: Any, trunk: str) -> Any:
    import torch

    try:
        return lpips.LPIPS(net=trunk, verbose=False)
    except (OSError, RuntimeError) as error:  # no connection (URLError), or a damaged file
        place = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS[trunk]
        raise InputError(
            f"--distance {trunk!r} cannot get its weights: {error}; place "
            f"https://download.pytorch.org/models/{WEIGHTS[trunk]} at {place}."
        ) from error


def _load_trunk(trunk: Any, folder: Path, name: str) -> None:
    """Read weights named as torchvision's "features.N..." into the slices of an LPIPS trunk."""
    import torch
    from safetensors.torch import load_file

    files = sorted(path for path in folder.glob("*") if path.suffix in (".pth", ".safetensors"))
    if len(files) != 1:
        raise InputError(f"--distance {name!r}: {folder} holds {len(files)} weight files; it must hold exactly one.")
    try:
        if files[0].suffix == ".pth":
            weights = torch.load(files[0], map_location="cpu", weights_only=True)
        else:
            weights = load_file(files[0])
        trunk.load_state_dict({key: weights["features." + key.partition(".")[2]] for key in trunk.state_dict()})
    except Exception as error:  # torch and safetensors raise many kinds over a file that is no such weights
        raise InputError(
            f"--distance {name!r}: {files[0]} holds no {WEIGHTS[name.partition(':')[0]]} ({error})."
        ) from error
