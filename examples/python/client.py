"""Protects and opens files with the API alone, no SDK. Keys are sealed to this program and nobody else.

    python3 client.py roots                        shows the key IDs of the tenant's roots: compare one and set RMS_ROOT
    python3 client.py protect FILE TEMPLATE        writes FILE.rms
    python3 client.py unprotect FILE.rms OUTPUT    leaves a clear file, so it needs the right EXPORT

Environment: RMS_SERVER (host:port), RMS_CA (file), RMS_TENANT, RMS_ROOT (key ID, hexadecimal), RMS_TOKEN_FILE, and
PYTHONPATH with the stubs that stubs.sh made. Exit: 0 done, 1 file error, 3 refused, 7 unavailable, 8 damaged or forged.
"""
import os
import sys
import tempfile
import uuid

import grpc
from rms.v1 import protection_pb2 as pb, protection_pb2_grpc, types_pb2 as types

import formats
import licenses


class Client:
    def __init__(self, env):
        with open(env["RMS_CA"], "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        self.token = None
        if "RMS_TOKEN_FILE" in env:
            with open(env["RMS_TOKEN_FILE"]) as f:
                self.token = f.read().strip()
            credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(self.token))
        self.service = protection_pb2_grpc.ProtectionServiceStub(grpc.secure_channel(env["RMS_SERVER"], credentials))
        self.parent = "tenants/" + env["RMS_TENANT"]
        self.trust_answer = self.service.GetTrust(pb.GetTrustRequest(parent=self.parent), timeout=10)

    def trust(self, pin):
        """The trust bundle is believed because a root that was pinned signed it, not because the server sent it."""
        tenant = uuid.UUID(self.trust_answer.tenant_id).bytes
        return licenses.Trust(self.trust_answer.trust_bundle, tenant, [bytes.fromhex(pin)])

    def protect(self, trust, source, out, name, template):
        me = licenses.Caller.of_token(self.token)
        answer = self.service.Publish(pb.PublishRequest(
            parent=self.parent, template=template, delivery=delivery(me)), timeout=10)
        sealed = answer.content_key.sealed
        prefix, ck = me.published(trust, answer.publishing_license, sealed.enc, sealed.ciphertext)
        formats.write_container(out, source, prefix, ck, answer.publishing_license, name)
        return answer

    def open(self, trust, source, out, right):
        me = licenses.Caller.of_token(self.token)
        prefix, sealed_meta, license = formats.read_header(source)
        # Nothing is sent before it is known whose document this is. Nothing in it says where to send it either.
        _, fields = trust.publishing_license(license)
        formats.check(licenses.prefix_of(fields) == prefix, "the license is another document's")
        answer = self.service.Acquire(pb.AcquireRequest(
            parent=self.parent, publishing_license=license, right=right, delivery=delivery(me)), timeout=10)
        ck, use = me.acquired(trust, answer.use_license, answer.certificate, answer.content_key.sealed.enc, prefix)
        formats.check(use[133] >> (right - 1) & 1 or use[133] >> (types.RIGHT_OWNER - 1) & 1, "a license without the right")
        meta = formats.open_meta(sealed_meta, prefix, ck)
        for plain in formats.contents(source, prefix, ck):
            out.write(plain)
        return meta, answer


def delivery(me):
    return types.KeyDelivery(hpke=types.HpkePublicKey(kem=licenses.X25519, public_key=me.public))


def write_new(path, fill):
    """Has fill write a new file, which appears only if it succeeds and overwrites nothing."""
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(os.path.abspath(path))) as f:
        result = fill(f)
        f.flush()
        os.fsync(f.fileno())
        os.link(f.name, path)
        return result


def main(args, env):
    try:
        client = Client(env)
        if args == ["roots"]:
            for root in client.trust_answer.root_key_ids:
                print(root.hex())
            return 0
        trust = client.trust(env["RMS_ROOT"])
        command, path, third = args
        with open(path, "rb") as source:
            if command == "protect":
                answer = write_new(path + ".rms", lambda out: client.protect(trust, source, out, os.path.basename(path), third))
                print(answer.license.content_id, answer.event)
            else:
                meta, answer = write_new(third, lambda out: client.open(trust, source, out, types.RIGHT_EXPORT))
                print(meta[112], answer.event)
        return 0
    except OSError as e:
        print(e, file=sys.stderr)
        return 1
    except formats.Rejected as e:
        print("rejected:", e, file=sys.stderr)
        return 8
    except grpc.RpcError as e:
        trailers = dict(e.trailing_metadata() or ())
        print("refused:", e.details(), trailers.get("rms-reason", e.code().name), trailers.get("rms-event", ""), file=sys.stderr)
        return 7 if e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) else 3


if __name__ == "__main__":
    if sys.argv[1:2] not in (["protect"], ["unprotect"], ["roots"]) or len(sys.argv) != (2 if sys.argv[1] == "roots" else 4):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:], os.environ))
