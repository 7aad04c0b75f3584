"""Serves visits.v1.Visits: how often each page was visited.

It has no database, no memory and no library of Holdfast's. The count comes as JSON in the metadata of each request; what is
to be added goes back as JSON in the trailers of the reply.
"""

import os
import signal
import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import state

# Compiles visits.proto, which is beside this file, when the service starts: nothing generated to keep up to date.
visits_pb2, visits_pb2_grpc = grpc.protos_and_services("visits.proto")

SERVICE = visits_pb2.DESCRIPTOR.services_by_name["Visits"].full_name

# Calls under way get this long to finish when the service is told to stop.
MAX_SHUTDOWN_SECONDS = 3


class Visits(visits_pb2_grpc.VisitsServicer):
    def Record(self, request, context):
        known = state.visits(context.invocation_metadata())
        context.set_trailing_metadata(state.one_more())
        return visits_pb2.PageVisits(visits=state.shown(known + 1))

    def Get(self, request, context):
        return visits_pb2.PageVisits(visits=state.shown(state.visits(context.invocation_metadata())))


def main():
    address = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '50053')}"
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    visits_pb2_grpc.add_VisitsServicer_to_server(Visits(), server)
    checks = health.HealthServicer()
    checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as err:
        sys.exit(f"visits: listen on {address}: {err}")

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: server.stop(MAX_SHUTDOWN_SECONDS))
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
