package archive

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Words that lines of key files begin with.
const (
	//nolint:gosec // the name of a format, no secret
	secretWord    = "rms-import-key-v1"
	recipientWord = "rms-import-recipient-v1"
)

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 16 << 10

// NewKey makes the key of one move. secret is the file of whoever imports, for
// nobody else; recipient is the file for the source. The caller clears secret.
func NewKey() (key *license.RecipientKey, secret []byte, recipient string, err error) {
	key, err = license.NewRecipientKey(license.XWing)
	if err != nil {
		return nil, nil, "", err
	}
	s, err := key.Secret()
	if err != nil {
		return nil, nil, "", err
	}
	defer s.Zero()
	secret = fmt.Appendf(nil, "# Opens archives of tenants that were sealed to %x.\n# Keep it to yourself, and destroy it when the tenant is imported.\n%s ",
		key.Hash(), secretWord)
	secret = append(base64.StdEncoding.AppendEncode(secret, s.Reveal()), '\n')
	return key, secret, FormatRecipient(key.Public()), nil
}

// FormatRecipient writes a recipient's public key as a file.
func FormatRecipient(public []byte) string {
	return recipientWord + " " + base64.StdEncoding.EncodeToString(public) + "\n"
}

// ReadKey reads a file with the key of a move. The error is
// CONFIGURATION_INVALID.
func ReadKey(r io.Reader) (*license.RecipientKey, error) {
	b, err := readWord(r, secretWord, "key")
	if err != nil {
		return nil, err
	}
	defer clear(b)
	s := vocab.SecretFrom(b)
	if s == nil {
		return nil, badKey("key", "it has %d bytes instead of 32", len(b))
	}
	defer s.Zero()
	return license.RecipientKeyFrom(license.XWing, s)
}

// ReadRecipient reads a file with a recipient's public key. The error is
// CONFIGURATION_INVALID.
func ReadRecipient(r io.Reader) (*license.Recipient, []byte, error) {
	b, err := readWord(r, recipientWord, "recipient")
	if err != nil {
		return nil, nil, err
	}
	to, err := license.ParseRecipient(license.XWing, b, []license.KEM{license.XWing})
	if err != nil {
		return nil, nil, badKey("recipient", "it is not valid").Because(err)
	}
	return to, b, nil
}

// readWord finds the one line that begins with a word, and decodes what follows.
// Lines that begin with # and empty ones are for people.
func readWord(r io.Reader, word, what string) ([]byte, error) {
	lines := bufio.NewScanner(io.LimitReader(r, maxKeyFile))
	var found string
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rest, ok := strings.CutPrefix(line, word+" ")
		if !ok || found != "" {
			return nil, badKey(what, "a line of it is not understood")
		}
		found = rest
	}
	if err := lines.Err(); err != nil {
		return nil, badKey(what, "it cannot be read").Because(err)
	}
	if found == "" {
		return nil, badKey(what, "there is no line that begins with %s", word)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(found)
	if err != nil {
		return nil, badKey(what, "it is not base64")
	}
	return b, nil
}

func badKey(what, format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, "this is not the %s of an import: %s", what, fmt.Sprintf(format, args...)).
		WithNext("rmsd import-key makes both files")
}
