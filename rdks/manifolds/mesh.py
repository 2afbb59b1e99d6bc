"""Surfaces known by a triangle mesh."""
from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ..errors import require
from .graph import DiscreteSpace, as_index, check_connected, frozen

__all__ = ["Mesh"]

_CHARTS = ("ambient", "barycentric")
# A face whose height is below this part of its longest edge has no area worth the name.
_FLAT = 1e-10
# A barycentric coordinate below this is on the opposite edge.
_ON_EDGE = 1e-12
# Pairs of a point and a triangle in one block of the search for closest points.
_PAIRS = 1_000_000


def _norm(V):
    return np.sqrt(np.einsum("...j,...j->...", V, V))


def closest_on_triangles(X, A, B, C):
    """Return the barycentric coordinates of the point of each triangle that is closest to a point.

    Parameters
    ----------
    X, A, B, C : ndarray, shape (n, 3)
        Points, and the corners of one triangle for each.

    Returns
    -------
    b : ndarray, shape (n, 3)
        Coordinates >= 0 that sum to one.
    distance : ndarray, shape (n,)

    Notes
    -----
    The foot of the perpendicular if that lies in the triangle, else the best of the closest points of the three
    edges: every case is computed, and the smallest distance is kept.
    """
    corners = np.array([A, B, C])
    best = np.zeros((len(X), 3))
    distance = np.full(len(X), np.inf)

    def offer(b, allowed):
        nonlocal best, distance
        d = _norm(np.einsum("nk,knj->nj", b, corners) - X)
        better = allowed & (d < distance)
        best, distance = np.where(better[:, None], b, best), np.where(better, d, distance)

    for i in range(3):
        j = (i + 1) % 3
        along = corners[j] - corners[i]
        s = np.clip(np.einsum("nj,nj->n", X - corners[i], along) / np.einsum("nj,nj->n", along, along), 0.0, 1.0)
        b = np.zeros((len(X), 3))
        b[:, i], b[:, j] = 1 - s, s
        offer(b, np.ones(len(X), bool))
    normal = np.cross(B - A, C - A)
    square = np.einsum("nj,nj->n", normal, normal)
    b = np.empty((len(X), 3))
    for i, (P, Q) in enumerate(((B, C), (C, A), (A, B))):
        b[:, i] = np.einsum("nj,nj->n", np.cross(P - X, Q - X), normal) / square
    inside = (b >= 0).all(axis=1)
    offer(np.where(inside[:, None], b / b.sum(axis=1, keepdims=True), 0.0), inside)
    return best, distance


class _ClosestPoint:
    """Closest points of a mesh: trees over the centroids of its faces, one tree per class of face size.

    A face of radius r about its centroid c is at least |x - c| - r away from x. A first upper bound is the
    distance to the faces around the nearest vertex; every face whose lower bound does not exceed it is then looked
    at, so the answer is the closest point, not a guess.
    """

    def __init__(self, vertices, faces):
        from scipy.spatial import cKDTree

        self.corners = vertices[faces]
        self.tree = cKDTree(vertices)
        order = np.argsort(faces.ravel(), kind="stable")
        self.around = order // 3
        self.first = np.searchsorted(faces.ravel()[order], np.arange(len(vertices) + 1))
        centre = self.corners.mean(axis=1)
        # a little more than the radius, for the rounding of centres
        radius = _norm(self.corners - centre[:, None]).max(axis=1) + 1e-14 * np.abs(vertices).max()
        self.classes = []
        size = np.floor(np.log2(radius / radius.max())).astype(int)
        for s in np.unique(size):
            members = np.flatnonzero(size == s)
            self.classes.append((members, cKDTree(centre[members]), float(radius[members].max())))

    def __call__(self, X):
        """Return face, (n,), barycentric coordinates, (n, 3), and distance, (n,), of the closest point of each row."""
        face, b, distance = np.zeros(len(X), np.int64), np.zeros((len(X), 3)), np.full(len(X), np.inf)
        nearest = self.tree.query(X)[1]
        count = self.first[nearest + 1] - self.first[nearest]
        point = np.repeat(np.arange(len(X)), count)
        place = np.arange(point.size) + np.repeat(self.first[nearest] - np.cumsum(count) + count, count)
        self._offer(X, point, self.around[place], face, b, distance)
        for members, tree, radius in self.classes:
            reach = distance * (1 + 1e-12) + radius
            count = tree.query_ball_point(X, reach, return_length=True)
            start = 0
            while start < len(X):
                stop = max(start + 1, int(np.searchsorted(np.cumsum(count[start:]), _PAIRS, side="right")) + start)
                part = np.arange(start, stop)
                found = tree.query_ball_point(X[part], reach[part])
                point = np.repeat(part, count[part])
                if point.size:
                    self._offer(X, point, members[np.concatenate(list(found)).astype(np.int64)], face, b, distance)
                start = stop
        return face, b, distance

    def _offer(self, X, point, candidate, face, b, distance):
        """Keep the best of the candidates of each point, if it is closer than what is known."""
        A, B, C = np.moveaxis(self.corners[candidate], 1, 0)
        new_b, new = closest_on_triangles(X[point], A, B, C)
        order = np.lexsort((candidate, new, point))
        first = np.flatnonzero(np.diff(point[order], prepend=-1))
        keep = order[first]
        keep = keep[new[keep] < distance[point[keep]]]
        at = point[keep]
        face[at], b[at], distance[at] = candidate[keep], new_b[keep], new[keep]


@dataclass(frozen=True, eq=False, repr=False)
class Mesh(DiscreteSpace):
    r"""Surface given by triangles, closed or with a boundary that reflects.

    Parameters
    ----------
    vertices : array-like, shape (N, 3)
        Corners of the triangles, in the length unit of your choice.
    faces : array-like of int, shape (F, 3)
        Triangles as rows of vertex numbers, in any orientation; the surface need not be orientable.
    n_eigen : int
        Number of eigenfunctions to find when they are needed: for large times and for choosing a bandwidth.
    coords : {"ambient", "barycentric"}
        How points are written: as vectors of space on the surface, or as rows (face, b1, b2, b3) of a face
        number and the weights of its corners.

    Raises
    ------
    ValueError
        If the mesh is not a connected surface: names the vertex, face or edge, and says what to do.
    MissingDependencyError
        If ``robust_laplacian`` is not installed (extra ``mesh``).

    Notes
    -----
    The Laplacian is the cotangent one on the intrinsic Delaunay triangulation of the surface [1]_, whose
    conductances are never negative, with the vertex areas of the mesh as given (a third of the adjacent faces) as
    masses. A density is linear on every face, so it is positive everywhere and its integral over the surface is exactly
    one. A datum within a face is spread over the corners by its barycentric weights. All of this is the heat kernel of
    the surface up to :math:`O(e^2)`, e the edge length; bandwidths below e are not resolved. A boundary reflects
    (Neumann condition): no mass leaves.

    The score is the gradient of the log density at vertices, averaged over the adjacent faces by area, interpolated,
    and projected on the face: continuous along edges up to the bend, with an error between O(e) and :math:`O(e^2)` (a
    third when the edges are halved, on icospheres; O(e) at a boundary). It is a vector of space; with
    coords="barycentric" it is written as the row (0, db1, db2, db3) of the rates at which the weights change.

    Embedded points are rows (face, b1, b2, b3). A point on an edge or at a vertex belongs to the adjacent face of the
    lowest number, so that copies of a point are equal.

    References
    ----------
    .. [1] Sharp and Crane, "A Laplacian for nonmanifold triangle meshes", Computer Graphics Forum 39 (2020) 69; the
       package robust_laplacian is theirs.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.manifolds import Mesh
    >>> corners = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    >>> tetrahedron = Mesh(corners, [[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    >>> tetrahedron
    Mesh(4 vertices, 4 faces, closed)
    >>> est = RDKSEstimator(tetrahedron, bandwidth=1.0).fit([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    >>> est.score_samples([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0]]).round(2)
    array([-1.74, -3.89])
    """

    vertices: object
    faces: object
    _: KW_ONLY
    n_eigen: int = 100
    coords: str = "ambient"

    dim = 2

    def __post_init__(self):
        self._set_eigen()
        if self.coords not in _CHARTS:
            raise ValueError(f"coords = {self.coords!r} is not one of {_CHARTS}")
        V = np.array(self.vertices, dtype=float)
        if V.ndim != 2 or V.shape[1] != 3 or len(V) < 3:
            raise ValueError(f"vertices has shape {V.shape}: expected (N, 3), N >= 3")
        bad = np.flatnonzero(~np.isfinite(V).all(axis=1))
        if bad.size:
            raise ValueError(f"vertices[{bad[0]}] = {V[bad[0]]} is not finite ({bad.size} such rows). Remove it, "
                             "and the faces that use it")
        F = np.asarray(self.faces)
        if F.ndim != 2 or F.shape[1] != 3 or not len(F):
            raise ValueError(f"faces has shape {F.shape}: expected (F, 3), at least one row. Split polygons into "
                             "triangles")
        F = as_index("faces", F, len(V))
        area = self._check_faces(V, F)
        edges, count, of_face = self._check_edges(V, F)
        weights = self._conductances(V, F)
        object.__setattr__(self, "vertices", frozen(V))
        object.__setattr__(self, "faces", frozen(F))
        object.__setattr__(self, "_area", area)
        object.__setattr__(self, "_boundary", int((count == 1).sum()))
        # lowest face at each vertex, and on the edge opposite to each corner
        lowest = np.full(len(V), len(F))
        np.minimum.at(lowest, F.ravel(), np.repeat(np.arange(len(F)), 3))
        on_edge = np.full(len(edges), len(F))
        np.minimum.at(on_edge, of_face.ravel(), np.repeat(np.arange(len(F)), 3))
        object.__setattr__(self, "_face_of_vertex", lowest)
        object.__setattr__(self, "_face_of_edge", on_edge[of_face])
        mass = np.bincount(F.ravel(), np.repeat(area / 3, 3), minlength=len(V))
        self._settle(mass, weights, (V, F, self.n_eigen, self.coords))

    @staticmethod
    def _check_faces(V, F):
        """Return the areas of the faces, after checking that each is a triangle and every vertex is used."""
        P = V[F]
        E = P[:, [1, 2, 0]] - P
        longest = _norm(E).max(axis=1)
        with np.errstate(over="ignore", under="ignore"):
            area = 0.5 * _norm(np.cross(E[:, 0], E[:, 1]))
        bad = np.flatnonzero(~(2 * area > _FLAT * longest**2))
        if bad.size:
            f = bad[0]
            raise ValueError(f"faces[{f}] = {F[f].tolist()} has no area: its height is "
                             f"{2 * area[f] / max(longest[f], 1e-300):.3g} on an edge of length {longest[f]:.3g} "
                             f"({bad.size} such faces). Merge vertices that coincide, and remove faces without area")
        unused = np.flatnonzero(np.bincount(F.ravel(), minlength=len(V)) == 0)
        if unused.size:
            raise ValueError(f"vertices[{unused[0]}] belongs to no face ({unused.size} such vertices). Remove it and "
                             "renumber the faces, for instance with numpy.unique(faces, return_inverse=True)")
        return area

    @staticmethod
    def _check_edges(V, F):
        """Return edges, (m, 2), faces on each, (m,), and the edge opposite to each corner, (F, 3); or raise."""
        half = np.sort(np.stack([F[:, [1, 2]], F[:, [2, 0]], F[:, [0, 1]]], axis=1), axis=2).reshape(-1, 2)
        # one number per edge: many times faster to sort than rows
        edges, which, count = np.unique(half @ [len(V), 1], return_inverse=True, return_counts=True)
        edges, which = np.stack(np.divmod(edges, len(V)), axis=1), which.reshape(-1, 3)
        bad = np.flatnonzero(count > 2)
        if bad.size:
            on = np.flatnonzero((which == bad[0]).any(axis=1))
            raise ValueError(f"the edge {edges[bad[0]].tolist()} belongs to {count[bad[0]]} faces ({on[:6].tolist()}), "
                             f"a surface has at most 2 on an edge ({bad.size} such edges). Remove faces that repeat, "
                             "or cut the mesh open there")
        link = sp.coo_array((np.ones(len(edges)), edges.T), shape=(len(V), len(V)))
        check_connected(link, "the mesh", "Fit each part by itself, or merge vertices that coincide along a seam")
        # corners of one vertex are linked through the edges they share: more than one fan is a pinched surface
        order = np.argsort(which.ravel(), kind="stable")
        pair = order[np.flatnonzero(np.diff(which.ravel()[order]) == 0)[:, None] + [0, 1]]
        f, g = pair[:, 0] // 3, pair[:, 1] // 3
        links = []
        for v in edges[which.ravel()[pair[:, 0]]].T:
            links.append([3 * f + (F[f] == v[:, None]).argmax(axis=1), 3 * g + (F[g] == v[:, None]).argmax(axis=1)])
        a, b = np.concatenate(links, axis=1) if len(pair) else np.zeros((2, 0), int)
        joined = sp.coo_array((np.ones(len(a)), (a, b)), shape=(F.size, F.size))
        fans, label = connected_components(joined, directed=False)
        vertex_of_fan = np.empty(fans, np.int64)
        vertex_of_fan[label] = F.ravel()
        fans_at = np.bincount(vertex_of_fan, minlength=len(V))
        bad = np.flatnonzero(fans_at > 1)
        if bad.size:
            raise ValueError(f"vertices[{bad[0]}] joins {fans_at[bad[0]]} sheets that share no edge there, so the "
                             f"surface is pinched ({bad.size} such vertices). Give each sheet a vertex of its own")
        return edges, count, which

    @staticmethod
    def _conductances(V, F):
        """Return the cotangent weights of the intrinsic Delaunay triangulation, a sparse matrix."""
        laplacian = require("robust_laplacian", feature="Mesh", extra="mesh")
        # in a unit of its own size, so that none leaves the range of floats; cotangents have no unit
        centred = V - V.mean(axis=0)
        S, _ = laplacian.mesh_laplacian(centred / np.abs(centred).max(), F)
        W = sp.coo_array(-S)
        off = W.row != W.col
        data = W.data[off]
        if not data.min(initial=0.0) >= -1e-8 * data.max():
            raise ValueError(f"the Laplacian of this mesh has a weight of {data.min():.3g} beside {data.max():.3g}, "
                             "where none should be negative: faces are too thin for floating-point numbers. Remesh it")
        W = sp.csr_array((np.maximum(data, 0.0), (W.row[off], W.col[off])), shape=W.shape)
        return 0.5 * (W + W.T)

    def __repr__(self):
        rim = f"{self._boundary} boundary edges" if self._boundary else "closed"
        chart = "" if self.coords == "ambient" else f", coords={self.coords!r}"
        return f"Mesh({self.n_nodes} vertices, {len(self.faces)} faces, {rim}{chart})"

    # points

    @property
    def point_shape(self):
        return (3,) if self.coords == "ambient" else (4,)

    @property
    def embed_dim(self):
        return 4

    @property
    def size(self):
        """Diagonal of the bounding box."""
        return float(_norm(np.ptp(self.vertices, axis=0)))

    def _closest(self, X):
        return self._once("closest", lambda: _ClosestPoint(self.vertices, self.faces))(X)

    def _split(self, Z):
        """Return faces, (n,), and barycentric coordinates, (n, 3), of embedded points."""
        Z = np.asarray(Z, dtype=float)
        return np.clip(np.rint(Z[:, 0]), 0, len(self.faces) - 1).astype(np.int64), Z[:, 1:]

    def embed(self, X):
        X = np.asarray(X, dtype=float).reshape(len(X), -1)
        if self.coords == "barycentric":
            return self.project(X)
        face, b, _ = self._closest(X)
        return self.project(np.column_stack([face, b]))

    def unembed(self, Z):
        if self.coords == "barycentric":
            return np.array(Z, dtype=float)
        face, b = self._split(Z)
        return np.einsum("nk,nkj->nj", b, self.vertices[self.faces[face]])

    def project(self, Z):
        """Write embedded points in one way: weights >= 0 that sum to one, on the lowest face that has the point."""
        face, b = self._split(Z)
        b = np.maximum(b, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            b = b / b.sum(axis=1, keepdims=True)
        b = np.where(b < _ON_EDGE, 0.0, b)
        b = np.where(b > 1 - _ON_EDGE, 1.0, b)
        zeros = (b == 0).sum(axis=1)
        edge, corner = np.flatnonzero(zeros == 1), np.flatnonzero(zeros == 2)
        for rows, lowest in ((edge, self._face_of_edge[face[edge], (b[edge] == 0).argmax(axis=1)]),
                             (corner, self._face_of_vertex[self.faces[face[corner], b[corner].argmax(axis=1)]])):
            same = self.faces[lowest][:, :, None] == self.faces[face[rows]][:, None, :]
            b[rows] = np.einsum("nij,nj->ni", same, b[rows])
            face[rows] = lowest
        return np.column_stack([face.astype(float), b])

    def violation(self, X):
        X = np.asarray(X, dtype=float).reshape(len(X), -1)
        if self.coords == "ambient":
            return self._closest(X)[2] / self.size
        face = np.clip(np.rint(X[:, 0]), 0, len(self.faces) - 1)
        return np.max([np.abs(X[:, 0] - face), -X[:, 1:].min(axis=1), np.abs(X[:, 1:].sum(axis=1) - 1)], axis=0)

    def constraint(self):
        if self.coords == "ambient":
            return f"the distance to the surface, relative to the diagonal {self.size:.3g} of its bounding box,"
        return (f"the worst of the distance from a face number (0 to {len(self.faces) - 1}), a negative weight and the "
                "difference of the weights' sum from one")

    def remedy(self):
        if self.coords == "ambient":
            return ("Data measured on the true surface lie a little off the mesh: pass check_points='project' to use "
                    "the closest point of the mesh, or refine the mesh.")
        return "A point is a row (face, b1, b2, b3): a face number and weights >= 0 of its corners that sum to one."

    def push_tangent(self, X, V):
        if self.coords == "ambient":
            return np.asarray(V).reshape(len(V), 3)
        face, _ = self._split(X)
        rates = np.einsum("nkj,nj->nk", self._hat_gradients()[face], V)
        return np.column_stack([np.zeros(len(V)), rates])

    # the discretised space

    @property
    def positions(self):
        return self.vertices

    def nodes(self):
        corner = self.faces[self._face_of_vertex] == np.arange(self.n_nodes)[:, None]
        return np.column_stack([self._face_of_vertex, corner]).astype(float)

    def rows(self, Z):
        face, b = self._split(Z)
        return sp.csr_array((b.ravel(), self.faces[face].ravel(), 3 * np.arange(len(face) + 1)),
                            shape=(len(face), self.n_nodes))

    def draw(self, log_p, n_samples, rng):
        p = np.exp(log_p - log_p.max())[self.faces]
        weight = self._area * p.mean(axis=1)
        face = rng.choice(len(self.faces), size=n_samples, p=weight / weight.sum())
        # p = sum_c p_c b_c on the face: a corner by its value, then the law with density proportional to b_c
        edge = np.cumsum(p[face], axis=1)
        corner = (rng.uniform(0.0, 1.0, n_samples) * edge[:, 2])[:, None] > edge[:, :2]
        shape = np.ones((n_samples, 3))
        shape[np.arange(n_samples), corner.sum(axis=1)] = 2.0
        b = rng.standard_gamma(shape)
        return self.project(np.column_stack([face.astype(float), b]))

    def _hat_gradients(self):
        """Gradient of each barycentric coordinate on each face; shape (F, 3, 3)."""
        def make():
            P = self.vertices[self.faces]
            opposite = P[:, [2, 0, 1]] - P[:, [1, 2, 0]]
            normal = np.cross(P[:, 1] - P[:, 0], P[:, 2] - P[:, 0])
            return np.cross(normal[:, None], opposite) / np.einsum("nj,nj->n", normal, normal)[:, None, None]
        return self._once("hats", make)

    def to_tangent(self, Z, V):
        """Project vectors of space, (n, 3), on the planes of the faces of points."""
        P = self.vertices[self.faces[self._split(Z)[0]]]
        normal = np.cross(P[:, 1] - P[:, 0], P[:, 2] - P[:, 0])
        normal /= _norm(normal)[:, None]
        return V - np.einsum("nj,nj->n", V, normal)[:, None] * normal

    def gradient(self, Z, log_p):
        slopes = np.einsum("fk,fkj->fj", log_p[self.faces], self._hat_gradients())
        at_vertices = np.column_stack([
            np.bincount(self.faces.ravel(), np.repeat(self._area * slopes[:, j], 3), self.n_nodes) for j in range(3)])
        at_vertices /= 3 * self.mass[:, None]
        return self.to_tangent(Z, self.rows(Z) @ at_vertices)

    def neighbour_distance(self, Z):
        """Return the median distance in space of points, (n, 4), all different, to the nearest other of them."""
        from scipy.spatial import cKDTree

        face, b = self._split(Z)
        X = np.einsum("nk,nkj->nj", b, self.vertices[self.faces[face]])
        return float(np.median(cKDTree(X).query(X, k=2)[0][:, 1]))
