package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/openrms/rms/internal/vocab"
)

// recipientPrefix begins every recipient that a backup is encrypted to.
const recipientPrefix = "age1pq1"

// Recipients are those who can read a backup.
type Recipients struct {
	list         []age.Recipient
	fingerprints []string
}

// MaxRecipients is how many a backup has at most.
const MaxRecipients = 8

// ParseRecipients reads recipients, age1pq1… each. Others of age's recipients
// are refused: whoever keeps a copy for long enough could read it. The error is
// REQUEST_INVALID.
func ParseRecipients(words []string) (*Recipients, error) {
	out := &Recipients{}
	seen := map[string]bool{}
	for _, w := range words {
		w = strings.TrimSpace(w)
		if !strings.HasPrefix(w, recipientPrefix) {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a backup is encrypted to post-quantum age recipients, %s…, and this is none", recipientPrefix).
				WithNext("Make a key with: rmsd backup keygen -o FILE")
		}
		r, err := age.ParseHybridRecipient(w)
		if err != nil {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a recipient cannot be read").
				WithNext("Copy the whole line that begins with %s", recipientPrefix).Because(err)
		}
		if seen[r.String()] {
			continue
		}
		seen[r.String()] = true
		out.list = append(out.list, r)
		out.fingerprints = append(out.fingerprints, fingerprint(r))
	}
	if len(out.list) == 0 || len(out.list) > MaxRecipients {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a backup has 1 to %d recipients", MaxRecipients).
			WithNext("Name one with --recipient; make a key with: rmsd backup keygen -o FILE")
	}
	return out, nil
}

// ReadRecipients reads the lines of a file of recipients; empty ones and those
// that begin with # are passed over.
func ReadRecipients(r io.Reader) (words []string, err error) {
	err = eachLine(r, func(line string) error {
		words = append(words, line)
		return nil
	})
	return words, err
}

// Fingerprints name the recipients: SHA256: and the unpadded base64 of the
// SHA-256 of the recipient's text.
func (r *Recipients) Fingerprints() []string { return r.fingerprints }

func fingerprint(r *age.HybridRecipient) string {
	sum := sha256.Sum256([]byte(r.String()))
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Identities open backups.
type Identities struct{ list []age.Identity }

// ReadIdentities reads a file of identities, AGE-SECRET-KEY-PQ-1… each on a
// line. The error is CONFIGURATION_INVALID and does not quote the file.
func ReadIdentities(r io.Reader) (*Identities, error) {
	out := &Identities{}
	err := eachLine(r, func(line string) error {
		i, err := age.ParseHybridIdentity(line)
		if err != nil {
			return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the file is not one of identities that open backups").
				WithNext("It has a line that begins with AGE-SECRET-KEY-PQ-1; rmsd backup keygen makes one")
		}
		out.list = append(out.list, i)
		return nil
	})
	if err == nil && len(out.list) == 0 {
		err = vocab.Errorf(vocab.ReasonConfigurationInvalid, "the file holds no identity").
			WithNext("It has a line that begins with AGE-SECRET-KEY-PQ-1; rmsd backup keygen makes one")
	}
	return out, err
}

// Keygen returns the text of a file with a new identity, which the caller clears
// when it is written, its recipient, and the recipient's fingerprint.
func Keygen() (file []byte, recipient, fingerprints string, err error) {
	i, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, "", "", err
	}
	r := i.Recipient()
	text := fmt.Appendf(nil, "# opens backups made for %s\n# recipient: %s\n%s\n", fingerprint(r), r.String(), i.String())
	return text, r.String(), fingerprint(r), nil
}

// maxKeyFile bounds a file of keys, in bytes.
const maxKeyFile = 1 << 20

func eachLine(r io.Reader, fn func(string) error) error {
	lines := bufio.NewScanner(io.LimitReader(r, maxKeyFile))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := fn(line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "a file of keys cannot be read").Because(err)
	}
	return nil
}
