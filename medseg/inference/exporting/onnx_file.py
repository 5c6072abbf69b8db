"""Whether an ONNX file of unknown origin may be handed to a runtime: it must hold all of its weights, and no code.

Only the structure is read, not the numbers: an ONNX file is one protobuf message, and a runtime would follow what it
says about other files before anyone could object. Needs no further package.
Formats: https://protobuf.dev/programming-guides/encoding and `onnx/onnx.proto` of ONNX 1.18.
"""

from __future__ import annotations

from collections.abc import Iterator

from medseg.errors import CheckpointError

__all__ = ["check_onnx"]

# Numbers of the fields in onnx.proto.
GRAPH, TRAINING, FUNCTIONS = 7, 20, 25  # of a model
NODES, INITIALIZERS, SPARSE = 1, 5, 15  # of a graph
ATTRIBUTE, DOMAIN = 5, 7  # of a node
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS, SPARSE_VALUE, SPARSE_VALUES = 5, 6, 10, 11, 22, 23  # of an attribute
EXTERNAL, LOCATION = 13, 14  # of a tensor
SPARSE_PARTS = (1, 2)  # of a sparse tensor
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
STANDARD = (b"", b"ai.onnx")
# The largest networks have some thousands of nodes. What has more fields was made to be read for hours.
MOST_NODES, MOST_FIELDS = 100_000, 1_000_000


def check_onnx(content: bytes, where: str) -> None:
    """Refuse a file that a runtime should not see.

    Args:
        content: the ONNX file.
        where: its name for messages.

    Raises:
        CheckpointError: no ONNX file; weights in other files; operators outside of the standard; functions, loops and
            branches, which no network of medseg has; more than 100,000 nodes.

    Example:
        >>> check_onnx(b"weights", "model.onnx")
        Traceback (most recent call last):
        medseg.errors.CheckpointError: model.onnx is not an intact ONNX file; export the model again
    """
    try:
        graphs = []
        for number, value in _fields(memoryview(content)):
            if number == GRAPH:
                graphs.append(_message(value))
            elif number in (TRAINING, FUNCTIONS):
                raise CheckpointError(f"{where} contains functions or steps of training; expected one plain network")
        if len(graphs) != 1:
            raise ValueError("no graph")
        _check_graph(graphs[0], where)
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{where} is not an intact ONNX file; export the model again") from None


def _check_graph(graph: memoryview, where: str) -> None:
    nodes = 0
    for number, value in _fields(graph):
        if number == NODES:
            nodes += 1
            _check_node(_message(value), where)
        elif number == INITIALIZERS:
            _check_tensor(_message(value), where)
        elif number == SPARSE:
            _check_sparse(_message(value), where)
        if nodes > MOST_NODES:
            raise CheckpointError(f"{where} has more than {MOST_NODES} nodes")
    if not nodes:
        raise ValueError("no nodes")


def _check_node(node: memoryview, where: str) -> None:
    for number, value in _fields(node):
        if number == DOMAIN and bytes(_message(value)) not in STANDARD:
            domain = bytes(_message(value))[:40].decode("ascii", "replace")
            shown = "".join(c if c.isprintable() else "?" for c in domain)
            raise CheckpointError(f"{where} needs operators of {shown!r}; expected those of the ONNX standard alone")
        if number != ATTRIBUTE:
            continue
        for part, inner in _fields(_message(value)):
            if part in (SUBGRAPH, SUBGRAPHS):
                raise CheckpointError(f"{where} contains loops or branches; expected one plain network")
            if part in (TENSOR, TENSORS):
                _check_tensor(_message(inner), where)
            elif part in (SPARSE_VALUE, SPARSE_VALUES):
                _check_sparse(_message(inner), where)


def _check_sparse(sparse: memoryview, where: str) -> None:
    for number, value in _fields(sparse):
        if number in SPARSE_PARTS:
            # Its third field, the shape, is not a message.
            _check_tensor(_message(value), where)


def _check_tensor(tensor: memoryview, where: str) -> None:
    for number, value in _fields(tensor):
        if number == EXTERNAL or (number == LOCATION and value != 0):
            raise CheckpointError(
                f"{where} keeps weights in another file, which is never read; expected all of them inside, as "
                "medseg export writes them"
            )


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message.

    Raises:
        ValueError: for anything else.
    """
    at, end, count = 0, len(message), 0
    while at < end:
        count += 1
        if count > MOST_FIELDS:
            raise ValueError("more fields than any network has")
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == VARINT:
            value, at = _varint(message, at)
        elif kind == BYTES:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if kind == EIGHT_BYTES else 4
            value, at = message[at : at + size], at + size
        else:
            raise ValueError("unknown kind of field")
        if at > end or not number:
            raise ValueError("ends in the middle of a field")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("ends in the middle of a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
