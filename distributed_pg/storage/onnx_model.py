"""A policy as an ONNX model."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from distributed_pg import __version__
from distributed_pg.envs.pong import observation_shape
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.policy_file import TrainedPolicy

# Old enough for every runtime in use; nothing newer is needed.
_OPSET, _IR_VERSION = 13, 8


def onnx_model(trained: TrainedPolicy) -> onnx.ModelProto:
    """Build a model that computes a policy's action probabilities.

    The input ``observations`` are those of a PongEnv with the settings in the model's metadata:
    int8 (N, 2, rows, columns), or (N, rows, columns) if the policy does not see the current frame.
    The output ``probabilities`` is float32 (N, actions).
    """
    config = trained.config
    w2 = trained.policy.w2
    shape = observation_shape(config.crop, current_frame=config.current_frame)
    w1 = np.concatenate(trained.policy.planes)  # a row for each number of an observation
    logits = w2.copy()
    logits[:, -1] = 0.0  # the last action's logit; the column holds the value
    frames = helper.make_tensor_value_info("observations", TensorProto.INT8, ["N", *shape])
    probabilities = helper.make_tensor_value_info(
        "probabilities", TensorProto.FLOAT, ["N", len(config.actions)]
    )
    nodes = [
        helper.make_node("Flatten", ["observations"], ["pixels"]),
        helper.make_node("Cast", ["pixels"], ["inputs"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["inputs", "w1"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in (("w1", w1), ("w2", logits))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "policy", [frames], [probabilities], weights),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="distributed_pg",
        producer_version=__version__,
    )
    settings = ("actions", "crop", "current_frame", "frame_skip")
    metadata = {name: json.dumps(getattr(config, name)) for name in settings}
    metadata["weights_checksum"] = weights_checksum(trained.policy)
    helper.set_model_props(model, metadata)
    return model
