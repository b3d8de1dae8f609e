package vaultact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/openrms/rms/internal/vocab"
)

// Token is somebody's login to Vault. Like a [vocab.Secret] it does not print;
// it is not one because its length is Vault's.
type Token struct{ b []byte }

const (
	redacted = "[redacted]"
	maxToken = 4096
)

// TokenFrom takes a token's text.
func TokenFrom(text []byte) (*Token, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 || len(text) > maxToken || bytes.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("it holds no token")
	}
	return &Token{bytes.Clone(text)}, nil
}

// Zero overwrites the token. Zero of nil does nothing.
func (t *Token) Zero() {
	if t != nil {
		clear(t.b)
	}
}

// String, MarshalText, MarshalJSON and LogValue never show it.
func (Token) String() string               { return redacted }
func (Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Token) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Token) LogValue() slog.Value         { return slog.StringValue(redacted) }

// Format keeps every verb of fmt from showing it.
func (Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// FindToken finds the token a person acts with: in the named file if there is
// one; else in VAULT_TOKEN; else in .vault-token of home, where `vault login`
// leaves it. A token is never an argument, which other users of the machine can
// read. A file that others may read is refused. env looks up a variable. The
// second result says in words where the token was found.
func FindToken(file string, env func(string) string, home string) (*Token, string, error) {
	if file != "" {
		t, err := readToken(file)
		return t, "the file " + file, err
	}
	if text := env("VAULT_TOKEN"); text != "" {
		t, err := TokenFrom([]byte(text))
		if err != nil {
			return nil, "", badToken("VAULT_TOKEN", err)
		}
		return t, "VAULT_TOKEN", nil
	}
	if home != "" {
		path := filepath.Join(home, ".vault-token")
		t, err := readToken(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return t, "the file " + path, err
		}
	}
	return nil, "", vocab.Errorf(vocab.ReasonTokenMissing, "there is no Vault token to act with").
		WithNext("Log in with `vault login`, or set VAULT_TOKEN, or name a file that holds one")
}

func badToken(where string, err error) error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the Vault token in %s cannot be used: %v", where, err).
		WithNext("Log in with `vault login`, or name another file").Because(err)
}

func readToken(path string) (*Token, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, badToken(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, badToken(path, err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the Vault token in %s can be read by others", path).
			WithNext("Revoke it if others use this machine; then `chmod 600 %s`", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+2))
	defer clear(b)
	if err != nil {
		return nil, badToken(path, err)
	}
	t, err := TokenFrom(b)
	if err != nil {
		return nil, badToken(path, err)
	}
	return t, nil
}
