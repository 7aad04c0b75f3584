"""Serves meetup.v1: three services with state of three shapes, none of which is kept here.

Each request brings its state as JSON, each reply takes what happened back: seats taken, a name added, a task done. Nobody
here adds up, merges or locks: that is the state model's part.
"""

import base64
import json
import os
import signal
from concurrent import futures

import grpc
from grpc_reflection.v1alpha import reflection

meetup_pb2, meetup_pb2_grpc = grpc.protos_and_services("meetup.proto")  # compiled as the service starts


def value(context, model):
    """The state as the model shows it, None where there is none yet."""
    return json.loads(dict(context.invocation_metadata())["holdfast-state"]).get("value", {}).get(model)


def happened(context, operation):
    """Names the change that goes back with the reply."""
    context.set_trailing_metadata([("holdfast-state", json.dumps({"operations": [operation]}))])


def b64(text):
    """Elements of a set are bytes, and bytes are base64 in JSON."""
    return base64.b64encode(text.encode()).decode()


class Seats(meetup_pb2_grpc.SeatsServicer):
    """bcounter: {"value": "5", "available": "2"}. 64-bit numbers are strings in JSON, and what is zero is left out."""

    def change(self, context, by):
        happened(context, {"change": {"by": by}})
        # Whether that many are left is not asked here: two replicas that both see the last seat would both give it away.
        # The state store takes off no more than there are, and then the caller gets FAILED_PRECONDITION instead of this.
        left = int((value(context, "bcounter") or {}).get("value", 0)) + by
        return meetup_pb2.Left(seats=max(left, 0))

    def Open(self, request, context):
        return self.change(context, request.seats)

    def Take(self, request, context):
        return self.change(context, -request.seats)

    def GiveBack(self, request, context):
        return self.change(context, request.seats)

    def Get(self, request, context):
        return meetup_pb2.Left(seats=int((value(context, "bcounter") or {}).get("value", 0)))


class Guests(meetup_pb2_grpc.GuestsServicer):
    """orset: {"elements": ["QWRh", "R3JhY2U="]}. Who comes while somebody takes the name off stays on the list."""

    def names(self, context):
        elements = (value(context, "orset") or {}).get("elements", [])
        return {base64.b64decode(e).decode() for e in elements}

    def Come(self, request, context):
        if not request.name:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name is empty")
        happened(context, {"add": {"elements": [b64(request.name)]}})
        return meetup_pb2.GuestList(names=sorted(self.names(context) | {request.name}))

    def Leave(self, request, context):
        happened(context, {"remove": {"elements": [b64(request.name)]}})
        return meetup_pb2.GuestList(names=sorted(self.names(context) - {request.name}))

    def Get(self, request, context):
        return meetup_pb2.GuestList(names=sorted(self.names(context)))


class Tasks(meetup_pb2_grpc.TasksServicer):
    """ormap of flag: {"entries": {"chairs": {"flag": true}}}. Each task is a flag of its own."""

    def tasks(self, context):
        entries = (value(context, "ormap") or {}).get("entries", {})
        return {task: flag.get("flag", False) for task, flag in entries.items()}

    def Mark(self, request, context):
        operation = {"enable": {}} if request.done else {"disable": {}}
        happened(context, {"mapUpdate": {"key": request.task, "operation": operation}})
        return meetup_pb2.TaskList(tasks={**self.tasks(context), request.task: request.done})

    def Get(self, request, context):
        return meetup_pb2.TaskList(tasks=self.tasks(context))


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)])
    meetup_pb2_grpc.add_SeatsServicer_to_server(Seats(), server)
    meetup_pb2_grpc.add_GuestsServicer_to_server(Guests(), server)
    meetup_pb2_grpc.add_TasksServicer_to_server(Tasks(), server)
    names = [f"meetup.v1.{name}" for name in ("Seats", "Guests", "Tasks")]
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '50052')}")
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: server.stop(3))
    server.start()
    server.wait_for_termination()
