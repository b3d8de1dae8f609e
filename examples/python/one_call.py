"""One call each way: a service that keeps its own ciphertext and asks for content keys in the clear.

The tenant must allow it (clear_keys: mtls); then a service that presents a client certificate may, a token never. The
connection protects the key. There is no file format: the publishing license and the ciphertext go where the service's data goes.

    python3 one_call.py seal OWNER TEMPLATE < data > row
    python3 one_call.py open [TOKEN_FILE] < row > data      with a user's token, the user's rights decide

Whoever seals for OWNER has nothing of it: the service opens with the user's rights, or with those a grant of the template gives
the service by name.

Environment: RMS_SERVER, RMS_CA, RMS_TENANT, RMS_CERT, RMS_KEY (files of the client certificate), PYTHONPATH with the stubs.
"""
import os
import sys

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rms.v1.protection_pb2 import AcquireRequest, PublishRequest
from rms.v1.protection_pb2_grpc import ProtectionServiceStub
from rms.v1.types_pb2 import Clear, KeyDelivery, RIGHT_VIEW

CLEAR = KeyDelivery(clear=Clear())


def connect(env):
    ca, key, cert = (open(env[name], "rb").read() for name in ("RMS_CA", "RMS_KEY", "RMS_CERT"))
    return ProtectionServiceStub(grpc.secure_channel(env["RMS_SERVER"], grpc.ssl_channel_credentials(ca, key, cert)))


def seal(rms, parent, owner, template, data):
    p = rms.Publish(PublishRequest(parent=parent, template=template, owner=owner, delivery=CLEAR), timeout=5)
    nonce = os.urandom(12)
    ciphertext = AESGCM(p.content_key.clear).encrypt(nonce, data, p.license.content_id.encode())
    return p.publishing_license, p.license.content_id.encode() + nonce + ciphertext


def unseal(rms, parent, license, sealed, token=""):
    a = rms.Acquire(AcquireRequest(
        parent=parent, publishing_license=license, right=RIGHT_VIEW, delivery=CLEAR, subject_token=token), timeout=5)
    content_id, nonce, ciphertext = sealed[:36], sealed[36:48], sealed[48:]
    return AESGCM(a.content_key.clear).decrypt(nonce, ciphertext, content_id)


def main(args, env):
    rms, parent, data = connect(env), "tenants/" + env["RMS_TENANT"], sys.stdin.buffer.read()
    try:
        if args[0] == "seal":
            license, sealed = seal(rms, parent, args[1], args[2], data)
            sys.stdout.buffer.write(len(license).to_bytes(4, "big") + license + sealed)
        else:
            n, token = 4 + int.from_bytes(data[:4], "big"), open(args[1]).read().strip() if args[1:] else ""
            sys.stdout.buffer.write(unseal(rms, parent, data[4:n], data[n:], token))
    except grpc.RpcError as e:
        t = dict(e.trailing_metadata() or ())
        print("refused:", e.details(), t.get("rms-reason", e.code().name), t.get("rms-event", ""), file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    if sys.argv[1:2] not in (["seal"], ["open"]):
        sys.exit(__doc__)
    main(sys.argv[1:], os.environ)
