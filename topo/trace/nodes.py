"""What the graph around an operation says: its name, where its values come from, what becomes of them, the user's
line."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

# Run as they are on id tensors.
LAYOUT = frozenset(
    """view _unsafe_view reshape permute transpose t numpy_T mT mH adjoint swapaxes swapdims movedim moveaxis slice
    select expand expand_as view_as reshape_as broadcast_to unsqueeze squeeze flatten unflatten ravel split
    split_with_sizes chunk tensor_split hsplit vsplit unbind unsafe_chunk unsafe_split unsafe_split_with_sizes roll
    channel_shuffle native_channel_shuffle pixel_shuffle pixel_unshuffle repeat tile repeat_interleave flip fliplr
    flipud rot90 narrow diagonal unfold atleast_1d
    atleast_2d atleast_3d meshgrid""".split()
)
# The first input's units pass, whatever else the operation takes.
NORMS = frozenset(
    """batch_norm layer_norm group_norm instance_norm rms_norm _fused_rms_norm native_batch_norm native_layer_norm
    native_group_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm""".split()
)
CASTS = frozenset(
    """to _to_copy type_as contiguous clone alias detach detach_ lift_fresh_copy lift_fresh lift dropout native_dropout
    feature_dropout alpha_dropout feature_alpha_dropout cpu cuda
    requires_grad_ real imag _conj resolve_conj resolve_neg fake_quantize_per_tensor_affine nan_to_num
    fake_quantize_per_channel_affine _weight_norm _weight_norm_interface""".split()
)
ACTIVATIONS = frozenset(
    """relu relu6 hardtanh leaky_relu rrelu prelu elu celu selu gelu silu mish softplus hardswish hardsigmoid
    hardshrink softshrink sigmoid log_sigmoid tanh threshold softmax _softmax _safe_softmax log_softmax
    _log_softmax clamp clamp_min clamp_max""".split()
)
# Squash or spread what they get, and are not 0 at 0.
SATURATING = frozenset("sigmoid hardsigmoid log_sigmoid softplus exp exp2 cos cosh erfc special_expit sinc".split())
# Constant between steps, or so meant: no gradient passes.
STOPS = frozenset("sign sgn floor ceil round trunc heaviside floor_divide detach".split())
REDUCTIONS = frozenset(
    """mean sum var std var_mean std_mean norm linalg_vector_norm amax amin max min logsumexp median nansum
    nanmean""".split()
)
POOLS = frozenset(
    """max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d fractional_max_pool2d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d
    upsample_bicubic2d _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d
    replication_pad3d""".split()
)
_MOST_LOOKED_AT = 64
# Element by element, but not tagged so by torch.
_POINTWISE = frozenset("multiply subtract divide where".split())


def operation(node: Node) -> str:
    """Its name without overload: "aten.conv2d", "mylib.shift", "getitem"; in-place operations as the others."""
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    if schema is None:
        return getattr(target, "__name__", str(target))
    space, name = schema.name.split("::")
    if in_place(node) and name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return f"{space}.{name}"


def in_place(node: Node) -> bool:
    """Whether the operation writes into its first input."""
    schema = getattr(node.target, "_schema", None)
    return (
        schema is not None
        and bool(schema.is_mutable)
        and bool(schema.arguments)
        and schema.arguments[0].alias_info is not None
    )


def written(node: Node) -> list[Any]:
    """What the operation writes into: its first input, or `out`."""
    if in_place(node):
        return [node.args[0]]
    arguments = schema.arguments if (schema := getattr(node.target, "_schema", None)) is not None else ()
    return [node.kwargs.get(argument.name) for argument in arguments if argument.is_out]


def _aten(node: Node) -> str:
    name = operation(node)
    return name[5:] if name.startswith("aten.") else ""


def is_layout(node: Node) -> bool:
    return node.op == "call_function" and _aten(node) in LAYOUT


def is_pointwise(node: Node) -> bool:
    """Whether each output element depends on the input elements at its own place only."""
    return _aten(node) in _POINTWISE or torch.Tag.pointwise in getattr(node.target, "tags", ())


def passes(node: Node) -> bool:
    """Whether the units of the first input pass."""
    name = _aten(node)
    return name in NORMS or name in CASTS or name in ACTIVATIONS


def _transparent(node: Node) -> bool:
    name = _aten(node)
    return (
        node.target is operator.getitem
        or name in LAYOUT
        or name in REDUCTIONS
        or name in POOLS
        or name in ("pad", "constant_pad_nd", "masked_fill", "tril", "triu", "prod", "cumsum", "cumprod")
        or passes(node)
        or is_pointwise(node)
    )


def root(node: Node, seen: dict[Node, Node | None] | None = None) -> Node | None:
    """The node whose values `node` holds, up to element-wise operations, layout, norms, pools and reductions.

    None for what is made of parameters and constants only.
    """
    seen = {} if seen is None else seen
    if node not in seen:
        if node.op in ("placeholder", "get_attr"):
            seen[node] = node if node.meta.get("input") else None
        else:
            roots = {root(arg, seen) for arg in node.all_input_nodes} - {None}
            if not roots:
                seen[node] = None
            elif len(roots) == 1 and _transparent(node):
                seen[node] = roots.pop()
            else:
                seen[node] = node
    return seen[node]


def statistic(node: Node, seen: dict[Node, Node | None]) -> str | None:
    """What a reduction is that only rescales or shifts what was reduced: RMSNorm's mean square, softmax's sum.

    "shift": every use of it ends in being taken off the reduced tensor (x - mean, in a norm); "scale": some divide it.
    Such a statistic is not a path. None if it is one: if anything else reads it, or if it is added or multiplied
    (x + mean, a gate by the mean).
    """
    reduced = node.all_input_nodes[0]
    home, size = root(reduced, seen), _numel(reduced)
    queue, ends = [(user, node, False) for user in node.users], set()
    while queue:
        user, of, inverse = queue.pop()
        if user.op == "output" or not _transparent(user) or root(user, seen) is not home:
            return None
        name = _aten(user)
        below = name in ("div", "divide", "true_divide") and len(user.args) > 1 and user.args[1] is of
        inverse ^= below or name in ("rsqrt", "reciprocal") or (name == "pow" and _negative(user.args[-1]))
        if len(user.all_input_nodes) > 1 and is_pointwise(user) and _numel(user) >= size:
            if name in ("sub", "subtract", "rsub"):
                ends.add("shift")
            elif inverse:
                ends.add("scale")
            else:
                return None
        else:
            queue.extend((onward, user, inverse) for onward in user.users)
    if ends == {"shift"} and not _reduced_again(node, seen):
        return None
    return "scale" if "scale" in ends else "shift" if ends else None


def _reduced_again(node: Node, seen: dict[Node, Node | None]) -> bool:
    """Whether what was reduced, or what is made of it alone, is reduced once more, as by norms and softmax by hand."""
    reduced = node.all_input_nodes[0]
    home, queue, met = root(reduced, seen), [reduced], {reduced, node}
    while queue:
        for user in queue.pop(0).users:
            if user in met or not _transparent(user) or root(user, seen) is not home or len(met) > _MOST_LOOKED_AT:
                continue
            if _aten(user) in REDUCTIONS:
                return True
            met.add(user)
            queue.append(user)
    return False


def _negative(value: Any) -> bool:
    return isinstance(value, (int, float)) and value < 0


def _numel(node: Node) -> int:
    given = outcome(node)
    return extent(given.shape) if isinstance(given, Tensor) else 0


_KEEP_AXES = frozenset(
    "cat pad constant_pad_nd cumsum cumprod logcumsumexp flip roll softmax log_softmax layer_norm".split()
)


def feature_axis(node: Node, roots: dict[Node, Node | None]) -> int | None:
    """Which axis, from the end, holds features to the layer that is the first to read what becomes of `node`.

    -1 if it is a matrix, -3 if it is a convolution over two axes; None if no layer is found.
    """
    queue, seen = [node], {node}
    while queue:
        for user in queue.pop(0).users:
            name = _aten(user)
            if (name in ("linear", "matmul", "mm") or name.startswith("conv")) and user.args[0] in seen:
                weight = user.args[1]
                if not isinstance(weight, Node) or root(weight, roots) is not None:
                    return None
                return 1 - outcome(weight).dim() if name.startswith("conv") else -1
            onward = passes(user) or is_pointwise(user) or name in _KEEP_AXES
            if onward and user not in seen and len(seen) < _MOST_LOOKED_AT:
                seen.add(user)
                queue.append(user)
    return None


def outcome(node: Node) -> Any:
    """The tensor, number or list of them (fake ones, while exporting) that the node gave."""
    return node.meta.get("val")


def extent(shape: Iterable[Any]) -> int:
    total = 1
    for side in sizes(shape):
        total *= side
    return total


def sizes(shape: Iterable[Any]) -> tuple[int, ...]:
    """A shape as integers; a size that depends on data counts as 2."""
    found = []
    for side in shape:
        if not isinstance(side, int):
            expression = side.node.expr
            side = int(expression.subs({symbol: 2 for symbol in expression.free_symbols}))
        found.append(int(side))
    return tuple(found)


def activated(node: Any, seen: dict[Node, Node | None]) -> bool:
    """Whether the values of `node` came last through an activation or a softmax (layout, casts and constant factors
    aside)."""
    while isinstance(node, Node) and node.op == "call_function":
        name = _aten(node)
        if name in ACTIVATIONS or (name == "div" and _by_its_sum(node, seen)):
            return True
        data = [arg for arg in node.all_input_nodes if root(arg, seen) is not None]
        if not (
            node.target is operator.getitem
            or name in LAYOUT
            or name in CASTS
            or (len(data) == 1 and is_pointwise(node))
        ):
            return False
        if not data:
            return False
        node = data[0]
    return False


def _by_its_sum(node: Node, seen: dict[Node, Node | None]) -> bool:
    """x / x.sum(): a softmax or a weighting written by hand."""
    below = node.args[1] if len(node.args) > 1 else None
    return isinstance(below, Node) and _aten(below) == "sum" and root(below, seen) is root(node, seen)


def parameters_behind(node: Any) -> set[str]:
    """The parameters of two or more dimensions that take part in computing `node`."""
    queue, seen, found = [node], set(), set()
    while queue:
        at = queue.pop()
        if isinstance(at, Node) and at not in seen:
            seen.add(at)
            queue.extend(at.all_input_nodes)
            if "parameter" in at.meta and outcome(at).dim() > 1:
                found.add(at.meta["parameter"])
    return found


def leaves(node: Node) -> bool:
    """Whether the values of a node go out of the network as they are, and nowhere else."""
    users = [user for user in node.users if user.op == "output" or isinstance(outcome(user), Tensor)]
    return all(user.op == "output" or ((is_layout(user) or _aten(user) in CASTS) and leaves(user)) for user in users)


def line(node: Node) -> str:
    """Where the user's model calls the operation: file, line, code and module."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s+(.*)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if "/torch/" not in frame[0].replace("\\", "/")] or frames
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = stack[-1][0] if stack else ""
    where = f" in module '{module}'" if module else ""
    if own:
        file, number, function, code = own[-1]
        return f"{file}, line {number}, in {function}: `{code.strip()}`{where}"
    return f"an unknown line{where}"
