"""Rigid alignment of two point sets by their features: mutual nearest neighbours, RANSAC, Kabsch."""

import math

import torch
from torch.nn import functional

SAMPLE = 3  # matches that fix a pose
INLIER_M = 0.1
HYPOTHESES = 4096
REFINEMENTS = 3


def mutual_matches(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Pairs that are each other's nearest neighbour by cosine.

    Args:
        source: (N, C) features.
        target: (M, C) features.

    Returns:
        (K, 2) places in source and target.
    """
    similarity = functional.normalize(source.float(), dim=1) @ functional.normalize(target.float(), dim=1).T  # (N, M)
    forth, back = similarity.argmax(1), similarity.argmax(0)
    places = torch.arange(len(source), device=source.device)
    mutual = back[forth] == places
    return torch.stack([places[mutual], forth[mutual]], dim=1)


def kabsch(source_m: torch.Tensor, target_m: torch.Tensor) -> torch.Tensor:
    """The rotations and translations that bring points onto others with the least squared error.

    Args:
        source_m: (..., N, 3).
        target_m: (..., N, 3), the same points elsewhere.

    Returns:
        (..., 4, 4), no reflections.
    """
    source_centre, target_centre = source_m.mean(-2, keepdim=True), target_m.mean(-2, keepdim=True)
    covariance = (source_m - source_centre).mT @ (target_m - target_centre)  # (..., 3, 3)
    u, _, vh = torch.linalg.svd(covariance)
    flip = torch.ones_like(covariance[..., 0])
    flip[..., 2] = torch.linalg.det(vh.mT @ u.mT).sign()
    rotation = vh.mT @ (flip[..., None] * u.mT)
    pose = torch.zeros(*covariance.shape[:-2], 4, 4, dtype=source_m.dtype, device=source_m.device)
    pose[..., :3, :3] = rotation
    pose[..., :3, 3:] = target_centre.mT - rotation @ source_centre.mT
    pose[..., 3, 3] = 1
    return pose


def ransac(source_m: torch.Tensor, target_m: torch.Tensor, seed: int) -> torch.Tensor:
    """The pose that most matches agree with, fitted again to all that do; the identity for fewer than 3 matches.

    Args:
        source_m: (K, 3) of the matches.
        target_m: (K, 3) of the matches.
        seed: of the samples.

    Returns:
        (4, 4) float64, source to target.
    """
    source_m, target_m = source_m.double().cpu(), target_m.double().cpu()
    if len(source_m) < SAMPLE:
        return torch.eye(4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    samples = torch.rand(HYPOTHESES, len(source_m), generator=generator).topk(SAMPLE, dim=1).indices  # (H, 3)
    poses = kabsch(source_m[samples], target_m[samples])  # (H, 4, 4)
    counts = torch.cat([_inliers(part, source_m, target_m).sum(1) for part in poses.split(256)])
    pose = poses[counts.argmax()]
    for _ in range(REFINEMENTS):
        inliers = _inliers(pose[None], source_m, target_m)[0]
        if inliers.sum() < SAMPLE:
            break
        pose = kabsch(source_m[inliers], target_m[inliers])
    return pose


def pose_errors(estimate: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Translation (m) and rotation (degrees) of `estimate` after the inverse of `truth`: Lexicon3D's se3_compare."""
    rest = estimate.double() @ torch.linalg.inv(truth.double())
    cosine = ((rest[:3, :3].trace() - 1) / 2).clamp(-1, 1)
    return float(rest[:3, 3].norm()), math.degrees(float(cosine.arccos()))


def _inliers(poses: torch.Tensor, source_m: torch.Tensor, target_m: torch.Tensor) -> torch.Tensor:
    """(H, K) whether a match agrees with a pose."""
    moved = source_m @ poses[:, :3, :3].mT + poses[:, None, :3, 3]  # (H, K, 3)
    return (moved - target_m).norm(dim=2) < INLIER_M
