"""MLServer with a runtime of its own that does the same work in the server's process."""

import argparse
import asyncio

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]  # own environment
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
    ResponseOutput,
    TensorData,
)

from benchmarks.servers.iris import Iris


class IrisModel(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.iris = Iris()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        label, probabilities = self.iris.run(np.asarray(tensor.data.root, np.float32).reshape(tensor.shape))
        outputs = [output("label", "INT64", label), output("probabilities", "FP32", probabilities)]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)


def output(name: str, datatype: str, tensor: np.ndarray) -> ResponseOutput:
    return ResponseOutput(
        name=name, shape=list(tensor.shape), datatype=datatype, data=TensorData(tensor.ravel().tolist())
    )


async def serve(options: argparse.Namespace) -> None:
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=options.port,
        grpc_port=options.grpc_port,
        parallel_workers=0,
        metrics_endpoint=None,
        gzip_enabled=False,
    )
    model = ModelSettings(
        name="iris",
        implementation=IrisModel,
        max_batch_size=options.max_batch_size,
        max_batch_time=options.max_wait_ms / 1000,
    )
    await MLServer(settings).start([model])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("grpc_port", type=int)
    parser.add_argument("--max-batch-size", type=int, default=0)
    parser.add_argument("--max-wait-ms", type=float, default=0)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
