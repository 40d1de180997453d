"""The smallest model that MLServer serves: it doubles what it is given."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Doubler(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = NumpyCodec.decode_input(payload.inputs[0])
        outputs = [NumpyCodec.encode_output("doubled", values * 2)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
