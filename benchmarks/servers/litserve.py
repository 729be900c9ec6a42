"""LitServe with the same work in its worker."""

import argparse
from typing import Any

import litserve  # type: ignore[import-not-found]  # lives in an environment of its own
from starlette.responses import Response

from benchmarks.servers.iris import PATH, Iris, encode


class IrisAPI(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.iris = Iris()

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return inputs

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def predict(self, request: Any) -> Any:
        return self.iris.answer_all(request) if self.max_batch_size > 1 else self.iris.answer_all([request])[0]

    def encode_response(self, output: dict[str, Any]) -> Response:
        return Response(encode(output), media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--max-batch-size", type=int, default=1)
    parser.add_argument("--max-wait-ms", type=float, default=0)
    options = parser.parse_args()
    api = IrisAPI(max_batch_size=options.max_batch_size, batch_timeout=options.max_wait_ms / 1000, api_path=PATH)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
