"""A Triton model on the Python backend: x milliseconds of work, one request at a time."""

import os
import sys
import time

# The stub's interpreter is isolated on some machines and does not read the variable itself.
sys.path += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]

import triton_python_backend_utils as pb  # noqa: E402


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            time.sleep(float(x[0]) / 1000)
            answers.append(pb.InferenceResponse(output_tensors=[pb.Tensor("y", x)]))
        return answers
