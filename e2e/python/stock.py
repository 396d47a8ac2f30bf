"""An ordinary program that uses py-spiffe as its documentation shows it. Its sisters are e2e/go/main.go and
e2e/src/bin/stock.rs; all three take the same words:

    stock x509                    fetches the X.509 context; prints it as JSON
    stock watch N                 prints the serial number of N X.509-SVIDs, as they come
    stock jwt AUDIENCE            prints a JWT-SVID
    stock validate AUDIENCE TOKEN asks the agent, and its own bundles, whose the token is
    stock serve                   prints a port and answers mTLS there, to its own trust domain
    stock get PORT ID             asks a server that must be ID

The socket comes from SPIFFE_ENDPOINT_SOCKET. `stock header` is of this one alone: what a plain gRPC client hears.
"""

import json
import ssl
import sys
import tempfile
import threading
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import JwtSource, JwtSvid, SpiffeId, WorkloadApiClient, X509Source
from spiffe._proto import workload_pb2, workload_pb2_grpc

PATIENCE = 60


def x509():
    with WorkloadApiClient() as client:
        svid = client.fetch_x509_svid(timeout=PATIENCE)
        context = client.fetch_x509_context(timeout=PATIENCE)
        assert context.default_svid.spiffe_id == svid.spiffe_id
        bundles = client.fetch_x509_bundles(timeout=PATIENCE)
        print(
            json.dumps(
                {
                    "id": str(svid.spiffe_id),
                    "not_after": int(svid.leaf.not_valid_after_utc.timestamp()),
                    "authorities": {
                        bundle.trust_domain.name: len(bundle.x509_authorities) for bundle in bundles.bundles
                    },
                }
            )
        )


def watch(count):
    changed = threading.Event()
    with X509Source(timeout_in_seconds=PATIENCE) as source:
        source.subscribe_for_updates(changed.set)
        last, left = None, int(count)
        while left > 0:
            changed.clear()
            serial = source.get_x509_context().default_svid.leaf.serial_number
            if serial != last:
                print(serial, flush=True)
                last, left = serial, left - 1
            elif not changed.wait(PATIENCE):
                sys.exit("no update")


def jwt(audience):
    with JwtSource(timeout_in_seconds=PATIENCE) as source:
        print(source.fetch_svid({audience}).token)


def validate(audience, token):
    with WorkloadApiClient() as client:
        told = client.validate_jwt_svid(token, audience, timeout=PATIENCE)
        bundle = client.fetch_jwt_bundles(timeout=PATIENCE).get_bundle_for_trust_domain(told.spiffe_id.trust_domain)
        found = JwtSvid.parse_and_validate(token, bundle, {audience})
        assert told.spiffe_id == found.spiffe_id
        print(found.spiffe_id)


def tls(source, purpose):
    """An SSL context with what the source has now."""
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    with tempfile.TemporaryDirectory() as folder:
        chain, key, roots = f"{folder}/chain.pem", f"{folder}/key.pem", f"{folder}/roots.pem"
        svid = source.get_x509_context().default_svid
        svid.save(chain, key, Encoding.PEM)
        source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain).save(roots, Encoding.PEM)
        context.load_cert_chain(chain, key)
        context.load_verify_locations(roots)
    return context


def peer(connection):
    uris = [value for kind, value in connection.getpeercert()["subjectAltName"] if kind == "URI"]
    return SpiffeId(uris[0])


def serve():
    with X509Source(timeout_in_seconds=PATIENCE) as source:

        class Hello(BaseHTTPRequestHandler):
            def do_GET(self):
                body = f"hello {peer(self.connection)}".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Hello)
        server.socket = tls(source, ssl.PROTOCOL_TLS_SERVER).wrap_socket(server.socket, server_side=True)
        print(server.server_address[1], flush=True)
        server.serve_forever()


def get(port, identity):
    with X509Source(timeout_in_seconds=PATIENCE) as source:
        connection = HTTPSConnection("127.0.0.1", int(port), context=tls(source, ssl.PROTOCOL_TLS_CLIENT), timeout=PATIENCE)
        connection.connect()
        if str(peer(connection.sock)) != identity:
            sys.exit(f"the server is {peer(connection.sock)}, not {identity}")
        connection.request("GET", "/")
        print(connection.getresponse().read().decode())


def header():
    """Plain grpcio: prints the code and the text for each of some headers, and for none."""
    import os

    with grpc.insecure_channel(os.environ["SPIFFE_ENDPOINT_SOCKET"]) as channel:
        api = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        name = "workload.spiffe.io"
        for metadata in [(), ((name, "false"),), ((name, "true"), (name, "true")), ((name, "true"),)]:
            try:
                answer = next(iter(api.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=metadata, timeout=PATIENCE)))
                print("OK", answer.svids[0].spiffe_id)
            except grpc.RpcError as error:
                print(error.code().name, error.details())


if __name__ == "__main__":
    word, *arguments = sys.argv[1:]
    globals()[word](*arguments)
