"""A real receiver of OTLP over gRPC, with the protocol's own definitions, and a gRPC call that carries a trace context.

  otlp.py receive FILE                       listens on a free port and writes every span to the file, one JSON object a line
  otlp.py health HOST:PORT TRACEPARENT       asks a gateway for its health over gRPC, on behalf of that trace

Needs the packages opentelemetry-proto and grpcio.
"""

import json
import sys
from concurrent import futures

import grpc


def attributes(pairs):
    """Attributes as a dictionary of plain values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def receive(path):
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service

    with open(path, "a", buffering=1, encoding="utf-8") as out:

        class Receiver(service.TraceServiceServicer):
            def Export(self, request, context):
                for resource in request.resource_spans:
                    of_resource = attributes(resource.resource.attributes)
                    for span in (span for scope in resource.scope_spans for span in scope.spans):
                        out.write(json.dumps({
                            "service": of_resource.get("service.name"), "version": of_resource.get("service.version"),
                            "trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex(),
                            "name": span.name, "kind": span.kind, "attributes": attributes(span.attributes),
                            "micros": (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
                        }) + "\n")
                return messages.ExportTraceServiceResponse()

        server = grpc.server(futures.ThreadPoolExecutor(4))
        service.add_TraceServiceServicer_to_server(Receiver(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        print(f"listening on http://127.0.0.1:{port}", flush=True)
        server.wait_for_termination()


def health(address, traceparent):
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        check(b"", timeout=10, metadata=[("traceparent", traceparent)])


if __name__ == "__main__":
    {"receive": receive, "health": health}[sys.argv[1]](*sys.argv[2:])
