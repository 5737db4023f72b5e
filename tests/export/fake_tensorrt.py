"""A `tensorrt` that answers by ONNX Runtime, with no names and arguments but those recorded of the real one."""

import ctypes
import json
import types
from enum import Enum
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

API = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text())
MODES = {b"nearest", b"bilinear", b"bicubic"}  # of GridSample that its reader knows; it takes others for the first
NUMBERS = {1: "FLOAT", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}  # of ONNX


def fake_tensorrt(version):
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    for name, members in API[version]["enums"].items():
        owner, _, last = name.rpartition(".")
        if not owner:
            setattr(module, last, Enum(last, {each: index for index, each in enumerate(members)}, type=int))
    for name, members in API[version]["classes"].items():
        setattr(module, name, offered(name, members, BEHAVIOUR.get(name, {}), module))
    module.ILogger.Severity = Enum("Severity", API[version]["enums"]["ILogger.Severity"])
    return module


def offered(name, members, behaviour, module):
    """A class with what was recorded; of that, what has no behaviour here can't be called."""
    body = {"module": module}
    for member, calls in members.items():
        if member in behaviour:
            body[member] = property(behaviour[member]) if calls is None else checked(calls, behaviour[member], member)
    if "buffer" in behaviour:
        body["__bytes__"] = behaviour["buffer"]
    return type(name, (), body)


def checked(calls, behave, member):
    def call(self, *given, **named):
        assert any(fits(each, given, named) for each in calls), f"{member}{given}{named}: expected {calls}"
        return behave(self, *given, **named)

    return call


def fits(arguments, given, named):
    words = [word for word in arguments.split(", ") if word]
    rest = words[len(given) :]
    names = {word.rstrip("?") for word in rest}
    return (
        len(given) <= len(words) and set(named) <= names and all(word.endswith("?") or word in named for word in rest)
    )


def made(owner, name, **state):
    kind = getattr(owner.module, name)
    each = kind.__new__(kind)
    vars(each).update(state)
    return each


def with_logger(self, logger):
    assert isinstance(logger, self.module.ILogger)
    self._logger = logger


def create_network(self, flags=0):
    assert flags == 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return types.SimpleNamespace()


def read_onnx(self, model):
    """As its reader goes about what concerns our files."""
    graph = onnx.load(model)
    bytes_in = {each.name for each in graph.graph.input if each.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    for node in graph.graph.node:
        modes = [each.s for each in node.attribute if each.name == "mode"]
        if node.op_type == "GridSample" and modes[0] not in MODES:
            self._errors.append(f"GridSample of mode {modes[0]}")
        if bytes_in & set(node.input) and node.op_type != "Cast":
            self._errors.append(f"UINT8 into {node.op_type}")
    self._network.onnx = graph
    return not self._errors


def set_shape(self, input, min, opt, max):
    assert all(low <= best <= high for low, best, high in zip(min, opt, max, strict=True))
    self._shapes[input] = (min, opt, max)


def build(self, network, config):
    (profile,) = config._profiles
    assert config._cleared == [self.module.BuilderFlag.TF32]
    for each in network.onnx.graph.input:
        sizes = [axis.dim_value for axis in each.type.tensor_type.shape.dim]
        for three in zip(sizes, *profile._shapes[each.name], strict=True):
            assert three[0] == 0 or set(three) == {three[0]}, "a fixed size is what it is"
    plan = [profile._shapes, network.onnx.SerializeToString().hex()]
    return made(self, "IHostMemory", _values=json.dumps(plan).encode())


def deserialised(self, serialized_engine):
    if not serialized_engine.startswith(b"["):
        self._logger.log(self.module.ILogger.Severity.ERROR, "magic tag does not match")
        return None
    shapes, text = json.loads(serialized_engine)
    model = onnx.load_from_string(bytes.fromhex(text))
    types_of = {each.name: each.type.tensor_type.elem_type for each in model.graph.output}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return made(self, "ICudaEngine", _shapes=shapes, _session=session, _types=types_of)


def tensor_dtype(self, name):
    return getattr(self.module.DataType, NUMBERS[self._types[name]])


def set_input_shape(self, name, shape):
    assert isinstance(shape, tuple)
    least, _, most = self._engine._shapes[name]
    self._given[name] = shape
    return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))


def set_address(self, name, memory):
    assert isinstance(memory, int)
    self._addresses[name] = memory
    return True


def run(self, read):
    session = self._engine._session
    kinds = {
        "tensor(float)": np.float32,
        "tensor(bool)": np.bool_,
        "tensor(uint8)": np.uint8,
        "tensor(int64)": np.int64,
    }
    feeds = {}
    for each in session.get_inputs():
        feeds[each.name] = values = np.zeros(self._given[each.name], kinds[each.type])
        if read:
            ctypes.memmove(values.ctypes.data, self._addresses[each.name], values.nbytes)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def execute(self, stream_handle):
    assert isinstance(stream_handle, int)
    for name, values in run(self, True).items():
        ctypes.memmove(self._addresses[name], values.ctypes.data, values.nbytes)
    return True


BEHAVIOUR = {
    "ILogger": {"__init__": lambda self: None},
    "Builder": {
        "__init__": with_logger,
        "create_network": create_network,
        "create_builder_config": lambda self: made(self, "IBuilderConfig", _profiles=[], _cleared=[], _pools={}),
        "create_optimization_profile": lambda self: made(self, "IOptimizationProfile", _shapes={}),
        "build_serialized_network": build,
    },
    "OnnxParser": {
        "__init__": lambda self, network, logger: vars(self).update(_network=network, _errors=[]),
        "parse_from_file": read_onnx,
        "num_errors": lambda self: len(self._errors),
        "get_error": lambda self, index: made(self, "ParserError", _text=self._errors[index]),
    },
    "ParserError": {"desc": lambda self: self._text},
    "IBuilderConfig": {
        "clear_flag": lambda self, flag: self._cleared.append(flag),
        "set_memory_pool_limit": lambda self, pool, pool_size: self._pools.update({pool: pool_size}),
        "add_optimization_profile": lambda self, profile: self._profiles.append(profile) or 0,
        "create_timing_cache": lambda self, serialized_timing_cache: made(self, "ITimingCache"),
        "set_timing_cache": lambda self, cache, ignore_mismatch: not ignore_mismatch,
    },
    "IOptimizationProfile": {"set_shape": set_shape},
    "ITimingCache": {"serialize": lambda self: made(self, "IHostMemory", _values=b"timings")},
    "IHostMemory": {"buffer": lambda self: self._values},
    "Runtime": {"__init__": with_logger, "deserialize_cuda_engine": deserialised},
    "ICudaEngine": {
        "create_execution_context": lambda self: made(
            self, "IExecutionContext", _engine=self, _given={}, _addresses={}
        ),
        "get_tensor_dtype": tensor_dtype,
    },
    "IExecutionContext": {
        "set_input_shape": set_input_shape,
        "set_tensor_address": set_address,
        "get_tensor_shape": lambda self, name: run(self, False)[name].shape,
        "execute_async_v3": execute,
    },
}
