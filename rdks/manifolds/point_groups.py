"""Point groups: the finite groups of rotations, by the names that crystallographers and microscopists use."""
from __future__ import annotations

import re

import numpy as np

__all__ = ["point_group", "quaternion_product", "rotation_group"]

_MAX_FOLD = 256  # beyond it the rotations of C_n are hardly a finite group any more

# Hermann-Mauguin symbols of the eleven groups of rotations that crystals have, of the eleven Laue classes, and of
# the crystal systems, to the Schoenflies symbol of their rotations.
_ALIASES = {
    "1": "C1", "2": "C2", "3": "C3", "4": "C4", "6": "C6",
    "222": "D2", "32": "D3", "422": "D4", "622": "D6", "23": "T", "432": "O", "532": "I", "235": "I",
    "-1": "C1", "2/m": "C2", "mmm": "D2", "-3": "C3", "-3m": "D3", "4/m": "C4", "4/mmm": "D4", "6/m": "C6",
    "6/mmm": "D6", "m-3": "T", "m-3m": "O",
    "triclinic": "C1", "monoclinic": "C2", "orthorhombic": "D2", "trigonal": "D3", "tetragonal": "D4",
    "hexagonal": "D6", "cubic": "O", "tetrahedral": "T", "octahedral": "O", "icosahedral": "I",
}

# one rotation about x + y + z, and one about an axis that with it generates the group: (axis, fold)
_POLYHEDRAL = {"T": ((0, 0, 1), 2), "O": ((0, 0, 1), 4), "I": ((0, 1, 0.5 * (1 + np.sqrt(5))), 5)}


def quaternion_product(p, q):
    """Multiply unit quaternions (x, y, z, w): the rotation q first, then p; broadcasts, shape (..., 4)."""
    px, py, pz, pw = np.moveaxis(np.asarray(p, dtype=float), -1, 0)
    qx, qy, qz, qw = np.moveaxis(np.asarray(q, dtype=float), -1, 0)
    return np.stack([pw * qx + px * qw + py * qz - pz * qy,
                     pw * qy - px * qz + py * qw + pz * qx,
                     pw * qz + px * qy - py * qx + pz * qw,
                     pw * qw - px * qx - py * qy - pz * qz], axis=-1)


def point_group(name):
    """Return the Schoenflies symbol of a group of rotations, from any of its names.

    Parameters
    ----------
    name : str
        ======================  =====================  ==========================  =====  =================
        Schoenflies             Hermann-Mauguin        Laue classes                order  crystal systems
        ======================  =====================  ==========================  =====  =================
        ``"C1"``                ``"1"``                ``"-1"``                    1      ``"triclinic"``
        ``"C2"``                ``"2"``                ``"2/m"``                   2      ``"monoclinic"``
        ``"C3"``, ``"C4"``,     ``"3"``, ``"4"``,      ``"-3"``, ``"4/m"``,        3, 4,
        ``"C6"``                ``"6"``                ``"6/m"``                   6
        ``"D2"``                ``"222"``              ``"mmm"``                   4      ``"orthorhombic"``
        ``"D3"``                ``"32"``               ``"-3m"``                   6      ``"trigonal"``
        ``"D4"``                ``"422"``              ``"4/mmm"``                 8      ``"tetragonal"``
        ``"D6"``                ``"622"``              ``"6/mmm"``                 12     ``"hexagonal"``
        ``"T"``                 ``"23"``               ``"m-3"``                   12     ``"tetrahedral"``
        ``"O"``                 ``"432"``              ``"m-3m"``                  24     ``"cubic"``,
                                                                                          ``"octahedral"``
        ``"I"``                 ``"532"``, ``"235"``                               60     ``"icosahedral"``
        ======================  =====================  ==========================  =====  =================

        ``"Cn"`` and ``"Dn"`` exist for every n up to 256. The name of a crystal system stands for the
        rotations of its largest Laue class: ``"trigonal"`` is 32, not 3. Other point groups contain
        reflections, which are no rotations: use their Laue class.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For any other name.

    Examples
    --------
    >>> from rdks.manifolds.point_groups import point_group
    >>> point_group("m-3m"), point_group("432"), point_group("cubic")
    ('O', 'O', 'O')
    """
    symbol = _ALIASES.get(name, name)
    if isinstance(symbol, str):
        cyclic = re.fullmatch("([CD])([1-9][0-9]*)", symbol)
        if symbol in _POLYHEDRAL or (cyclic and int(cyclic[2]) <= _MAX_FOLD):
            return symbol
    raise ValueError(f"{name!r} is not the name of a group of rotations; expected a Schoenflies symbol (C1 to "
                     f"C{_MAX_FOLD}, D1 to D{_MAX_FOLD}, T, O, I) or one of {sorted(_ALIASES)}. The reflections of a "
                     "point group do not act on rotations: use its Laue class")


def rotation_group(name):
    r"""List the rotations of a point group.

    Parameters
    ----------
    name : str
        See :func:`point_group`.

    Returns
    -------
    ndarray, shape (g, 4)
        Unit quaternions (x, y, z, w), one of the two signs each, the identity first.

    Notes
    -----
    Axes: C_n and D_n have the n-fold axis along z (so ``"monoclinic"`` has its unique axis along z, which
    crystallographers call c; turn the crystal frame for unique axis b), and D_n a two-fold axis along x. T, O and
    I have two-fold axes along x, y and z (four-fold ones in O) and three-fold axes along :math:`(\pm1,\pm1,\pm1)`;
    I has five-fold axes along :math:`(0,\pm1,\pm\phi)` and their cyclic permutations, :math:`\phi` being the
    golden ratio. D_1 is a half turn about x.

    Examples
    --------
    >>> from rdks.manifolds.point_groups import rotation_group
    >>> len(rotation_group("hexagonal")), len(rotation_group("I"))
    (12, 60)
    """
    symbol = point_group(name)
    if symbol in _POLYHEDRAL:
        axis, fold = _POLYHEDRAL[symbol]
        return _closure(np.array([_turn((1, 1, 1), 3), _turn(axis, fold)]))
    half = np.pi * np.arange(int(symbol[1:])) / int(symbol[1:])
    cyclic = np.column_stack([0 * half, 0 * half, np.sin(half), np.cos(half)])
    if symbol[0] == "C":
        return cyclic
    return np.concatenate([cyclic, quaternion_product(cyclic, [1.0, 0.0, 0.0, 0.0])])


def _turn(axis, fold):
    """Return the quaternion of a turn by 2 pi / fold about an axis."""
    axis = np.asarray(axis, dtype=float)
    return np.append(np.sin(np.pi / fold) * axis / np.linalg.norm(axis), np.cos(np.pi / fold))


def _closure(generators):
    """Return all products of some rotations, up to sign, the identity first; the caller knows that they are few."""
    group = np.array([[0.0, 0.0, 0.0, 1.0]])
    fresh = group
    while len(fresh):
        found = quaternion_product(fresh[:, None], generators[None]).reshape(-1, 4)
        fresh = []
        for q in found:
            if np.abs(group @ q).max() < 1 - 1e-9:
                group = np.vstack([group, q])
                fresh.append(q)
        fresh = np.array(fresh)
    return group
