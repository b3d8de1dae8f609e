"""What to believe of licenses, and how to get the content key out of them: sections 2.3, 6 and 8 of docs/formats.md.

Whoever verifies needs the key IDs of the tenant's roots, noted at a time and by a way that can be trusted.
"""
import base64
import json
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from formats import D, H, MAGIC, check, commits, decode, encode, hpke_export, raw, Rejected, unseal

PL, UL, WEEK, X25519 = 1, 2, 7 * 86_400_000, 0x0020


def key_id(public):
    return H(b"\0\1" + public)


def verify(obj, kind, keys_of):
    """Returns header, fields, box and signers' key IDs of a signed object [2.3]. keys_of(fields) are who may have signed."""
    try:
        one, kind_text = obj[:1] == b"\xd2", f"application/vnd.rms.{kind}+cbor"
        check(one or obj[:2] == b"\xd8\x62", "not a signed object")
        protected, unprotected, payload, rest = decode(obj[1 if one else 2:])
        hdr, box = decode(payload)
        fields = decode(hdr)
        known = {key_id(k): k for k in keys_of(fields)}
        # A signature covers its own header and, where there are two, the body's.
        signatures = [(protected, unprotected, rest)] if one else rest
        signers = []
        for own, unsigned, signature in signatures:
            signer = decode(own)[4]
            check(own == encode({1: -8, 4: signer} | ({3: kind_text} if one else {})) and unsigned == {}, "another form")
            check(signer in known, "signed by a key that is not trusted for this")
            context = ["Signature1", protected] if one else ["Signature", protected, own]
            message = encode([*context, b"rms/v1/" + kind.encode(), payload])
            Ed25519PublicKey.from_public_bytes(known[signer]).verify(signature, message)
            signers.append(signer)
        check(signers and unprotected == {} and fields[1] == [1] and (one or protected == encode({3: kind_text})), "another form")
        return hdr, fields, box, signers
    except (InvalidSignature, KeyError, TypeError, ValueError):
        raise Rejected(f"the signature of this {kind} does not verify") from None


class Trust:
    """A tenant's trust bundle [8.2]. Keep the newest: pass its seq as least_seq when the next one comes."""

    def __init__(self, bundle, tenant, pins, least_seq=1):
        _, f, _, signers = verify(bundle, "bundle", lambda f: [r[2] for r in f[81]])
        check(f[2] == tenant and signers == f[87] and set(signers) & set(pins), "not a bundle of this tenant's pinned roots")
        check(f[80] >= least_seq, "an older bundle than one seen before")
        self.tenant, self.seq, self.kems, self.next_update = tenant, f[80], f[85][3], f[86]
        self.roots, self.revoked = [r[2] for r in f[81] if r[4] != 3], f.get(82, [])

    def certificate(self, obj, usage, at):
        """Returns the fields of a signing certificate that may sign for a use at a time [8.3]."""
        _, f, _, _ = verify(obj, "cert", lambda _: self.roots)
        check(f[2] == self.tenant and f[96] not in self.revoked and f[98] & usage, "its certificate is not for this")
        check(f[99] <= at < f[100] <= f[99] + WEEK, "its certificate was not valid then")
        return f

    def publishing_license(self, obj):
        """Returns header and fields, once certificate and signature are good [4]."""
        hdr, f, _, _ = verify(obj, "pl", lambda f: [self.certificate(f[4], PL, f[3])[97]])
        check(f[2] == self.tenant and f[18] == f[20] == 1, "another tenant's, or of a suite that is not known here")
        return hdr, f


def prefix_of(f):
    """Which document a license is for: the prefix of its protected file [10]."""
    return MAGIC + f[2] + f[16] + f[17]


class Caller:
    """Who calls, as (issuer, subject), with a key of its own for this call."""

    def __init__(self, issuer, subject):
        self.principal = H(D("rms/v1/principal", {25: issuer, 26: subject}))
        self.private = X25519PrivateKey.generate()
        self.public = raw(self.private.public_key())
        self.key_hash = H(X25519.to_bytes(2, "big") + self.public)

    @classmethod
    def of_token(cls, token):
        """The token is the caller's own, so it is read and not verified."""
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return cls(claims["iss"], claims["sub"])

    def _content_key(self, label, tenant, enc, hdr, box, prefix):
        info = D(label, {2: tenant, 129: self.principal, 130: X25519, 131: self.key_hash})
        ck = unseal(hpke_export(self.private, enc, info, label.encode() + b"-key\0" + H(hdr)), b"", box)
        check(commits(ck, prefix), "the content key is not this document's")
        return ck

    def published(self, trust, license, enc, box):
        """Returns prefix and content key of a new document [6.3]."""
        hdr, f = trust.publishing_license(license)
        return prefix_of(f), self._content_key("rms/v1/publish", f[2], enc, hdr, box, prefix_of(f))

    def acquired(self, trust, license, certificate, enc, prefix):
        """Returns the content key of the document prefix names, and the fields of its use license [6.4]."""
        cert = {}

        def signer(f):
            cert.update(trust.certificate(certificate, UL, f[3]))
            return [cert[97]]

        hdr, f, box, _ = verify(license, "ul", signer)
        now = time.time() * 1000
        check(f[145] == cert[96] and f[129] == self.principal and f[131] == self.key_hash, "a license for somebody else")
        check(f[18] == 1 and prefix_of(f) == prefix, "a license for another document")
        check(f[130] == X25519 in trust.kems and 143 not in f and 146 not in f, "of a kind that is not known or not allowed")
        check(now < trust.next_update, "the trust bundle is too old: get it anew")
        check(f[135] - 300_000 <= now < f[136], "the license is not valid now")
        check(f.get(142, 0) & 2 or now < f.get(139, now + 1), "the content has expired")
        check(f[132] == H(enc), "another key agreement")
        return self._content_key("rms/v1/ul", f[2], enc, hdr, box, prefix), f
