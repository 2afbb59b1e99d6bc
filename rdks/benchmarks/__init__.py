"""Published benchmarks of densities on manifolds, run again: ``python -m rdks benchmark``.

Map
---
:mod:`rdks.benchmarks.earth`      places on the globe: volcanoes, earthquakes, floods, fires
:mod:`rdks.benchmarks.so3`        a mixture on the rotations, whose best possible likelihood is known
:mod:`rdks.benchmarks.toy2d`      three laws in the plane, whose true densities are known
:mod:`rdks.benchmarks.published`  the numbers that papers print, and how each came to us
:mod:`rdks.benchmarks.baselines`  simple competitors, run on the same data
:mod:`rdks.benchmarks.protocols`  which rows are fitted, which are held out, and what is averaged
:mod:`rdks.benchmarks.report`     tables as text, results as files
"""
