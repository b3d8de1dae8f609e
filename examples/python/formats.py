"""The formats of docs/formats.md in Python: encoding, key agreement and the protected file.

Numbers in brackets are sections there. Needs only the package cryptography, 38 or newer (Debian 12). It has no X-Wing, so
keys are agreed with X25519, which the tenant must allow (allow_x25519). licenses.py says what to believe of licenses.
"""
import hashlib
import hmac
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAGIC = b"\x89RMS\r\n\x1a\n" + b"\0\1" + b"\0\1" + bytes(4)  # container version 1, content suite 1
SEGMENT = 1 << 20

class Rejected(Exception):
    """What came is not what it claims to be: damaged, forged, or somebody else's."""

def check(ok, why):
    if not ok:
        raise Rejected(why)

# Hashes, key derivation, boxes [1]

def H(b): return hashlib.sha256(b).digest()
def extract(salt, ikm): return hmac.digest(salt or bytes(32), ikm, "sha256")
def expand(prk, info): return hmac.digest(prk, info + b"\1", "sha256")  # 32 bytes: one block
def kdf(ikm, salt, info): return expand(extract(salt, ikm), info)

def unseal(key, aad, box):
    try:
        return AESGCM(key).decrypt(box[:12], box[12:], aad)
    except (InvalidTag, ValueError):
        raise Rejected("a sealed part does not open: it was changed, or is for somebody else") from None

# CBOR in one deterministic form [2.1]; COSE headers add negative numbers

def head(major, n):
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 24:
            return bytes([major << 5 | n])
        if n < 1 << 8 * size:
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")

def encode(v):
    if isinstance(v, int):
        return head(0, v) if v >= 0 else head(1, -1 - v)
    if isinstance(v, (bytes, str)):
        b = v if isinstance(v, bytes) else v.encode()
        return head(2 if b is v else 3, len(b)) + b
    if isinstance(v, list):
        return head(4, len(v)) + b"".join(map(encode, v))
    return head(5, len(v)) + b"".join(encode(k) + encode(v[k]) for k in sorted(v))

def item(b, i, depth):
    check(depth < 6 and b[i] & 31 < 28, "not our CBOR")
    major, n, i = b[i] >> 5, b[i] & 31, i + 1
    if n >= 24:
        n, i = int.from_bytes(b[i:i + (1 << n - 24)], "big"), i + (1 << n - 24)
    if major < 2:
        return (n if major == 0 else -1 - n), i
    if major < 4:
        return (b[i:i + n] if major == 2 else b[i:i + n].decode()), i + n
    check(major < 6, "not our CBOR")
    out = []
    for _ in range(n if major == 4 else 2 * n):
        v, i = item(b, i, depth + 1)
        out.append(v)
    return (out if major == 4 else dict(zip(out[::2], out[1::2]))), i

def decode(b):
    try:
        v, end = item(b, 0, 0)
        check(end == len(b) and encode(v) == b, "not in deterministic form")
        return v
    except (IndexError, TypeError, ValueError):
        raise Rejected("not our CBOR") from None

def D(label, fields): return encode([label, fields])  # [2.2]

# HPKE (RFC 9180): base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export only [6.2]

def raw(public): return public.public_bytes(Encoding.Raw, PublicFormat.Raw)

def hpke_export(private, enc, info, context):
    def labeled_extract(suite, salt, label, ikm):
        return extract(salt, b"HPKE-v1" + suite + label + ikm)

    def labeled_expand(suite, prk, label, data):
        return expand(prk, b"\0\x20HPKE-v1" + suite + label + data)

    kem, hpke = b"KEM\0\x20", b"HPKE\0\x20\0\1\xff\xff"
    try:
        dh = private.exchange(X25519PublicKey.from_public_bytes(enc))
    except ValueError:
        raise Rejected("not a key agreement") from None
    shared = labeled_expand(kem, labeled_extract(kem, b"", b"eae_prk", dh), b"shared_secret", enc + raw(private.public_key()))
    schedule = b"\0" + labeled_extract(hpke, b"", b"psk_id_hash", b"") + labeled_extract(hpke, b"", b"info_hash", info)
    exporter = labeled_expand(hpke, labeled_extract(hpke, shared, b"secret", b""), b"exp", schedule)
    return labeled_expand(hpke, exporter, b"sec", context)

# The protected file [3, 10]. Its prefix says which document it is: tenant, content ID and commitment to the key.

def commits(ck, prefix):
    c = kdf(ck, b"", D("rms/v1/ck-commit", {2: prefix[16:32], 16: prefix[32:48], 18: 1}))
    return hmac.compare_digest(c, prefix[48:80])

def content_cipher(ck, salt, prefix): return AESGCM(kdf(kdf(ck, b"", b"rms/v1/stream"), salt, prefix))

def write_container(out, source, prefix, ck, license, name, media_type="application/octet-stream"):
    """Writes what the binary file source holds as a protected file. ck must never encrypt anything else."""
    salt, nonce, meta_nonce = os.urandom(32), os.urandom(7), os.urandom(12)
    meta = AESGCM(kdf(ck, b"", b"rms/v1/meta")).encrypt(meta_nonce, encode({112: name, 113: media_type}), prefix)
    offset = max(8192, (96 + 28 + len(meta) + 2 * len(license) + 4095) // 4096 * 4096)
    start = prefix + struct.pack(">IIII", offset, 12 + len(meta), len(license), 0) + meta_nonce + meta + license
    out.write(start.ljust(offset, b"\0") + b"\x28" + salt + nonce)
    cipher, i, block = content_cipher(ck, salt, prefix), 0, source.read(SEGMENT - 56)
    while block is not None:
        following = source.read(SEGMENT - 16) or None
        out.write(cipher.encrypt(nonce + struct.pack(">IB", i, following is None), block, None))
        i, block = i + 1, following

def read_header(f):
    """Returns prefix, sealed metadata and publishing license; f then stands at the content."""
    b = f.read(96)
    check(len(b) == 96 and b[:16] == MAGIC, "not a protected file of a version known here")
    offset, meta, license, zero = struct.unpack(">IIII", b[80:])
    check(8192 <= offset <= 1 << 20 and offset % 4096 == zero == 0 and 96 + meta + license <= offset, "a damaged header")
    rest = f.read(offset - 96)
    check(len(rest) == offset - 96 and not any(rest[meta + license:]), "a damaged header")
    return b[:80], rest[:meta], rest[meta:meta + license]

def open_meta(sealed, prefix, ck): return decode(unseal(kdf(ck, b"", b"rms/v1/meta"), prefix, sealed))

def contents(f, prefix, ck):
    """Yields the content. It is complete only if the loop over it ends without an error: until then, nobody may use it."""
    start = f.read(40)
    check(len(start) == 40 and start[0] == 40, "the content was cut")
    cipher, i, block = content_cipher(ck, start[1:33], prefix), 0, f.read(SEGMENT - 40)
    while block is not None:
        following = f.read(SEGMENT) or None
        try:
            plain = cipher.decrypt(start[33:] + struct.pack(">IB", i, following is None), block, None)
        except (InvalidTag, ValueError):
            raise Rejected(f"segment {i + 1} of the content was changed, or the content was cut there") from None
        yield plain
        i, block = i + 1, following
