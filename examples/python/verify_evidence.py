#!/usr/bin/python3
"""Verifies a bundle of evidence about a tenant's keys, from docs/formats.md §17 alone.

    verify_evidence.py FILE SHA256:ROOT [CHECKPOINT]

No network, nothing of the service: Python and its package cryptography. Exit 0 and the
history of the keys, or exit 9 and the first thing that is wrong."""

import base64, hashlib, json, sys, time, zipfile
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FILES = ["evidence.cose", "trust-bundle.cose", "transitions.bin", "checkpoint-certificate.cose", "checkpoint.txt", "consistency.bin", "events.bin", "resources.bin", "facts.bin"]
KINDS = {3: "refused", 30: "tenant created", 31: "settings changed", 35: "role changed", 37: "key noted", 38: "key claimed", 39: "key compromised",
         40: "key registered", 41: "key activated", 42: "key suspended", 43: "key resumed", 44: "key retired", 45: "key rotated", 46: "generation created",
         47: "generation rewrapped", 48: "signer certified", 49: "bundle published", 50: "requested", 51: "approved", 52: "rejected", 54: "succeeded",
         55: "failed", 56: "cancelled", 59: "expired", 60: "alarm", 61: "rehearsed", 62: "evidence made"}
LEAKS = 4 | 8 | 64 | 128  # exportable, open to plaintext backup, backed up, restored


def need(ok, what):
    if not ok:
        raise ValueError(what)


def H(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def item(b, i=0, depth=0):  # §2.1, and the one negative number of a signed object: the value and where it ends
    major, n, i = b[i] >> 5, b[i] & 31, i + 1
    need(depth < 5 and n < 28 and major < 6, "not CBOR of the dialect")
    if n >= 24:
        n, i = int.from_bytes(b[i:i + (1 << n - 24)], "big"), i + (1 << n - 24)
    need(i + (n if major > 1 else 0) <= len(b), "truncated CBOR")
    if major < 4:
        return (n, -1 - n, b[i:i + n], b[i:i + n])[major] if major != 3 else b[i:i + n].decode(), i + n * (major > 1)
    values = []
    for _ in range(n * (major - 3)):
        v, i = item(b, i, depth + 1)
        values.append(v)
    return (values if major == 4 else dict(zip(values[::2], values[1::2]))), i


def decode(b):
    v, end = item(b)
    need(end == len(b), "bytes behind the end of a value")
    return v


def string(b, major=2):  # a byte string; major 3: text, 4: an array's head
    n = b if major == 4 else len(b)
    head = bytes([major << 5 | n]) if n < 24 else bytes([major << 5 | 24, n]) if n < 256 else bytes([major << 5 | 25]) + n.to_bytes(2, "big")
    return head + (b"" if major == 4 else b)


def items(b):  # §17: u32 length ‖ item, one after the other
    while b:
        n = int.from_bytes(b[:4], "big")
        need(len(b) >= 4 + n, "a file is truncated")
        yield b[4:4 + n]
        b = b[4 + n:]


def signed(obj, kind, keys, signers=None):  # §2.3; keys: by key ID, or None for those of the object itself
    many = obj[:2] == b"\xd8\x62"
    protected, empty, payload, last = decode(obj[2:] if many else obj[1:])
    of_type, (hdr, box) = {3: f"application/vnd.rms.{kind}+cbor"}, decode(payload)
    fields, ids = decode(hdr), []
    need(obj[0] in (0xd2, 0xd8) and fields[1] == [1] and box == b"", f"not a {kind}")
    for own, unprotected, signature in (last if many else [[protected, {}, last]]):
        named = decode(own)
        need(named == {1: -8, 4: named[4], **({} if many else of_type)} and decode(protected)[3] == of_type[3], f"not a {kind}")
        key = (keys or {r[1]: r[2] for r in fields[81]}).get(named[4])
        need(key and named[4] == H(b"\0\1", key), f"the {kind} is signed by a key that is not vouched for")
        parts = [protected, own] if many else [protected]
        tbs = string(5 if many else 4, 4) + string(b"Signature" if many else b"Signature1", 3)
        tbs += b"".join(map(string, [*parts, b"rms/v1/" + kind.encode(), payload]))
        Ed25519PublicKey.from_public_bytes(key).verify(signature, tbs)
        ids.append(named[4])
    need(len(ids) == 1 + many and (not signers or ids == fields[signers]), f"not a {kind}")
    return fields


def certificate(obj, bundle, usage, at):  # §8.3
    roots = {r[1]: r[2] for r in bundle[81] if r[4] != 3}
    c = signed(obj, "cert", roots)
    need(c[2] == bundle[2] and c[96] not in bundle.get(82, []) and c[98] & usage and c[102] in roots, "a certificate is not for this")
    need(c[100] - c[99] <= 7 * 86400000 and c[99] <= at < c[100], "a certificate did not cover the time of signing")
    return c[97]


def split(n):  # the largest power of two below n
    return 1 << (n - 1).bit_length() - 1


def climb(index, size, leaf, path):  # RFC 6962 §2.1.1: the root that a path leads to
    if size == 1:
        need(not path and index == 0, "a proof is too long")
        return H(b"\0", leaf)
    k = split(size)
    if index < k:
        return H(b"\1", climb(index, k, leaf, path[:-1]), path[-1])
    return H(b"\1", path[-1], climb(index - k, size - k, leaf, path[:-1]))


def grown(first, size, whole, old, path):  # RFC 6962 §2.1.2: the two roots that a path leads to; it is used up
    if first == size:
        return (old, old) if whole else (path[0], path.pop(0))
    k = split(size)
    if first <= k:
        a, b = grown(first, k, whole, old, path)
        return a, H(b"\1", b, path.pop(0))
    a, b = grown(first - k, size - k, False, old, path)
    return H(b"\1", path[0], a), H(b"\1", path.pop(0), b)


def note(text, tenant):  # docs/audit.md: size, root, time and what is signed
    body, end = text.split("\n\n", 1)
    origin, size, root, at = body.split("\n")[:4]
    need(origin == "rms/" + tenant and at.startswith("time "), "the checkpoint is another log's")
    return int(size), base64.b64decode(root, validate=True), int(at[5:]), origin, (body + "\n").encode(), end


def main(path, pin, saved=None):
    z = zipfile.ZipFile(path)
    names = [i.filename for i in z.infolist()]
    need(names in (FILES, [f for f in FILES if f != "consistency.bin"]), "a file was added or removed")
    need(sum(i.file_size for i in z.infolist()) <= 128 << 20 and all(i.compress_type == 0 for i in z.infolist()), "not a bundle")
    f = {n: z.read(n) for n in names}
    # The chain from the pinned root to the manifest, and the files.
    bundle = signed(f["trust-bundle.cose"], "bundle", None, signers=87)
    trusted = {base64.b64decode(pin.removeprefix("SHA256:") + "=")}
    for t in (signed(raw, "bundle", None, signers=87) for raw in items(f["transitions.bin"])):
        if t[2] == bundle[2] and trusted & set(t[87]):
            trusted = (trusted | {r[1] for r in t[81]}) - {r[1] for r in t[81] if r[4] == 3}
    need(trusted & set(bundle[87]), "the root is not the one that is trusted")
    current = [r[1] for r in bundle[81] if r[4] == 1]
    need(current == bundle[87][:1], "the trust bundle is not signed by its current root")
    hdr = decode(decode(decode(f["evidence.cose"][1:])[2])[0])
    key = certificate(hdr[4], bundle, 32, hdr[3])
    m = signed(f["evidence.cose"], "evidence", {H(b"\0\1", key): key})
    need(m[2] == bundle[2], "the manifest is another tenant's")
    need([(x[1], x[2], x[3]) for x in m[201]] == [(n, len(f[n]), H(f[n])) for n in names[1:]], "a file is not the one that the manifest names")
    # The checkpoint.
    tenant = m[2].hex()
    tenant = "-".join((tenant[:8], tenant[8:12], tenant[12:16], tenant[16:20], tenant[20:]))
    size, root, at, origin, body, end = note(f["checkpoint.txt"].decode(), tenant)
    key = certificate(f["checkpoint-certificate.cose"], bundle, 16, at)
    signature = base64.b64decode(end.split(origin + " ")[1].strip(), validate=True)
    need(signature[:4] == H(origin.encode(), b"\n\1", key)[:4], "the checkpoint is signed by another key")
    Ed25519PublicKey.from_public_bytes(key).verify(signature[4:], body)
    proof = next(iter(map(decode, items(f.get("consistency.bin", b"")))), None)
    if proof:
        left = list(proof.get(3, []))
        need(0 < proof[1] <= size and grown(proof[1], size, True, proof[2], left) == (proof[2], root) and not left, "the log does not continue the earlier one")
    if saved:
        text = open(saved).read()
        s, r = note(json.loads(text)["note"] if text.startswith("{") else text, tenant)[:2]
        need((s, r) == (size, root) or proof and (s, r) == (proof[1], proof[2]), "the log does not continue the checkpoint that was saved")
    # The events are in the log; the resources are what it says.
    events, last, writers = [], -1, {}
    for e in map(decode, items(f["events.bin"])):
        need(e[1] > last, "an event is out of order")
        need(e[1] < size and climb(e[1], size, e[2], e.get(3, [])) == root, f"event {e[1]} is not in the log")
        leaf, last = decode(e[2]), e[1]
        need(leaf[2] == m[2], "an event is another tenant's")
        events.append(leaf)
        if 181 in leaf and 180 in leaf and 16 not in leaf:
            writers.setdefault(leaf[180], []).append(leaf)
    need(any(e[160] == m[200] and e[161] == 62 for e in events), "the event that says this was made is missing")
    resources, keys, before = {}, {}, ""
    for raw in items(f["resources.bin"]):
        r = decode(raw)
        need(r[1] > before, "a resource is out of order")
        w, before = writers.get(r[1], []), r[1]
        need(w and w[-1][160] == r[4] and w[-1][181] == H(raw), f"{r[1]} is not what the log says")
        need(len(w) == r[2] or 202 in m and len(w) < r[2], f"events of {r[1]} are missing")
        resources[r[1]] = r
        if r[1].startswith("keys/"):
            keys[r[1][5:]] = decode(r[6])
        if r[1].startswith("generations/"):
            signed(decode(r[6])[2], "generation", {x[1]: x[2] for x in bundle[81]})
    for target in writers:
        need(target in resources or not target.startswith(("keys/", "generations/", "operations/")), f"{target} is missing")
    # What the custodians said is what is registered.
    facts = {x[1]: x for x in map(decode, items(f["facts.bin"]))}
    need(list(facts) == sorted(keys), "a key is missing")
    for name, x in facts.items():
        k = keys[name]
        need((x[2], x[3]) == (k[1], k[3]), f"{name} is not the key that is registered")
        if 11 in x or k[6] == 6 and 9 not in x:
            continue
        need(not (x[9].get(3, 0) | x[10].get(3, 0)) & LEAKS and (x[3] != "vault" or x.get(8)), f"{name} could have left its custodian, or nobody read it")
        need(x.get(5, "") == k.get(10, "") and x[9][4] <= k.get(11, 0) and x[10][4] <= k.get(13, 0), f"{name} is not the key that was noted")
        created = {v[1]: v.get(3) for v in k.get(16, [])}
        need(all(v[1] in created and created[v[1]] == v.get(2) for v in x[9].get(9, [])), f"a version of {name} is not the one that was noted")
        need(all(k.get(15, {}).get(v[1]) == v.get(3) for v in x[10].get(9, [])), f"a version of {name} is not the one that was noted")
    for e in events:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(e[3] // 1000))
        who = e.get(164, {}).get(3) or e.get(164, {}).get(2) or "the service"
        print(when, "ALARM" if e.get(178, 0) & 1 else "", KINDS.get(e[161], f"kind {e[161]}"), e.get(180, ""), "by", who, e.get(163, ""), e.get(179, ""))
    for name, k in keys.items():
        for v in k.get(16, []):
            p = v.get(10, {})
            print("key", name, "version", v[1], "KCV " + p[2] if 2 in p else "", "" if v.get(8) == 1 else "NOBODY SAID THAT IT WAS MEANT")
        print("key", name, facts[name].get(11) or "not exportable; requests " + " ".join(facts[name].get(8, ["none"])))
    print(f"the evidence holds: {len(events)} events of {size}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as e:  # whatever is wrong: it does not hold
        print("the evidence does not hold:", str(e) or type(e).__name__, file=sys.stderr)
        sys.exit(9)
