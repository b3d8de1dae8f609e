"""Checks v1.json and v1.rms from docs/formats.md alone, sharing no code with the service.

Needs Python 3 and the package cryptography. X-Wing is not in that package, so of
the use licenses only X25519 is opened; the rest of it is checked for both KEMs.
"""

import hashlib
import hmac
import json
import pathlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


# 1. Notation

def H(b):
    return hashlib.sha256(b).digest()


def extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def expand(prk, info):  # 32 bytes: one block
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def kdf(ikm, salt, info):
    return expand(extract(salt, ikm), info)


def gcm_open(key, aad, box):
    return AESGCM(key).decrypt(box[:12], box[12:], aad)


# 2.1 The CBOR dialect, with the two additions COSE needs: tags and negative numbers

def head(major, n):
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 24:
            return bytes([major << 5 | n])
        if n < 1 << (8 * size):
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")


def encode(v):
    if isinstance(v, int):
        return head(0, v) if v >= 0 else head(1, -1 - v)
    if isinstance(v, bytes):
        return head(2, len(v)) + v
    if isinstance(v, str):
        return head(3, len(v.encode())) + v.encode()
    if isinstance(v, list):
        return head(4, len(v)) + b"".join(map(encode, v))
    return head(5, len(v)) + b"".join(encode(k) + encode(v[k]) for k in sorted(v))


def item(b, i):
    major, n = b[i] >> 5, b[i] & 31
    i += 1
    if n >= 24:
        size = 1 << (n - 24)
        n, i = int.from_bytes(b[i:i + size], "big"), i + size
    if major == 0:
        return n, i
    if major == 1:
        return -1 - n, i
    if major == 2:
        return b[i:i + n], i + n
    if major == 3:
        return b[i:i + n].decode(), i + n
    if major == 4:
        out = []
        for _ in range(n):
            v, i = item(b, i)
            out.append(v)
        return out, i
    assert major == 5
    out = {}
    for _ in range(n):
        k, i = item(b, i)
        out[k], i = item(b, i)
    return out, i


def decode(b):
    v, end = item(b, 0)
    assert end == len(b) and encode(v) == b, "not deterministic"
    return v


def D(label, fields):
    return encode([label, fields])


# 2.3 Signed objects

def verify(obj, kind, public):
    assert obj[0] == 0xD2
    protected, unprotected, payload, signature = decode(obj[1:])
    assert unprotected == {}
    assert decode(protected) == {1: -8, 3: f"application/vnd.rms.{kind}+cbor", 4: H(b"\x00\x01" + public)}
    signed = encode(["Signature1", protected, b"rms/v1/" + kind.encode(), payload])
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    hdr, box = decode(payload)
    fields = decode(hdr)
    assert fields[1] == [1]
    return hdr, fields, box


# 6.2 HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export only

def hpke_export(private, enc, info, context):
    def labeled_extract(suite, salt, label, ikm):
        return extract(salt, b"HPKE-v1" + suite + label + ikm)

    def labeled_expand(suite, prk, label, data):
        return expand(prk, (32).to_bytes(2, "big") + b"HPKE-v1" + suite + label + data)

    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    dh = private.exchange(X25519PublicKey.from_public_bytes(enc))
    kem, hpke = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\xff\xff"
    shared = labeled_expand(kem, labeled_extract(kem, b"", b"eae_prk", dh), b"shared_secret", enc + public)
    schedule = b"\x00" + labeled_extract(hpke, b"", b"psk_id_hash", b"") + labeled_extract(hpke, b"", b"info_hash", info)
    exporter = labeled_expand(hpke, labeled_extract(hpke, shared, b"secret", b""), b"exp", schedule)
    return labeled_expand(hpke, exporter, b"sec", context)


# 10. The protected file, of one segment here

def open_container(f, ck):
    """Returns metadata, publishing license and content."""
    prefix, rest = f[:80], f[96:]
    offset, meta_len, pl_len, zero = (int.from_bytes(f[i:i + 4], "big") for i in (80, 84, 88, 92))
    assert prefix[:16] == bytes.fromhex("89524d530d0a1a0a0001000100000000") and zero == 0
    assert prefix[48:] == kdf(ck, b"", D("rms/v1/ck-commit", {2: prefix[16:32], 16: prefix[32:48], 18: 1}))
    assert offset % 4096 == 0 and 8192 <= offset <= 1 << 20 and not any(f[96 + meta_len + pl_len:offset])
    meta = decode(gcm_open(kdf(ck, b"", b"rms/v1/meta"), prefix, rest[:meta_len]))
    stream = f[offset:]
    assert stream[0] == 40 and len(stream) <= 1 << 20
    key = kdf(kdf(ck, b"", b"rms/v1/stream"), stream[1:33], prefix)
    nonce = stream[33:40] + (0).to_bytes(4, "big") + b"\x01"
    return meta, rest[meta_len:meta_len + pl_len], AESGCM(key).decrypt(nonce, stream[40:], b"")


def hexed(v):
    """Turns every hexadecimal text below v into bytes."""
    if isinstance(v, dict):
        return {k: x if k.startswith("principal_") and k != "principal_id" and k != "principal_input" else hexed(x) for k, x in v.items()}
    if isinstance(v, list):
        return [hexed(x) for x in v]
    return bytes.fromhex(v) if isinstance(v, str) else v


def main():
    raw = json.loads(pathlib.Path(__file__).with_name("v1.json").read_text())
    raw.pop("note")
    expected = raw.pop("container")
    v = hexed(raw)
    keys, derived = v["keys"], v["derived"]
    tenant, content, generation = (v["ids"][k] for k in ("tenant_id", "content_id", "generation_id"))
    ck, secret = keys["content_key"], keys["generation_secret"]

    # 2.2, 3, 7
    principal = H(D("rms/v1/principal", {25: derived["principal_issuer"], 26: derived["principal_subject"]}))
    assert principal == derived["principal_id"]
    C = kdf(ck, b"", D("rms/v1/ck-commit", {2: tenant, 16: content, 18: 1}))
    assert C == derived["commitment"]
    assert kdf(ck, b"", b"rms/v1/stream") == derived["stream_key"]
    assert kdf(ck, b"", b"rms/v1/meta") == derived["meta_key"]
    scope = {2: tenant, 48: generation, 49: 1, 50: bytes(16)}
    assert kdf(secret, b"", D("rms/v1/gen-commit", scope)) == derived["generation_commitment"]
    assert H(D("rms/v1/l0", scope)) == derived["generation_binding"]
    assert derived["container_prefix"] == bytes.fromhex("89524d530d0a1a0a0001000100000000") + tenant + content + C

    # 8
    root = keys["root_public"]
    assert H(b"\x00\x01" + root) == keys["root_key_id"]
    _, bundle, _ = verify(v["bundle"], "bundle", root)
    assert bundle[87] == [keys["root_key_id"]] and bundle[81][0][2] == root and bundle[81][0][4] == 1
    _, cert, _ = verify(v["certificate"], "cert", root)
    daemon = cert[97]
    assert cert[102] == keys["root_key_id"] and cert[100] - cert[99] <= 7 * 86400 * 1000
    _, gen, _ = verify(v["generation"], "generation", root)
    assert gen[51] == derived["generation_commitment"]
    _, template, _ = verify(v["template"], "template", daemon)
    assert template[4] == v["certificate"] and cert[98] & 8

    # 14: the manifest's certificate is in it
    _, only, _ = verify(decode(decode(decode(v["evidence"][1:])[2])[0])[4], "cert", root)
    _, evidence, _ = verify(v["evidence"], "evidence", only[97])
    assert only[98] == 32 and only[99] <= evidence[3] < only[100]
    assert evidence[201][0] == {1: "facts.bin", 2: 3, 3: H(b"abc")} and evidence[203] == "root"

    # 4
    pl_hdr, pl, box = verify(v["publishing_license"], "pl", daemon)
    assert pl[4] == v["certificate"] and cert[98] & 1 and cert[99] <= pl[3] < cert[100]
    assert (pl[2], pl[16], pl[17], pl[18], pl[20]) == (tenant, content, C, 1, 1)
    license_key = kdf(secret, pl[22], D("rms/v1/license-key", {2: tenant, 16: content, 21: generation, 24: 1}))
    body_bytes = gcm_open(license_key, pl_hdr, box)
    body = decode(body_bytes)
    assert len(body_bytes) % 256 == 0 and body[32] == ck and not any(body[39])
    assert encode({n: x for n, x in body.items() if 33 <= n <= 38}) == v["policy"]

    # 5
    record_key = kdf(secret, pl[22], D("rms/v1/license-key", {2: tenant, 16: content, 21: generation, 24: 2}))
    record_aad = D("rms/v1/record", {2: tenant, 16: content, 17: C, 21: generation, 27: H(v["policy"])})
    assert record_aad == v["record_key_box_aad"] and gcm_open(record_key, record_aad, v["record_key_box"]) == ck

    # 6
    for u in v["use_licenses"]:
        hdr, ul, box = verify(u["use_license"], "ul", daemon)
        recipient = H(u["kem"].to_bytes(2, "big") + u["recipient_public"])
        assert (ul[2], ul[16], ul[17]) == (tenant, content, C)
        assert (ul[129], ul[130], ul[131], ul[132]) == (principal, u["kem"], recipient, H(u["enc"]))
        who = {2: tenant, 129: principal, 130: u["kem"], 131: recipient}
        context = b"rms/v1/ul-key\x00" + H(hdr)
        assert D("rms/v1/ul", who) == u["hpke_info"] and context == u["export_context"]
        assert gcm_open(u["exported_key"], b"", box) == ck
        if u["kem"] == 0x0020:
            private = X25519PrivateKey.from_private_bytes(keys["recipient_private"])
            assert private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) == u["recipient_public"]
            assert hpke_export(private, u["enc"], D("rms/v1/ul", who), context) == u["exported_key"]
            k = hpke_export(private, u["publish_enc"], D("rms/v1/publish", who), b"rms/v1/publish-key\x00" + H(pl_hdr))
            assert gcm_open(k, b"", u["publish_box"]) == ck

    # 10
    f = pathlib.Path(__file__).with_name("v1.rms").read_bytes()
    meta, license, plain = open_container(f, ck)
    assert f[:80] == derived["container_prefix"] and license == v["publishing_license"]
    assert meta == {112: expected["name"], 113: expected["type"], 114: expected["size"], 115: expected["mtime"]}
    assert plain == bytes.fromhex(expected["content"])

    # And a changed byte is seen.
    changed = bytearray(v["publishing_license"])
    changed[-1] ^= 1
    try:
        verify(bytes(changed), "pl", daemon)
    except InvalidSignature:
        print("v1.json, v1.rms: everything verifies and opens")
        return
    raise AssertionError("a changed license verifies")


if __name__ == "__main__":
    main()
