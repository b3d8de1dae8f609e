package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/openrms/rms/internal/vocab"
)

// File is what [ReplaceLicense] needs of a file; *os.File opened for reading
// and writing is one. When Sync returns nil, what was written is durable.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// licenseLenAt is where a replacement begins to write.
const licenseLenAt = 88

// ReplaceLicense puts another publishing license into the container, for
// instance a newer recovery copy after a change of rights. Content, name and
// type stay as they are.
//
// match must verify the license and fail unless it is for the prefix's tenant,
// content ID and commitment; it is called before anything is written, and its
// error is returned as it is. A license that does not fit before the content
// is refused with REQUEST_INVALID, and the file stays as it was: protect the
// document anew to make room.
//
// It makes one write and one sync. An interrupted one leaves the content
// intact and a license that is missing or does not verify ([Header.License]);
// calling ReplaceLicense again repairs it. Callers keep others from reading or
// writing the file meanwhile.
func ReplaceLicense(f File, license []byte, match func(Prefix, []byte) error) error {
	h, err := ReadHeader(io.NewSectionReader(f, 0, math.MaxInt64))
	if err != nil {
		return err
	}
	if match == nil {
		return errors.New("internal error: a license would be replaced unverified")
	}
	if err := match(h.prefix, license); err != nil {
		return err
	}
	if len(license) == 0 || len(license) > MaxLicense || fixedSize+len(h.meta)+len(license) > int(h.offset) {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the new publishing license of %d bytes does not fit into this .rms file", len(license)).
			WithNext("Leave the file as it is: rights changed at the service are in force without it")
	}
	if h.license != nil && bytes.Equal(h.license, license) {
		return nil
	}
	h.license = license
	if _, err := f.WriteAt(h.encode()[licenseLenAt:], licenseLenAt); err != nil {
		return fmt.Errorf("replace publishing license: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("replace publishing license: %w", err)
	}
	return nil
}
