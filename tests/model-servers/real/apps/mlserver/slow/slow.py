"""An MLServer runtime that takes half a second, one request at a time."""

import time

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Slow(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        # Not awaited: a model computes, and its worker does nothing else.
        time.sleep(0.5)
        x = payload.inputs[0]
        output = ResponseOutput(name="y", shape=x.shape, datatype=x.datatype, data=list(x.data))
        return InferenceResponse(model_name=self.name, outputs=[output])
