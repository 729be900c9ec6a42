"""The Open Inference Protocol V2 REST codec of a replica: bodies in, tensors out, and back.

Sources: Open Inference Protocol V2 (REST), Triton's binary tensor data extension and its raw binary requests.
"""

from serving.codec.codec import Codec
from serving.codec.encoding import Answer, Bodies
from serving.codec.ids import id_of, without_id
from serving.codec.request import InferRequest, RequestedOutput
from serving.codec.stacking import stack

__all__ = ["Answer", "Bodies", "Codec", "InferRequest", "RequestedOutput", "id_of", "stack", "without_id"]
