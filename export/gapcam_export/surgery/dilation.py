"""A finer map from the same weights: strides of the last layers become dilation, on a graph of ATen operators."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from gapcam.errors import UsageError
from gapcam_export.surgery.dataflow import name_changes
from gapcam_export.surgery.fake_values import FakeValues
from gapcam_export.surgery.window import Window

_aten = torch.ops.aten


@dataclass(frozen=True)
class _Grid:
    """A tensor that holds positions of the image.

    Attributes:
        axes: of h and w, counted from the end: (-2, -1) in [N,C,h,w].
        stride: of the original network's tensor, in pixels, along h and w.
        factor: f for h and for w: this network's tensor holds the original's at every f-th position, from the first.
    """

    axes: tuple[int, ...]
    stride: tuple[int, ...]
    factor: tuple[int, ...] = (1, 1)

    @property
    def is_finer(self) -> bool:
        return self.factor != (1, 1)


@dataclass(frozen=True)
class _Mixed:
    """A tensor of the image whose positions cannot be told; nothing that it was made from is finer than it was.

    Attributes:
        by: the operator that mixed them.
    """

    by: fx.Node


_State: TypeAlias = "_Grid | _Mixed | None"
"""None: no positions, as in parameters and in what was pooled over all positions."""


def dilated(backbone: fx.GraphModule, size: tuple[int, int], stride: int) -> fx.GraphModule:
    """The same network with the same weights, and feature maps of a smaller stride.

    The à-trous algorithm: every convolution or pooling that would make the maps coarser than `stride` keeps all
    positions instead, and all that read its output, directly or not, leave holes between the positions that they read,
    so that each weight meets what it met before. For a network of convolutions, poolings and elementwise operators the
    result at every f-th position (f = old stride / `stride`) is the original's, exactly but for rounding; what takes
    statistics of all positions (squeeze-and-excite, group norm) takes them of more, and the result differs a little.

    No position is made up: a kernel of 2 with stride 2 and no padding (ConvNeXt, DenseNet), or TensorFlow's "same"
    padding, gives one position less than twice as many, for the next would see less of the image than any before: 13 x
    13 for 7 x 7. Windows that the original lets reach over the edge (`ceil_mode`) still do. Where branches then differ
    in size, all are cropped at their end, so that positions stay aligned at the first.

    Holschneider, Kronland-Martinet, Morlet and Tchamitchian, "A real-time algorithm for signal analysis with the help
    of the wavelet transform", 1989; Chen et al., "Semantic image segmentation with deep convolutional nets and fully
    connected CRFs" (DeepLab), ICLR 2015; Yu and Koltun, "Multi-scale context aggregation by dilated convolutions", ICLR
    2016.

    Args:
        backbone: of ATen operators, [N,3,H,W] float32 to [N,C,h,w]; it is not changed.
        size: (H, W) of its input in pixels.
        stride: of the maps that are wanted, in pixels: a divisor of the network's own. Its own changes nothing.

    Returns:
        A network from [N,3,H,W] to [N,C,h',w'] with the same parameters (not copies of them); h' is about H / `stride`.
        `node.meta["val"]` of each node has the new shape.

    Raises:
        UsageError: the network cannot have this stride, or an operator that mixes positions in a way of its own (a
            reshape, attention) would have to read the finer maps.
    """
    module = fx.GraphModule(backbone, copy.deepcopy(backbone.graph))
    _Dilation(module, size, stride).run()
    module.graph.lint()
    module.recompile()
    return module


class _Dilation:
    """One walk over a graph, in the order of its data, that rewrites it."""

    def __init__(self, module: fx.GraphModule, size: tuple[int, int], stride: int) -> None:
        self._module, self._graph, self._size, self._wanted = module, module.graph, size, stride
        name_changes(self._graph)
        images = [node for node in self._graph.nodes if node.op == "placeholder"]
        if len(images) != 1:
            raise UsageError(f"a network with {len(images)} inputs cannot be dilated; expected one image [N,3,H,W].")
        self._values = FakeValues(module, images[0], size)
        self._states: dict[fx.Node, _State] = {}
        # The original's values and this network's, as tensors of shapes without content.
        self._before: dict[fx.Node, Any] = {}
        self._after: dict[fx.Node, Any] = {}
        for node in self._graph.nodes:
            if node.op != "output":
                self._before[node] = self._values.of(node, self._before)

    def run(self) -> None:
        for node in list(self._graph.nodes):
            if node.op == "output":
                self._check_maps(node)
            elif node.op == "placeholder":
                self._keep(node, _Grid((-2, -1), (1, 1)))
            elif node.op == "get_attr":
                self._keep(node, None)
            else:
                self._rule(node)(self, node)

    def _rule(self, node: fx.Node) -> Callable[[_Dilation, fx.Node], None]:
        """What to do with an operator; what is not known here may not read finer maps."""
        operator = node.target
        if not isinstance(operator, torch._ops.OpOverload):
            return _Dilation._alike if getattr(operator, "__name__", "") == "getitem" else _Dilation._other
        if operator.namespace != "aten":
            return _Dilation._other
        rule = _RULES.get(_name(node))
        if rule is not None:
            return rule
        return _Dilation._join if torch.Tag.pointwise in operator.tags else _Dilation._other

    # Values.

    def _keep(self, node: fx.Node, state: _State) -> None:
        """This node stays, with the arguments that it has now."""
        try:
            self._after[node] = node.meta["val"] = self._values.of(node, self._after)
        except (RuntimeError, ValueError, TypeError) as error:
            self._refuse(node, f"it takes maps of one size: {str(error).splitlines()[0]}")
        self._states[node] = state

    def _insert(self, before: fx.Node, operator: Any, *args: Any) -> fx.Node:
        """A new node; it has no state and no value in the original."""
        with self._graph.inserting_before(before):
            node = self._graph.call_function(operator, args)
        self._after[node] = node.meta["val"] = self._values.of(node, self._after)
        return node

    def _replace(self, node: fx.Node, by: fx.Node, state: _State) -> None:
        node.replace_all_uses_with(by)
        self._before[by], self._states[by] = self._before[node], state
        self._graph.erase_node(node)

    def _sides(self, node: fx.Node, grid: _Grid, values: dict[fx.Node, Any] | None = None) -> tuple[int, ...]:
        """(h, w) of a tensor, in this network unless other values are given."""
        shape = (self._after if values is None else values)[node].shape
        return tuple(int(shape[axis]) for axis in grid.axes)

    # Operators that read each position by itself.

    def _pass(self, node: fx.Node) -> None:
        """Of its first argument alone; axis 1 may have a meaning, the others have none."""
        grid = self._states[node.args[0]] if isinstance(node.args[0], fx.Node) else None
        if isinstance(grid, _Grid) and (1 - self._ndim(node.args[0])) in grid.axes:
            return self._other(node)
        return self._keep(node, grid)

    def _join(self, node: fx.Node) -> None:
        """Elementwise, of one or several tensors, or put together along another axis than h and w."""
        read = node.all_input_nodes
        grids = [state for each in read if isinstance(state := self._states[each], _Grid)]
        if not grids or any(grid != grids[0] for grid in grids):
            return self._other(node)
        (grid, *_) = grids
        if not grid.is_finer:
            return self._keep(node, grid)
        for each in read:
            state, value = self._states[each], self._after[each]
            if isinstance(state, _Mixed):
                self._refuse(node, f"it joins them with what {_shown(state.by)} made")
            if state is None and _has_positions(value, grid.axes):
                self._refuse(node, "it joins them with something that has a value for each position")
        finer = [each for each in read if self._states[each]]
        smallest = tuple(map(min, zip(*(self._sides(each, grid) for each in finer), strict=True)))
        for each in finer:
            if self._sides(each, grid) != smallest:
                node.replace_input_with(each, self._cropped(node, each, grid, smallest))
        return self._keep(node, grid)

    def _cropped(self, user: fx.Node, node: fx.Node, grid: _Grid, sides: Sequence[int]) -> fx.Node:
        for axis, side in zip(grid.axes, sides, strict=True):
            if self._after[node].shape[axis] != side:
                node = self._insert(user, _aten.slice.Tensor, node, self._ndim(node) + axis, 0, side)
        return node

    def _cat(self, node: fx.Node) -> None:
        axis = self._axis(node.all_input_nodes[0], _arguments(node)["dim"])
        grids = [self._states[each] for each in node.all_input_nodes]
        if any(not isinstance(grid, _Grid) or axis in grid.axes for grid in grids):
            return self._other(node)
        return self._join(node)

    def _alike(self, node: fx.Node) -> None:
        self._keep(node, self._states[node.args[0]] if isinstance(node.args[0], fx.Node) else None)

    def _number(self, node: fx.Node) -> None:
        """A size."""
        self._keep(node, None)

    # Operators that move axes.

    def _by_axis(self, node: fx.Node) -> None:
        """Along one axis: pass if it is neither h nor w."""
        arguments = _arguments(node)
        read = arguments["self"]
        grid = self._states[read]
        if isinstance(grid, _Grid) and self._axis(read, arguments["dim"]) in grid.axes:
            return self._other(node)
        return self._keep(node, grid)

    def _last_axes(self, node: fx.Node) -> None:
        """Along the last axes: pass if they are neither h nor w."""
        arguments = _arguments(node)
        (read, *_) = arguments.values()
        grid = self._states[read]
        count = len(arguments.get("normalized_shape", [0]))
        if isinstance(grid, _Grid) and max(grid.axes) >= -count:
            return self._other(node)
        return self._keep(node, grid)

    def _permute(self, node: fx.Node) -> None:
        arguments = _arguments(node)
        read = arguments["self"]
        grid, ndim = self._states[read], self._ndim(read)
        if not isinstance(grid, _Grid):
            return self._keep(node, grid)
        order = list(range(-ndim, 0))
        if "dims" in arguments:
            order = [self._axis(read, axis) for axis in arguments["dims"]]
        else:
            first, second = self._axis(read, arguments["dim0"]), self._axis(read, arguments["dim1"])
            order[first], order[second] = second, first
        return self._keep(node, replace(grid, axes=tuple(order.index(axis) - ndim for axis in grid.axes)))

    def _drop_or_add_axis(self, node: fx.Node) -> None:
        """`unsqueeze`, `select`, `unbind`."""
        arguments = _arguments(node)
        read = arguments["self"]
        grid, ndim = self._states[read], self._ndim(read)
        if not isinstance(grid, _Grid):
            return self._keep(node, grid)
        if node.target is _aten.unsqueeze.default:
            axis = arguments["dim"] % (ndim + 1)
            axes = [each + ndim for each in grid.axes]
            return self._keep(node, replace(grid, axes=tuple(each + (each >= axis) - ndim - 1 for each in axes)))
        axis = self._axis(read, arguments["dim"])
        if axis in grid.axes:
            return self._other(node)
        return self._keep(node, replace(grid, axes=tuple(each + (each < axis) for each in grid.axes)))

    def _reshape(self, node: fx.Node) -> None:
        """`view` and the like: pass if they leave h and w as they are, behind or before what they change."""
        read = node.args[0]
        grid = self._states[read] if isinstance(read, fx.Node) else None
        if not isinstance(grid, _Grid) or not isinstance(read, fx.Node):
            return self._keep(node, grid)
        old, new = self._before[read].shape, self._before[node].shape
        if grid.axes == (-2, -1) and len(new) > 2 and _same(new[-2:], old[-2:]):
            first = len(new) - 2
        elif grid.axes == (1 - len(old), 2 - len(old)) and len(new) > 2 and _same(new[:3], old[:3]):
            first = 1
        else:
            return self._other(node)
        if node.target in (_aten.view.default, _aten.reshape.default, _aten._unsafe_view.default):
            sizes: Any = node.args[1]
            node.update_arg(1, [*sizes[:first], *self._sides(read, grid), *sizes[first + 2 :]])
        return self._keep(node, replace(grid, axes=(first - len(new), first + 1 - len(new))))

    def _slice(self, node: fx.Node) -> None:
        arguments = _arguments(node)
        read = arguments["self"]
        grid = self._states[read]
        axis = self._axis(read, arguments["dim"])
        if not isinstance(grid, _Grid) or axis not in grid.axes:
            return self._keep(node, grid)
        which = grid.axes.index(axis)
        length, factor, step = int(self._before[read].shape[axis]), grid.factor[which], arguments["step"]
        start, end, _ = slice(arguments["start"], arguments["end"]).indices(length)
        kept = self._kept_stride(grid, which, step)
        node.args = (read, arguments["dim"], start * factor, end * factor, kept)
        node.kwargs = {}
        strides, factors = list(grid.stride), list(grid.factor)
        strides[which] *= step
        factors[which] *= step // kept
        return self._keep(node, _Grid(grid.axes, tuple(strides), tuple(factors)))

    def _pad(self, node: fx.Node) -> None:
        arguments = _arguments(node)
        read = arguments["self"]
        grid = self._states[read]
        if not isinstance(grid, _Grid) or not grid.is_finer:
            return self._keep(node, grid)
        pads = list(arguments["pad"])
        for axis, factor in zip(grid.axes, grid.factor, strict=True):
            first = 2 * (-axis - 1)
            if any(pads[first : first + 2]) and arguments.get("mode", "constant") != "constant":
                return self._other(node)
            pads[first : first + 2] = [factor * pad for pad in pads[first : first + 2]]
        node.update_arg(1, pads)
        return self._keep(node, grid)

    # Operators over all positions.

    def _reduce(self, node: fx.Node) -> None:
        """Over all positions, or over none."""
        arguments = _arguments(node)
        read = arguments["self"]
        grid = self._states[read]
        if not isinstance(grid, _Grid):
            return self._keep(node, grid)
        reduced = {self._axis(read, axis) for axis in arguments.get("dim") or range(self._ndim(read))}
        if reduced >= set(grid.axes):
            self._keep(node, None)
            return self._rescale(node, arguments, grid)
        if reduced & set(grid.axes):
            return self._other(node)
        gone = [] if arguments.get("keepdim") else reduced
        return self._keep(
            node, replace(grid, axes=tuple(axis + sum(axis < each for each in gone) for axis in grid.axes))
        )

    def _rescale(self, node: fx.Node, arguments: dict[str, Any], grid: _Grid) -> None:
        """A sum or norm over more positions, to what it is over as many as before."""
        power = {"sum": 1.0, "linalg_vector_norm": 1 / (arguments.get("ord") or math.inf)}.get(_name(node), 0.0)
        if not grid.is_finer or not power:
            return
        read = arguments["self"]
        positions = math.prod(self._sides(read, grid, self._before)) / math.prod(self._sides(read, grid))
        with self._graph.inserting_after(node):
            scaled = self._graph.call_function(_aten.mul.Tensor, (node, positions**power))
        node.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)
        self._before[scaled] = self._before[node]
        self._keep(scaled, None)

    def _adaptive_pool(self, node: fx.Node) -> None:
        grid = self._states[node.args[0]] if isinstance(node.args[0], fx.Node) else None
        if isinstance(grid, _Grid) and tuple(self._before[node].shape[-2:]) == (1, 1):
            return self._keep(node, None)
        return self._other(node)

    # Convolutions and poolings.

    def _kept_stride(self, grid: _Grid, which: int, stride: int) -> int:
        """The largest part of a stride with which the maps are not coarser than wanted."""
        now = grid.stride[which] // grid.factor[which]
        return max(
            kept for kept in range(1, stride + 1) if stride % kept == 0 and (kept == 1 or now * kept <= self._wanted)
        )

    def _window(self, node: fx.Node) -> None:
        arguments = _arguments(node)
        read: fx.Node = next(iter(arguments.values()))
        grid = self._states[read]
        if isinstance(grid, _Mixed) and self._ndim(read) == 4:
            # Nothing is finer yet, so only the stride must be told: it is that of the image's sides.
            sides = self._before[read].shape[-2:]
            grid = _Grid((-2, -1), tuple(round(all_ / side) for all_, side in zip(self._size, sides, strict=True)))
        if not isinstance(grid, _Grid):
            return self._keep(node, grid)
        if grid.axes != (-2, -1) or self._ndim(read) != 4 or arguments.get("transposed"):
            return self._other(node)
        window = Window.of(arguments, self._before)
        if window.is_pooling and window.kernel == tuple(self._before[read].shape[-2:]) and max(window.kernel) > 1:
            node.update_arg(1, list(self._sides(read, grid)))
            return self._keep(node, None)  # global pooling
        kept = tuple(self._kept_stride(grid, which, stride) for which, stride in enumerate(window.stride))
        state = _Grid(
            grid.axes,
            tuple(a * b for a, b in zip(grid.stride, window.stride, strict=True)),
            tuple(f * s // k for f, s, k in zip(grid.factor, window.stride, kept, strict=True)),
        )
        if not state.is_finer:
            return self._keep(node, state)
        finer = window.dilated(grid.factor, kept)
        overhang = window.overhang(
            self._sides(read, grid), self._before[node].shape[-2:], grid.factor, state.factor, kept
        )
        if not window.is_pooling:
            return self._convolve(node, arguments, finer, state)
        if not grid.is_finer and not any(overhang):
            node.args, node.kwargs = tuple({**arguments, "stride": list(kept), "ceil_mode": False}.values()), {}
            return self._keep(node, state)
        if "count_include_pad" in arguments:
            return self._average(node, arguments, finer, overhang, state)
        padding = [(first, last + over) for (first, last), over in zip(finer.padding, overhang, strict=True)]
        padded = self._padded(node, read, padding, float("-inf"))
        node.args = (padded, list(finer.kernel), list(finer.stride), [0, 0], list(finer.dilation), False)
        node.kwargs = {}
        return self._keep(node, state)

    def _convolve(self, node: fx.Node, arguments: dict[str, Any], window: Window, state: _Grid) -> None:
        read, weight, bias = (arguments[name] for name in ("input", "weight", "bias"))
        padding = [first for first, _ in window.padding]
        if any(first != last for first, last in window.padding):
            read, padding = self._padded(node, read, window.padding, 0.0), [0, 0]
        strides = list(window.stride), padding, list(window.dilation)
        node.target, node.kwargs = _aten.conv2d.default, {}
        node.args = (read, weight, bias, *strides, arguments["groups"])
        self._keep(node, state)

    def _average(
        self, node: fx.Node, arguments: dict[str, Any], window: Window, overhang: Sequence[int], state: _Grid
    ) -> None:
        """An average pooling with holes, which there is no operator for: a sum over each window by its count."""
        read = arguments["self"]
        channels, (rows, columns) = int(self._after[read].shape[1]), window.kernel
        divisor = arguments["divisor_override"]
        counts_padding = bool(arguments["count_include_pad"]) or divisor is not None
        plain = not any(overhang) and (counts_padding or not any(map(any, window.padding)))
        beyond = [(0, over) for over in overhang]
        share = 1 / (divisor or rows * columns) if plain or divisor is not None else 1.0

        def summed(image: fx.Node, weight: float, channels: int) -> fx.Node:
            kernel = self._insert(node, _aten.new_full.default, image, [channels, 1, rows, columns], weight)
            holes = list(window.stride), [0, 0], list(window.dilation)
            return self._insert(node, _aten.conv2d.default, image, kernel, None, *holes, channels)

        inside = self._padded(node, read, window.padding, 0.0)
        total = summed(self._padded(node, inside, beyond, 0.0), share, channels)
        if not plain and divisor is None:
            ones = self._insert(node, _aten.new_full.default, read, [1, 1, *self._sides(read, state)], 1.0)
            ones = self._padded(node, ones, window.padding, float(counts_padding))
            count = summed(self._padded(node, ones, beyond, 0.0), 1.0, 1)
            total = self._insert(node, _aten.div.Tensor, total, count)
        self._replace(node, total, state)

    def _padded(self, user: fx.Node, node: fx.Node, padding: Sequence[tuple[int, int]], value: float) -> fx.Node:
        pads = [*padding[1], *padding[0]]
        return self._insert(user, _aten.pad.default, node, pads, "constant", value) if any(pads) else node

    # The rest.

    def _other(self, node: fx.Node) -> None:
        """What is not known: fine as long as it reads nothing that became finer."""
        states = [self._states[each] for each in node.all_input_nodes]
        if any(isinstance(state, _Grid) and state.is_finer for state in states):
            self._refuse(node, "it puts positions together in a way of its own")
        mixed = next((state for state in states if isinstance(state, _Mixed)), None)
        image = any(isinstance(state, _Grid) for state in states)
        self._keep(node, mixed or (_Mixed(node) if image else None))

    def _refuse(self, node: fx.Node, why: str) -> NoReturn:
        height, width = self._size
        raise UsageError(
            f"with --stride {self._wanted} {_shown(node)} would read finer maps, and cannot: {why}. For finer maps "
            f"give a larger image instead, such as --size {2 * height} {2 * width}, or a larger --stride."
        )

    def _check_maps(self, output: fx.Node) -> None:
        states = [self._states[each] for each in output.all_input_nodes]
        state = states[0] if len(states) == 1 else None
        if isinstance(state, _Mixed):
            self._refuse_stride(f"{_shown(state.by)} puts positions together in a way of its own")
        if not isinstance(state, _Grid) or state.axes != (-2, -1):
            self._refuse_stride("the network gives no maps [N,C,h,w]")
        rows, columns = state.stride
        if rows != columns:
            self._refuse_stride(f"the maps have stride {rows} along h and {columns} along w")
        if self._wanted < 1 or tuple(s // f for s, f in zip(state.stride, state.factor, strict=True)) != (
            self._wanted,
            self._wanted,
        ):
            smaller = [str(stride) for stride in range(rows - 1, 0, -1) if rows % stride == 0]
            raise UsageError(
                f"--stride {self._wanted}: the maps have stride {rows}; give {', '.join(smaller) or rows}. For another "
                "number of positions give another --size."
            )

    def _refuse_stride(self, why: str) -> NoReturn:
        raise UsageError(f"--stride {self._wanted} cannot be had: {why}. For finer maps give a larger --size instead.")

    def _ndim(self, node: Any) -> int:
        return int(self._after[node].ndim)

    def _axis(self, node: fx.Node, axis: int) -> int:
        """Counted from the end."""
        return int(axis) % self._ndim(node) - self._ndim(node)


_RULES: dict[str, Callable[[_Dilation, fx.Node], None]] = {
    **dict.fromkeys(("conv2d", "convolution", "max_pool2d", "avg_pool2d"), _Dilation._window),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _Dilation._adaptive_pool),
    **dict.fromkeys(("mean", "amax", "amin", "var", "std", "sum", "linalg_vector_norm"), _Dilation._reduce),
    **dict.fromkeys(("batch_norm", "group_norm", "instance_norm", "prelu", "channel_shuffle"), _Dilation._pass),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _Dilation._alike),
    **dict.fromkeys(("alias", "clone", "contiguous", "detach", "to", "type_as"), _Dilation._alike),
    **dict.fromkeys(("hardswish", "log_sigmoid", "rrelu"), _Dilation._alike),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "softmax", "log_softmax"), _Dilation._by_axis),
    **dict.fromkeys(("layer_norm", "rms_norm", "linear"), _Dilation._last_axes),
    **dict.fromkeys(("permute", "transpose"), _Dilation._permute),
    **dict.fromkeys(("unsqueeze", "select", "unbind"), _Dilation._drop_or_add_axis),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten"), _Dilation._reshape),
    "cat": _Dilation._cat,
    "copy": _Dilation._join,
    "pad": _Dilation._pad,
    "constant_pad_nd": _Dilation._pad,
    "slice": _Dilation._slice,
    "sym_size": _Dilation._number,
}


def _name(node: fx.Node) -> str:
    """An operator's, without the underscore of what works in place."""
    operator: Any = node.target
    return str(operator._opname).rstrip("_")


def _arguments(node: fx.Node) -> dict[str, Any]:
    """An operator's arguments by name, defaults included, in the schema's order."""
    operator: Any = node.target
    names = [argument.name for argument in operator._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    defaults = {each.name: each.default_value for each in operator._schema.arguments if each.has_default_value()}
    return {name: given[name] if name in given else defaults[name] for name in names}


def _has_positions(value: Any, axes: Sequence[int]) -> bool:
    """Whether a parameter or a number is more than one value along these axes."""
    return isinstance(value, torch.Tensor) and any(axis >= -value.ndim and value.shape[axis] != 1 for axis in axes)


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two lists of sizes are the same for any batch."""
    return len(one) == len(other) and all(statically_known_true(a == b) for a, b in zip(one, other, strict=True))


def _shown(node: fx.Node) -> str:
    """An operator and the module that it stands in."""
    modules = [
        path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path and not path.startswith("_")
    ]
    where = modules[-1].removeprefix("L__self___").lstrip(".") if modules else ""
    return f"{node.target} ({where})" if where else str(node.target)
