"""A gRPC service that remembers whom it greeted, and keeps nothing.

Start it as you start your own: python3 server.py. It listens on 127.0.0.1:50051 (PORT, HOST).
"""

import base64
import json
import os
from concurrent import futures

import grpc
from grpc_reflection.v1alpha import reflection

hello_pb2, hello_pb2_grpc = grpc.protos_and_services("hello.proto")  # compiled as the service starts


def state_in(context):
    """What was kept of this person: our own JSON, as bytes, in the JSON that came with the request."""
    state = json.loads(dict(context.invocation_metadata())["holdfast-state"])
    if not state.get("exists"):
        return {"visits": 0}
    return json.loads(base64.b64decode(state["value"]["value"]))


def state_out(context, person):
    """What is to be kept: it goes out with the reply."""
    value = base64.b64encode(json.dumps(person).encode()).decode()
    context.set_trailing_metadata([("holdfast-state", json.dumps({"operations": [{"set": {"value": value}}]}))])


class Greeter(hello_pb2_grpc.GreeterServicer):
    def Hello(self, request, context):
        person = state_in(context)
        person["visits"] += 1
        state_out(context, person)
        if person["visits"] == 1:
            return hello_pb2.HelloReply(text=f"Nice to meet you, {request.name}.")
        return hello_pb2.HelloReply(text=f"Welcome back, {request.name}. This is visit {person['visits']}.")


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor())
    hello_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server)
    reflection.enable_server_reflection(("hello.v1.Greeter", reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '50051')}")
    server.start()
    server.wait_for_termination()
