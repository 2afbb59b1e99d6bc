"""Score matching by a neural network: the baseline that kernels and operators are compared with.

PyTorch does the work, and is imported when a model is fitted or evaluated (extra ``torch``).
"""
from __future__ import annotations

from .estimator import NeuralScoreMatching

__all__ = ["NeuralScoreMatching"]
