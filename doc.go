// Package rms is the client of an open rights management service: it protects
// files so that only those open them who may, and opens them.
//
//	client, err := rms.Dial(ctx, rms.Config{
//		Address: "rms.contoso.com:7443",
//		Tenant:  "contoso",
//		Token:   token, // of the signed-in person; services present a client certificate
//		Trust:   trust, // pinned at the first sign-in, see FetchTrust
//	})
//	protected, err := client.Protect(ctx, dst, src, rms.ProtectOptions{Template: "finance-internal"})
//	document, err := client.Open(ctx, file, size, rms.RightView)
//
// Content is encrypted and decrypted here; the service never sees it. It keeps
// a record of each document, the license, decides by it who may open, and
// hands the content key to whom it may, sealed to a key that is made for that
// one call.
//
// # Trust
//
// A client speaks to the one server of its [Config] and believes what the
// pinned roots of the tenant vouch for. Nothing in a document is ever
// followed: not an address, not a contact, not a certificate that does not
// chain to a pinned root. [FetchTrust] asks a server what may be pinned; that
// it is the right thing to pin a person decides, once.
//
// # Errors
//
// Whatever a call or a document is refused for is an *[Error] with a stable
// [Reason]:
//
//	if refused, ok := errors.AsType[*rms.Error](err); ok {
//		log.Printf("%s: %s; ask %s, quote %s", refused.Reason, refused.Message, refused.Contact, refused.Event)
//	}
//	if errors.Is(err, rms.ReasonLicenseRevoked) { … }
//
// That holds for the service's clients that [Client.Licenses] and its like
// return, too. Errors of the caller's own readers and writers come back as
// they are.
//
// # What rights mean
//
// Once content is open, the rights in [Document.Rights] are kept by the program
// that holds it: as in every rights management system in software, they are
// enforced by honest applications. Revocation, expiry and the choice of who may
// open are enforced by the service.
package rms
