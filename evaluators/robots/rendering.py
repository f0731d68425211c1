"""One off-screen camera for all simulations of a kind, with the flags that are part of the protocol."""

import importlib
import importlib.util
import os
from typing import Any

import numpy as np

# Seven times faster on a CPU than MuJoCo's defaults, and other pixels: recorded with every result.
RENDER_FLAGS = {"antialiasing_samples": 0, "shadows": False, "reflections": False}
NO_RENDERER = (
    "no OpenGL renderer for MuJoCo ({error}): install EGL (apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri) or "
    "OSMesa (apt-get install libosmesa6, MUJOCO_GL=osmesa)"
)


def choose_backend() -> None:
    """Let MuJoCo render without a display; a choice in MUJOCO_GL stands. Comes before MuJoCo's first import."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])
    if importlib.util.find_spec("triton"):  # loaded after Mesa's LLVM, its own LLVM ends in a segmentation fault
        importlib.import_module("triton")


class Camera:
    """Pictures of a MuJoCo scene by one of its fixed cameras."""

    def __init__(self, model: Any, camera: str | int, size_px: int, upside_down: bool = False) -> None:
        """Prepare to render any simulation that has the meshes of `model`.

        Args:
            model: `mujoco.MjModel`.
            camera: name or index.
            size_px: side of the square pictures.
            upside_down: whether the camera is mounted so; its pictures are turned by 180 degrees.

        Raises:
            ValueError: without a renderer, or for a camera that the model has not.
        """
        choose_backend()
        import mujoco

        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_CAMERA, index) for index in range(model.ncam)]
        if camera not in names and camera not in range(model.ncam):
            raise ValueError(f"camera {camera!r} is none of the scene's: pass {', '.join(map(str, names))}")
        model.vis.quality.offsamples = RENDER_FLAGS["antialiasing_samples"]
        model.vis.global_.offwidth = model.vis.global_.offheight = size_px
        try:
            # by name: mujoco.GLContext is what MUJOCO_GL was when somebody first imported MuJoCo
            self._window = importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}").GLContext(size_px, size_px)
            self._window.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
            raise ValueError(NO_RENDERER.format(error=str(error).splitlines()[0] if str(error) else error)) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, 2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = RENDER_FLAGS["shadows"]
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = RENDER_FLAGS["reflections"]
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = names.index(camera) if isinstance(camera, str) else camera
        self._options, self._rectangle = mujoco.MjvOption(), mujoco.MjrRect(0, 0, size_px, size_px)
        self._pixels = np.empty((size_px, size_px, 3), np.uint8)
        self._upside_down = upside_down

    def __call__(self, model: Any, data: Any) -> np.ndarray:
        """Return the (H, W, 3) uint8 picture of a simulation."""
        import mujoco

        self._window.make_current()
        category = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._options, None, self._view, category, self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._context)  # the bottom row first
        return (self._pixels[:, ::-1] if self._upside_down else self._pixels[::-1]).copy()

    def close(self) -> None:
        """Give the renderer back; without it EGL complains when Python ends."""
        self._window.make_current()
        self._context.free()
        self._window.free()
