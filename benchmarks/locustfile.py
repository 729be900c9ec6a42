"""Realistic users: several models, JSON and binary tensors, time to think, and a look at every answer.

With its web page at http://127.0.0.1:8089, or headless:

    locust -f benchmarks/locustfile.py --web-host 127.0.0.1
    locust -f benchmarks/locustfile.py --headless --only-summary --users 20 --spawn-rate 10 --run-time 20s

An answer that is wrong, or can't be read, counts as a failure in locust's report, like one that doesn't come. This
shows how the gateway bears mixed traffic; for its speed see compare.py: locust itself is slower than the gateway.
"""

import random
from typing import Any

import numpy as np
import orjson
from locust import FastHttpUser, between, task

from nstarx.tensors import DTYPES, Tensor, Tensors, datatype_of

FLOWERS = {0: (5.1, 3.5, 1.4, 0.2), 1: (6.0, 2.9, 4.5, 1.5), 2: (6.3, 3.3, 6.0, 2.5)}
"""Flowers that every version of iris names alike, by label."""

IMAGES = {
    0: "005d910000dfaf5003f20b8004c008800580098004b01c7002e5ac00006da000",
    1: "000cd500000bg900003fg60007fgg200001gg300001gg600001gg600000bga00",
    3: "007fd10008d6f400021dd000002fb1000001cc1000001a8000845e90007dd900",
    4: "0001b00000078000001d6220007f098005ga0g6004fgdg100003fa000002g400",
}
"""Handwritten digits of 8 x 8 pixels, by label: one character a pixel, from white (0) to black (g)."""

HEADER_LENGTH = "Inference-Header-Content-Length"
ECHOED = ("FP32", "FP64", "INT8", "INT64", "UINT16")


class ModelUser(FastHttpUser):
    """Somebody who calls one model now and then."""

    abstract = True
    host = "http://127.0.0.1:8080"
    wait_time = between(0.05, 0.5)
    model: str

    def ask_in_json(self, tensor: Tensor) -> None:
        body = orjson.dumps({"inputs": [self._header(tensor) | {"data": tensor.ravel().tolist()}]})
        self._ask("JSON", tensor, body, {})

    def ask_in_binary(self, tensor: Tensor) -> None:
        data = tensor.tobytes()
        described = self._header(tensor) | {"parameters": {"binary_data_size": len(data)}}
        header = orjson.dumps({"inputs": [described], "parameters": {"binary_data_output": True}})
        self._ask("binary", tensor, header + data, {HEADER_LENGTH: str(len(header))})

    def mistake(self, asked: Tensor, outputs: Tensors) -> str:
        """What is wrong with the answer; empty when nothing is."""
        raise NotImplementedError

    def input_name(self, tensor: Tensor) -> str:
        return "x"

    def _header(self, tensor: Tensor) -> dict[str, Any]:
        return {"name": self.input_name(tensor), "shape": tensor.shape, "datatype": datatype_of(tensor)}

    def _ask(self, form: str, tensor: Tensor, body: bytes, headers: dict[str, str]) -> None:
        path, name = f"/v2/models/{self.model}/infer", f"{self.model}, {form}"
        # locust's annotation of `data` forgets bytes, which it sends as they are
        sent: Any = body
        with self.client.post(path, data=sent, headers=headers, name=name, catch_response=True) as response:
            # Without a status there was no answer, and locust itself says why.
            if response.status_code and (problem := self._problem(tensor, response)):
                response.failure(problem)

    def _problem(self, asked: Tensor, response: Any) -> str:
        """What is wrong with a response; empty when nothing is."""
        if response.status_code != 200:
            return f"status {response.status_code}: {response.text}"
        try:
            return self.mistake(asked, outputs(response.content, response.headers.get(HEADER_LENGTH)))
        except Exception as error:  # Whatever it is that can't be read: it is an answer that was counted on.
            return f"not an answer in V2, {type(error).__name__}: {error}"


class FlowerUser(ModelUser):
    """Asks iris for one flower, or for a small batch."""

    weight = 6
    model = "iris"

    @task(4)
    def one_flower(self) -> None:
        self.ask_in_json(flowers(1))

    @task(2)
    def one_flower_in_binary(self) -> None:
        self.ask_in_binary(flowers(1))

    @task(1)
    def bunch_of_flowers(self) -> None:
        self.ask_in_json(flowers(16))

    def mistake(self, asked: Tensor, outputs: Tensors) -> str:
        wanted = [next(label for label, flower in FLOWERS.items() if np.allclose(flower, row)) for row in asked]
        found = outputs["label"].tolist()
        return "" if found == wanted else f"labels {found}, but the flowers are {wanted}"


class DigitUser(ModelUser):
    """Asks digits what an image shows."""

    weight = 3
    model = "digits"

    @task(1)
    def image(self) -> None:
        self.ask_in_json(self.random_image())

    @task(3)
    def image_in_binary(self) -> None:
        self.ask_in_binary(self.random_image())

    def random_image(self) -> Tensor:
        return pixels(random.choice(list(IMAGES)))[np.newaxis]

    def mistake(self, asked: Tensor, outputs: Tensors) -> str:
        wanted = next(label for label in IMAGES if np.array_equal(pixels(label), asked.ravel()))
        found = outputs["label"].ravel().tolist()
        return "" if found == [wanted] else f"labels {found}, but the image shows {wanted}"


class EchoUser(ModelUser):
    """Sends tensors of random datatypes and sizes, and wants the same back."""

    weight = 1
    model = "echo"

    @task
    def tensor(self) -> None:
        self.ask_in_json(self.random_tensor())

    @task
    def tensor_in_binary(self) -> None:
        self.ask_in_binary(self.random_tensor())

    def random_tensor(self) -> Tensor:
        numbers = np.random.default_rng().integers(0, 100, random.randint(1, 1024))
        return numbers.astype(DTYPES[random.choice(ECHOED)])

    def input_name(self, tensor: Tensor) -> str:
        return datatype_of(tensor).lower()

    def mistake(self, asked: Tensor, outputs: Tensors) -> str:
        returned = next(iter(outputs.values()))
        same = returned.dtype == asked.dtype and np.array_equal(returned, asked)
        return "" if same else f"{returned.dtype} of shape {returned.shape} came back changed"


def flowers(count: int) -> Tensor:
    return np.array(random.choices(list(FLOWERS.values()), k=count), np.float32)


def pixels(label: int) -> Tensor:
    return np.array([int(pixel, 17) for pixel in IMAGES[label]], np.float32)


def outputs(body: bytes, header_length: str | None) -> Tensors:
    """Tensors of a V2 response, in JSON or with binary data behind it."""
    end = int(header_length or len(body))
    binary = memoryview(body)[end:]
    found: Tensors = {}
    for output in orjson.loads(body[:end])["outputs"]:
        dtype, size = DTYPES[output["datatype"]], output.get("parameters", {}).get("binary_data_size")
        flat = np.array(output["data"], dtype) if size is None else np.frombuffer(binary[:size], dtype)
        binary = binary[size or 0 :]
        found[output["name"]] = flat.reshape(output["shape"])
    return found
