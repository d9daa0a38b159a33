"""Calls every rpc with the client that grpcio generates. Arguments: address, an adapter's folder, the server's process id."""

import os
import signal
import sys
from pathlib import Path

import grpc
from dept.v1 import adapters_pb2, adapters_pb2_grpc, inference_pb2, inference_pb2_grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

address, folder, pid = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
channel = grpc.insecure_channel(address)
inference = inference_pb2_grpc.InferenceServiceStub(channel)
adapters = adapters_pb2_grpc.AdapterServiceStub(channel)
health = health_pb2_grpc.HealthStub(channel)


def check(what, holds, found=None):
    if not holds:
        sys.exit(f"BAD {what}: {found}")
    print(f"ok  {what}")


def refused(call):
    """The code and the reason of a call that must fail."""
    try:
        call()
    except grpc.RpcError as error:
        details = [detail for detail in rpc_status.from_call(error).details]
        info = error_details_pb2.ErrorInfo()
        for detail in details:
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
        return error.code(), info.reason, info.domain
    return None


def upload(name, size=1000):
    """The messages of an upload."""
    request, file = adapters_pb2.UploadAdapterRequest, adapters_pb2.UploadAdapterRequest
    yield request(start=file.Start(name=name))
    for path, kind in [
        ("adapter_config.json", file.FILE_CONFIG),
        ("adapter_model.safetensors", file.FILE_WEIGHTS),
        ("card.toml", file.FILE_CARD),
    ]:
        data = (folder / path).read_bytes()
        for at in range(0, len(data), size):
            yield request(chunk=file.Chunk(file=kind, data=data[at : at + size]))


fields = inference_pb2.Inputs(fields={"sentence": "a dull , lifeless and boring mess ."})
asked = inference_pb2.GenerateRequest(adapter="sst2", inputs=fields, sampling=inference_pb2.Sampling(logprobs=2, seed=7))
answer, call = inference.Generate.with_call(asked, metadata=[("x-request-id", "from-python")])
token = answer.choices[0].tokens[0]
check("Generate", answer.choices[0].label == "negative" and answer.usage.virtual_tokens == 20, answer)
check("log-probabilities", len(token.top) == 2 and abs(token.top[0].logprob - token.logprob) < 1e-6, token)
check("the request's id", answer.id == "from-python" == dict(call.initial_metadata())["x-request-id"], answer.id)

bare = inference_pb2.GenerateRequest(text="Translate English to German: The house is small.", max_tokens=12)
events = list(inference.GenerateStream(inference_pb2.GenerateStreamRequest(request=bare)))
text = "".join(event.delta.token.text for event in events[:-1])
check("GenerateStream", text and text == events[-1].response.choices[0].text, events)
check("one request, one answer", inference.Generate(bare).choices[0].text == text, text)

scored = inference.Classify(inference_pb2.ClassifyRequest(adapter="sst2", inputs=fields, calibrate=True))
total = sum(score.probability for score in scored.scores)
check("Classify", scored.label == "negative" and len(scored.scores) == 2 and abs(total - 1) < 1e-9, scored)

tokens = inference.Tokenize(inference_pb2.TokenizeRequest(adapter="sst2", inputs=fields))
check("Tokenize", len(tokens.ids) == len(tokens.pieces) == answer.usage.prompt_tokens, tokens)

made = adapters.UploadAdapter(upload("mine"))
check("UploadAdapter", made.created and made.adapter.version == answer.adapter_version, made)
again = adapters.UploadAdapter(upload("mine", size=1 << 20))
check("the same content is one version", not again.created and again.adapter == made.adapter, again)
found = adapters.GetAdapter(adapters_pb2.GetAdapterRequest(name="mine")).adapter
check("GetAdapter", found.prompt_length == 20 and found.card["labels"]["positive"] == "positive", found)
names = [adapter.name for adapter in adapters.ListAdapters(adapters_pb2.ListAdaptersRequest()).adapters]
check("ListAdapters", names == ["mine", "sst2"], names)
asked.adapter = "mine"
check("the upload answers", inference.Generate(asked).choices[0].label == "negative")
adapters.DeleteAdapter(adapters_pb2.DeleteAdapterRequest(name="mine"))
gone = refused(lambda: adapters.GetAdapter(adapters_pb2.GetAdapterRequest(name="mine")))
check("DeleteAdapter", gone == (grpc.StatusCode.NOT_FOUND, "ADAPTER_NOT_FOUND", "dept.v1"), gone)

empty = refused(lambda: inference.Generate(inference_pb2.GenerateRequest()))
check("a refusal has its reason", empty == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "dept.v1"), empty)
long = inference_pb2.GenerateRequest(text="Tell a long story.", max_tokens=1024, min_tokens=1024, n=8)
try:
    inference.Generate(long, timeout=0.05)
    sys.exit("BAD a deadline is ignored")
except grpc.RpcError as error:
    check("a deadline", error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error)

watch = health.Watch(health_pb2.HealthCheckRequest(service="dept.v1.InferenceService"), timeout=30)
serving = health_pb2.HealthCheckResponse
check("health says SERVING", next(watch).status == serving.SERVING)
os.kill(pid, signal.SIGTERM)
check("health says NOT_SERVING in the drain", next(watch).status == serving.NOT_SERVING)
# All is said. grpcio now and then hangs at the interpreter's end when the server of an open stream is gone, so that end is left out.
sys.stdout.flush()
os._exit(0)
