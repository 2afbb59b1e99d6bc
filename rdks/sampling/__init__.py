"""Diffusions forward and backward: draws, likelihoods and denoising by any model of the score.

======================================  =======================================================
:func:`heat_sample`                     exact steps of Brownian motion
:func:`geodesic_random_walk`            approximate ones, where there are no exact ones
:func:`diffuse`                         the forward process of points: data turned into noise
:func:`reverse_sde`                     draws: noise turned into data, with fresh noise in every step
:func:`probability_flow`                draws: noise turned into data along deterministic curves
:func:`transport`                       points carried along these curves from one noise level to another
:func:`log_likelihood`                  the density that the probability flow gives a model of the score
:func:`langevin`                        a chain whose law tends to the model's at one noise level
:func:`denoise`                         the best guess of the point behind a noisy one
======================================  =======================================================

The last six take any :class:`ScoreModel`, of this package or not. The first two work on embedded coordinates.
"""
from __future__ import annotations

from .flow import log_likelihood, probability_flow, transport
from .models import ScoreModel, Trajectory, mixing_time
from .reverse import denoise, diffuse, langevin, reverse_sde
from .steps import geodesic_random_walk, heat_sample

__all__ = ["ScoreModel", "Trajectory", "denoise", "diffuse", "geodesic_random_walk", "heat_sample", "langevin",
           "log_likelihood", "mixing_time", "probability_flow", "reverse_sde", "transport"]
