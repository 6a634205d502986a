"""Reading ONNX files that nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from bnn_deploy.errors import ModelFileError, message_lines
from bnn_deploy.onnx_files.external_data import embed_external_data
from bnn_deploy.onnx_files.qonnx_domains import declare_qonnx_domains
from bnn_deploy.onnx_files.standard_operators import STANDARD_DOMAINS
from bnn_deploy.onnx_files.walk import all_tensors, subgraphs
from bnn_deploy.ops.operator import describe
from bnn_deploy.ops.registry import DOMAIN, OPERATORS, OPSET, operator_of

# protobuf's own limit for one message.
LARGEST_FILE = 2**31 - 1
# Nodes after inlining every function. The largest model here has about 2500; nested functions can hide billions.
MOST_NODES = 1_000_000


def load_onnx(path: str | Path) -> ModelProto:
    """Read and check an ONNX file. Nothing is executed, and no file outside its folder is opened.

    Returns:
        The model: valid for onnx.checker, all its tensors inside it (those from other files of its folder too), its
        ``bnn_deploy`` nodes well-formed, QONNX's operator sets declared, and no initializer among its inputs.

    Raises:
        ModelFileError: one sentence on what is wrong with the file, the node where there is one, and what to do.
    """
    path = Path(path)
    content = _read(path)
    model = _parse(path, content)
    _check_functions(path, model)
    embed_external_data(path, model, LARGEST_FILE - len(content))
    _check_tensors(path, model)
    drop_default_inputs(model)
    if not model.graph.input:
        raise ModelFileError(f"{path} holds a graph whose inputs are all constants; copy or export it again.")
    _check_versions(path, model)
    declare_qonnx_domains(model)
    _check_bnn_nodes(path, model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelFileError(
            f"{path} is not valid ONNX: {message_lines(error)[0].rstrip('.')}; export it again."
        ) from error
    return model


def _read(path: Path) -> bytes:
    try:
        if not path.exists():
            raise ModelFileError(f"{path} does not exist; give the path of an ONNX file.")
        if not path.is_file():
            raise ModelFileError(f"{path} is not a file; give the path of an ONNX file.")
        size = path.stat().st_size
        if size == 0:
            raise ModelFileError(f"{path} is empty; export the model again.")
        if size > LARGEST_FILE:
            raise ModelFileError(f"{path} has {size} bytes, but an ONNX file has at most {LARGEST_FILE}.")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"Cannot read {path}: {error.strerror}.") from error


def _parse(path: Path, content: bytes) -> ModelProto:
    try:
        model: ModelProto = ModelProto.FromString(content)
    except (DecodeError, RuntimeError) as error:
        if _looks_like_text(content):
            raise ModelFileError(
                f"{path} is a text file, not an ONNX model; give the file that export wrote."
            ) from error
        if content.startswith((b"PK\x03\x04", b"\x80\x02")):
            raise ModelFileError(
                f"{path} looks like a PyTorch file, not an ONNX model; write the network with torch.onnx.export, or give the "
                "file to `bnn-deploy export MODEL --weights`."
            ) from error
        raise ModelFileError(
            f"{path} is not an ONNX model, or is truncated or damaged; copy or export it again."
        ) from error
    if not _texts_are_text(model):
        raise ModelFileError(f"{path} has names that are no text (UTF-8): it is damaged; copy or export it again.")
    if not model.graph.node:
        kind = "a text file" if _looks_like_text(content) else "a file without a graph"
        raise ModelFileError(f"{path} is {kind}, not an ONNX model; give the file that export wrote.")
    if not model.graph.input or not model.graph.output:
        raise ModelFileError(f"{path} holds a graph without inputs or outputs; copy or export it again.")
    return model


def _texts_are_text(message: Message) -> bool:
    """Whether all that should be text is UTF-8; protobuf does not mind, and gives bytes instead of str."""
    for field, value in message.ListFields():
        values = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
        if field.type == FieldDescriptor.TYPE_STRING and not all(isinstance(text, str) for text in values):
            return False
        if field.type == FieldDescriptor.TYPE_MESSAGE and not all(_texts_are_text(item) for item in values):
            return False
    return True


def _looks_like_text(content: bytes) -> bool:
    start = content[:4096]
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)


def _check_functions(path: Path, model: ModelProto) -> None:
    """Refuse recursive functions and those that expand beyond reason: onnx and runtimes inline them blindly."""
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    unfinished: set[tuple[str, str]] = set()

    def size_of(nodes: Iterator[NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            total += 1 if key not in functions else expanded(key)
            total += sum(size_of(iter(graph.node)) for graph in subgraphs(node))
        return total

    def expanded(key: tuple[str, str]) -> int:
        if key in unfinished or len(unfinished) > 100:
            raise ModelFileError(
                f"{path}: function {key[0]}::{key[1]} calls itself or nests too deep; ONNX forbids that."
            )
        if key not in sizes:
            unfinished.add(key)
            sizes[key] = size_of(iter(functions[key].node))
            unfinished.remove(key)
        return sizes[key]

    for key in functions:
        expanded(key)
    if size_of(iter(model.graph.node)) > MOST_NODES:
        raise ModelFileError(f"{path} expands to more than {MOST_NODES} nodes; its functions are nested too deep.")


def _check_tensors(path: Path, model: ModelProto) -> None:
    """Refuse tensors whose data do not fill their shape."""
    for tensor in all_tensors(model):
        try:
            if min(tensor.dims, default=0) < 0:
                raise ValueError("negative dimension")
            numpy_helper.to_array(tensor)
        except Exception as error:
            shape = tuple(tensor.dims)
            raise ModelFileError(
                f"{path}: the data of tensor {tensor.name!r} do not match its shape {shape} and type; "
                "the file is damaged, export it again."
            ) from error


def drop_default_inputs(model: ModelProto) -> None:
    """Initializers that are inputs too (all of them in IR version 3) are the weights: no caller replaces them here."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        # From IR version 4 on an initializer need not be an input.
        model.ir_version = max(model.ir_version, 4)


def _check_versions(path: Path, model: ModelProto) -> None:
    newest = {DOMAIN: OPSET, **dict.fromkeys(STANDARD_DOMAINS, onnx.defs.onnx_opset_version())}
    for opset in model.opset_import:
        if opset.version > newest.get(opset.domain, opset.version):
            package = "bnn-deploy" if opset.domain == DOMAIN else f"onnx {onnx.__version__}"
            raise ModelFileError(
                f"{path} uses version {opset.version} of the operator set {opset.domain or 'ai.onnx'!r}, but this "
                f"{package} knows only version {newest[opset.domain]}; install a newer one."
            )


def _check_bnn_nodes(path: Path, model: ModelProto) -> None:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        operator = operator_of(node)
        if operator is None:
            raise ModelFileError(
                f"{path}: {describe(node)} is no operator of {DOMAIN!r} version {OPSET}, which has "
                f"{', '.join(OPERATORS)}; install a newer bnn-deploy or export the model again."
            )
        found = [name for name in node.input if name]
        if len(found) != len(operator.inputs) or len(node.output) != 1:
            raise ModelFileError(
                f"{path}: {describe(node)} needs the inputs {', '.join(operator.inputs)} and one output, found "
                f"{len(found)} inputs and {len(node.output)} outputs."
            )
        operator.attributes_of(node)
        weights = tensors.get(node.input[1]) if operator.weight_bits is not None else None
        if weights is not None and (weights.data_type != TensorProto.UINT8 or len(weights.dims) != 2):
            kind = TensorProto.DataType.Name(weights.data_type)
            raise ModelFileError(
                f"{path}: {describe(node)}: W must be UINT8 of shape (outputs, bytes), found {kind} of shape "
                f"{tuple(weights.dims)}."
            )
