"""Rotations of space, with crystal symmetries, and unit quaternions."""
from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .base import Manifold, SpaceForm
from .point_groups import point_group, quaternion_product, rotation_group
from .symmetry import smallest_invariant_eigenvalue, upper

__all__ = ["SO3", "SU2"]

_SHAPES = {"matrix": (3, 3), "quaternion": (4,), "quaternion_wxyz": (4,), "rotvec": (3,)}


@dataclass(frozen=True)
class SO3(Manifold):
    r"""Rotations of three-dimensional space.

    Parameters
    ----------
    coords : {"matrix", "quaternion", "quaternion_wxyz", "rotvec"}
        How rotations are written: as matrices R, (n, 3, 3) or flattened (n, 9); as unit quaternions
        (x, y, z, w) of either sign, scalar last as in scipy, or (w, x, y, z); or as rotation vectors, axis
        times angle, of any length.
        :class:`scipy.spatial.transform.Rotation` objects are accepted with each; what takes rows by index, as
        cross-validation does, needs arrays, ``rotations.as_matrix()``.
    symmetry : str, optional
        Group of rotations S that leave the crystal as it is: R and RS are one orientation. R carries
        crystal coordinates to those of the specimen. Names: Hermann-Mauguin ("432"), Schoenflies ("O"), Laue
        class ("m-3m") or crystal system ("cubic"), see :func:`rdks.manifolds.point_groups.point_group`, and for the
        axes :func:`rdks.manifolds.point_groups.rotation_group`.
    specimen : str, optional
        Group of rotations S that leave the statistics of the specimen as they are: R and SR are one.

    Notes
    -----
    The distance is the angle of the rotation :math:`R_0^\top R`, the volume :math:`8\pi^2`. Embedded, a
    rotation is a quaternion q of length 2 up to sign, a point of the sphere :math:`S^3` of radius 2, so that

    .. math:: k_t(\omega)=p_t(\omega)+p_t(2\pi-\omega)
              =\frac{1}{8\pi^2}\sum_l(2l+1)e^{-l(l+1)t/2}\frac{\sin(l+\frac12)\omega}{\sin\frac12\omega}

    with the kernel p of that sphere. With a symmetry the sum runs over :math:`\pm q_sq`, and the volume is divided
    by the order of the groups. Since density is per volume, divide by
    ``1 / manifold.volume`` for multiples of a uniform distribution.

    Score fields are, at R and in terms of the body-frame vector :math:`\omega` of the tangent
    :math:`R\hat\omega` (turns about axes of the crystal): for rotation vectors :math:`\omega` itself; for matrices
    :math:`R\hat\omega`, whose Frobenius norm is :math:`\sqrt2|\omega|`; for quaternions the
    velocity of the unit quaternion, whose norm is :math:`\frac12|\omega|`. They belong to the copy of R that was
    given. Samples are written as the copy of smallest angle, which lies in the fundamental zone, rotation
    vectors with an angle of at most :math:`\pi`, quaternions with :math:`w\ge0`.

    Copies of one orientation, R and RS, count as one observation where a rule chooses the bandwidth.
    ``check_points="project"`` takes the rotation nearest to a matrix in the Frobenius norm. Other groups than those
    with a name: :class:`~rdks.manifolds.Quotient` of ``SO3()``.

    References
    ----------
    Characters of SO(3), for the kernel; Davenport's q-method, for the nearest rotation.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.spatial.transform import Rotation
    >>> from rdks.manifolds import SO3
    >>> turns = Rotation.from_rotvec([[0, 0, 0], [0, 0, 10], [0, 0, 100]], degrees=True)
    >>> Z = SO3(coords="rotvec").embed(turns.as_rotvec())
    >>> np.rad2deg(SO3().dist(Z[:1], Z)).round(9)
    array([  0.,  10., 100.])
    >>> np.rad2deg(SO3(symmetry="cubic").dist(Z[:1], Z)).round(9)
    array([ 0., 10., 10.])
    """

    coords: str = "matrix"
    symmetry: str | None = None
    specimen: str | None = None

    dim = 3
    antipodal = True

    def __post_init__(self):
        if self.coords not in _SHAPES:
            raise ValueError(f"coords = {self.coords!r} is not one of {tuple(_SHAPES)}")
        for name in ("symmetry", "specimen"):
            if getattr(self, name) is not None:
                try:
                    symbol = point_group(getattr(self, name))
                except ValueError as error:
                    raise ValueError(f"{name} = {error}") from None
                object.__setattr__(self, name, None if symbol == "C1" else symbol)

    @property
    def point_shape(self):
        return _SHAPES[self.coords]

    def factors(self):
        return (SpaceForm(3, radius=2.0),)

    @property
    def n_images(self):
        return len(_action(self.symmetry, self.specimen))

    def images(self, Z):
        return np.asarray(Z, dtype=float) @ _action(self.symmetry, self.specimen).transpose(0, 2, 1)

    def project(self, Z):
        return upper(super().project(Z))

    def _nearest_to_identity(self, Z):
        """Return the image of smallest angle; the given one where several are equally near."""
        action = _action(self.symmetry, self.specimen)
        # the last coordinate is 2 cos(angle / 2); the margin keeps rounding from choosing
        scalar = Z @ action[:, 3].T
        best = np.argmax(scalar > scalar.max(axis=1, keepdims=True) - 1e-12, axis=1)
        return self.project(np.einsum("nij,nj->ni", action[best], Z))

    def random(self, n, rng):
        return self._nearest_to_identity(super().random(n, rng))

    @property
    def is_homogeneous(self):
        # turns of the specimen carry any rotation to any other, and commute with a symmetry of the crystal
        return self.symmetry is None or self.specimen is None

    @property
    def smallest_eigenvalue(self):
        # l = 1, unless a symmetry leaves nothing of it
        return smallest_invariant_eigenvalue(self)

    # charts

    def read(self, X):
        """Return scipy's rotations as an array in this chart."""
        # whoever holds such an object has imported the module; nobody else should pay for that
        scipy_rotations = sys.modules.get("scipy.spatial.transform")
        if scipy_rotations is None or not isinstance(X, scipy_rotations.Rotation):
            return super().read(X)
        shape = X.as_quat().shape
        if len(shape) != 2:
            raise ValueError("X is a single rotation; expected a stack of them, Rotation.concatenate([X])"
                             if len(shape) == 1 else f"X holds rotations in an array of shape {shape[:-1]}; expected "
                             "one after the other")
        if self.coords == "matrix":
            return X.as_matrix()
        if self.coords == "rotvec":
            return X.as_rotvec()
        return X.as_quat(scalar_first=self.coords == "quaternion_wxyz")

    def embed(self, X):
        X = np.asarray(X, dtype=float).reshape(-1, *self.point_shape)
        if self.coords == "matrix":
            return self.project(_from_matrix(X))
        if self.coords == "rotvec":
            with np.errstate(over="ignore", invalid="ignore"):  # the sine of a length beyond all floats is NaN
                half = 0.5 * np.sqrt(np.einsum("nj,nj->n", X, X))[:, None]
                return self.project(np.concatenate([0.5 * np.sinc(half / np.pi) * X, np.cos(half)], axis=1))
        return self.project(np.roll(X, -1, axis=1) if self.coords == "quaternion_wxyz" else X)

    def unembed(self, Z):
        q = 0.5 * self._nearest_to_identity(self.project(Z))
        if self.coords == "matrix":
            return _to_matrix(q)
        if self.coords == "rotvec":
            size = np.sqrt(np.einsum("nj,nj->n", q[:, :3], q[:, :3]))
            stretch = np.divide(2 * np.arctan2(size, q[:, 3]), size, out=np.full(len(q), 2.0), where=size > 0)
            return stretch[:, None] * q[:, :3]
        return np.roll(q, 1, axis=1) if self.coords == "quaternion_wxyz" else q

    def push_tangent(self, X, V):
        X = np.asarray(X, dtype=float).reshape(-1, *self.point_shape)
        q = 0.5 * self.embed(X)
        if self.coords.startswith("quaternion"):
            W = 0.5 * np.asarray(V)
            if self.coords == "quaternion_wxyz":
                q, W = np.roll(q, 1, axis=1), np.roll(W, 1, axis=1)
            # V is tangent at embed(X), which is twice X or twice -X
            return np.where(np.einsum("nj,nj->n", q, X) < 0, -1.0, 1.0)[:, None] * W
        # R' = R hat(omega) is q' = q omega / 2, and V = 2 q'
        omega = quaternion_product(q * [-1.0, -1.0, -1.0, 1.0], V)[:, :3]
        if self.coords == "rotvec":
            return omega
        x, y, z = omega.T
        zero = np.zeros_like(x)
        return _to_matrix(q) @ np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)

    def violation(self, X):
        X = np.asarray(X, dtype=float).reshape(-1, *self.point_shape)
        if self.coords == "rotvec":
            return np.zeros(len(X))
        with np.errstate(over="ignore", invalid="ignore"):  # huge entries are off by inf or NaN, both more than allowed
            if self.coords == "matrix":
                off = np.abs(X.transpose(0, 2, 1) @ X - np.eye(3)).max(axis=(1, 2))
                off = np.maximum(off, np.abs(np.linalg.det(X) - 1.0))
            else:
                off = np.abs(np.sqrt(np.einsum("nj,nj->n", X, X)) - 1.0)
        return off

    def constraint(self):
        if self.coords == "matrix":
            return "the larger of max|R.T @ R - 1| and |det R - 1| (2 for a reflection)"
        return "| ||q|| - 1 |"

    def remedy(self):
        if self.coords == "matrix":
            return ("A matrix of determinant -1 is a reflection, not a rotation: one of its axes points the wrong way, "
                    "or its frame is left-handed. For a matrix that is not quite orthogonal, "
                    "check_points='project' takes the nearest rotation.")
        order = "w, x, y, z" if self.coords == "quaternion_wxyz" else "x, y, z, w"
        return f"Give unit quaternions ({order}), or pass check_points='project' to divide them by their length."


@lru_cache(maxsize=64)
def _action(symmetry, specimen):
    """Return the matrices of q -> +-s q c for s, c in the groups, the identity first; shape (g, 4, 4)."""
    left, right = (rotation_group("C1" if name is None else name) for name in (specimen, symmetry))
    # row j of the innermost product is the image of the j-th basis quaternion
    turned = quaternion_product(quaternion_product(left[:, None, None], np.eye(4)), right[None, :, None])
    turned = turned.reshape(-1, 4, 4).transpose(0, 2, 1)
    action = np.concatenate([turned, -turned])
    action.setflags(write=False)
    return action


def _from_matrix(M):
    """Return the unit quaternions (x, y, z, w) of the rotations nearest to matrices (n, 3, 3).

    NaN where there is no nearest one, as for a reflection. Accurate for every angle: a component that is small
    keeps its digits, as for tiny angles.
    """
    # The nearest rotation maximises trace(R(q)^T M) = q^T K q, and 4 q q^T = K + 1 for a rotation.
    size = np.abs(M).max(axis=(1, 2), keepdims=True)
    M = M / np.where(size > 2, size, 1.0)  # huge entries would overflow; those of a rotation are left alone
    (a, b, c), (d, e, f), (g, h, i) = np.moveaxis(M, 0, -1)
    N = np.moveaxis(np.array([[1 + a - e - i, b + d, c + g, h - f],
                              [b + d, 1 - a + e - i, f + h, c - g],
                              [c + g, f + h, 1 - a - e + i, d - b],
                              [h - f, c - g, d - b, 1 + a + e + i]]), -1, 0)
    level, axes = np.linalg.eigh(N)
    # one more multiplication: eigenvectors are known to the rounding of their largest component
    q = np.einsum("nij,nj->ni", N, axes[:, :, 3])
    unique = level[:, 3] - level[:, 2] > 1e-9
    return np.where(unique[:, None], q, np.nan) / np.sqrt(np.einsum("nj,nj->n", q, q))[:, None]


def _to_matrix(q):
    """Return the rotation matrices (n, 3, 3) of unit quaternions (x, y, z, w)."""
    x, y, z, w = q.T
    return np.moveaxis(np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                                 [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                                 [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]), -1, 0)


@dataclass(frozen=True)
class SU2(Manifold):
    r"""The group SU(2): unit quaternions (x, y, z, w), of which q and -q are different points.

    Notes
    -----
    The sphere :math:`S^3` of radius 1, volume :math:`2\pi^2`: the distance is half the angle of the
    rotation that :math:`q_0^{-1}q` covers, up to :math:`\pi` for a full turn. The matrix of q is

    .. math:: \begin{pmatrix}w+iz&y+ix\\-y+ix&w-iz\end{pmatrix}.

    Scores are tangent vectors of four numbers. For rotations, where q and -q are the same, use
    :class:`~rdks.manifolds.SO3`, whose lengths are twice those here.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import SU2
    >>> float(SU2().dist(np.array([[0, 0, 0, 1.0]]), np.array([[0, 0, 0, -1.0]]))[0]) == np.pi
    True
    """

    dim = 3
    point_shape = (4,)

    def factors(self):
        return (SpaceForm(3, radius=1.0),)

    def constraint(self):
        return "| ||q|| - 1 |"
