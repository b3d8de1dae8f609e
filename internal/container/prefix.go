package container

import (
	"bytes"
	"encoding/binary"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Suffix is the file name suffix of a container.
const Suffix = ".rms"

// Version is the container version this package writes and the newest it reads.
const Version uint16 = 1

// PrefixSize is the size of the encoded [Prefix] in bytes.
const PrefixSize = 80

// magic begins with a byte outside ASCII and holds both line ends and the DOS
// end of file, like PNG's, so that a transfer that rewrites text shows at once.
const magic = "\x89RMS\r\n\x1a\n"

// Prefix says which document a container holds. It never changes: another
// prefix is another document.
type Prefix struct {
	Tenant  vocab.TenantID
	Content vocab.ContentID
	// ContentSuite says how the content is encrypted: [canon.ContentSuite1].
	ContentSuite uint16
	// Commitment ties the prefix to its content key.
	Commitment [32]byte
}

// NewPrefix returns the prefix of a document and its content key.
func NewPrefix(tenant vocab.TenantID, content vocab.ContentID, ck *vocab.Secret) Prefix {
	return Prefix{
		Tenant: tenant, Content: content, ContentSuite: canon.ContentSuite1,
		Commitment: canon.Commitment(ck, tenant, content, canon.ContentSuite1),
	}
}

// Commits reports, in constant time, whether ck is the document's content key.
func (p Prefix) Commits(ck *vocab.Secret) bool {
	return canon.Commits(p.Commitment, ck, p.Tenant, p.Content, p.ContentSuite)
}

// Bytes returns the encoded prefix, [PrefixSize] bytes: the associated data of
// everything sealed in the container.
func (p Prefix) Bytes() []byte {
	b := make([]byte, 0, PrefixSize)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, Version)
	b = binary.BigEndian.AppendUint16(b, p.ContentSuite)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = append(b, p.Tenant[:]...)
	b = append(b, p.Content[:]...)
	return append(b, p.Commitment[:]...)
}

// valid refuses a prefix that names nothing or needs another program.
func (p Prefix) valid() error {
	switch {
	case p.ContentSuite != canon.ContentSuite1:
		return vocab.Errorf(vocab.ReasonSuiteUnsupported, "the content is encrypted with suite %d, this version knows suite %d", p.ContentSuite, canon.ContentSuite1).
			WithNext("Use a newer version of the program")
	case p.Tenant.IsZero() || p.Content.IsZero():
		return malformed("its header names no tenant or no document")
	}
	return nil
}

// parsePrefix reads a prefix from the first bytes of a file; b may be shorter
// than PrefixSize when the file is.
func parsePrefix(b []byte) (Prefix, error) {
	var p Prefix
	if len(b) < PrefixSize || string(b[:8]) != magic {
		return p, notAContainer(b)
	}
	if v := binary.BigEndian.Uint16(b[8:]); v > Version {
		return p, vocab.Errorf(vocab.ReasonLicenseFormatNewer, "this .rms file has format version %d, this program reads up to %d", v, Version).
			WithNext("Use a newer version of the program")
	} else if v == 0 {
		return p, malformed("its format version is 0")
	}
	if binary.BigEndian.Uint32(b[12:]) != 0 {
		return p, malformed("reserved bytes of its header are not zero")
	}
	p.ContentSuite = binary.BigEndian.Uint16(b[10:])
	copy(p.Tenant[:], b[16:])
	copy(p.Content[:], b[32:])
	copy(p.Commitment[:], b[48:])
	return p, p.valid()
}

// notAContainer says as helpfully as the bytes allow why b is no prefix.
func notAContainer(b []byte) error {
	switch {
	case len(b) == 0:
		return malformed("it is empty")
	case len(b) >= 8 && string(b[:8]) == magic, len(b) < 8 && string(b) == magic[:len(b)]:
		return cutShort()
	case bytes.HasPrefix(b, []byte(magic[:4])), bytes.HasPrefix(b, []byte("\x09RMS\r\n")), bytes.HasPrefix(b, []byte("\xc2\x89RMS")), bytes.HasPrefix(b, []byte("\xef\xbf\xbdRMS")):
		return vocab.Errorf(vocab.ReasonContainerMalformed, "this .rms file was damaged on the way: a transfer treated it as text").
			WithNext("Get it again with a binary transfer")
	}
	return vocab.Errorf(vocab.ReasonContainerMalformed, "this is not an .rms file: it does not begin like one").
		WithNext("Check that it is the protected file and not the original")
}

// malformed is the error for a file that cannot be a container of ours.
func malformed(what string) *vocab.Error {
	return vocab.Errorf(vocab.ReasonContainerMalformed, "this .rms file is damaged: %s", what).
		WithNext("Get the file again from where it came from")
}

func cutShort() *vocab.Error {
	return malformed("it was cut short")
}

// wrongKey says that a key which some license delivered is not this file's.
func wrongKey() error {
	return vocab.Errorf(vocab.ReasonLicenseMismatch, "the content key does not belong to this file: the file and its license contradict each other").
		WithNext("Get the file again from where it came from")
}
