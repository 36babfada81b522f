"""Puts a file into buildbox-casd and takes it out again, by casd's own protocol, as BuildStream does.

The client under test is casd. BuildStream has the messages, so this runs with BuildStream's libraries.

    files.py put HOST:PORT INSTANCE FILE         casd takes the file and uploads it; prints HASH SIZE
    files.py get HOST:PORT INSTANCE HASH SIZE    casd fetches the blob into its own cache
"""

import sys

import grpc
from buildstream._protos.build.bazel.remote.execution.v2.remote_execution_pb2 import Digest
from buildstream._protos.build.buildgrid.local_cas_pb2 import CaptureFilesRequest, FetchMissingBlobsRequest
from buildstream._protos.build.buildgrid.local_cas_pb2_grpc import LocalContentAddressableStorageStub

SECONDS = 60


def put(casd, instance, path):
    request = CaptureFilesRequest(instance_name=instance, path=[path])
    (response,) = casd.CaptureFiles(request, timeout=SECONDS).responses
    demand(response.status)
    print(response.digest.hash, response.digest.size_bytes)


def get(casd, instance, hash, size):
    digest = Digest(hash=hash, size_bytes=int(size))
    request = FetchMissingBlobsRequest(instance_name=instance, blob_digests=[digest])
    # Only what could not be had is answered.
    for response in casd.FetchMissingBlobs(request, timeout=SECONDS).responses:
        demand(response.status)


def demand(status):
    if status.code:
        sys.exit(f"status {status.code}: {status.message}")


with grpc.insecure_channel(sys.argv[2]) as channel:
    {"put": put, "get": get}[sys.argv[1]](LocalContentAddressableStorageStub(channel), *sys.argv[3:])
