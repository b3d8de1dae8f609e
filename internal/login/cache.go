package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openrms/rms/internal/vocab"
)

// renewBefore is how long before its end a token is renewed.
const renewBefore = time.Minute

// Cache is the file a session is kept in between runs, readable by its owner
// only. Programs that run at the same time renew it one after the other: a
// refresh token is good once.
type Cache struct {
	// Path is the file. Beside it lies a lock, Path + ".lock".
	Path string
	// HTTPClient asks the provider for renewal. Nil: Go's defaults.
	HTTPClient *http.Client
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// stored is the file: Session with its secrets in the clear.
type stored struct {
	Version    int       `json:"version"`
	Issuer     string    `json:"issuer"`
	ClientID   string    `json:"client_id"`
	Token      string    `json:"token"`
	Expires    time.Time `json:"expires"`
	Refresh    string    `json:"refresh,omitempty"`
	Subject    string    `json:"subject,omitempty"`
	Address    string    `json:"address,omitempty"`
	Scopes     []string  `json:"scopes,omitempty"`
	UseIDToken bool      `json:"use_id_token,omitempty"`
}

const storedVersion = 1

// Save replaces the session, durably and whole.
func (c *Cache) Save(s *Session) error {
	b, err := json.MarshalIndent(stored{
		Version: storedVersion, Issuer: s.Issuer, ClientID: s.ClientID, Token: s.Token.Reveal(), Expires: s.Expires,
		Refresh: s.Refresh.Reveal(), Subject: s.Subject, Address: s.Address, Scopes: s.Scopes, UseIDToken: s.UseIDToken,
	}, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(c.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".session-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Load returns the session as it was saved, expired or not. It returns
// TOKEN_MISSING if there is none, and refuses a file that others can read.
func (c *Cache) Load() (*Session, error) {
	f, err := os.Open(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, vocab.Errorf(vocab.ReasonTokenMissing, "you are not signed in").WithNext("Sign in first")
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || info.Size() > maxAnswer {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s is readable by others (mode %04o): the session in it may be known", c.Path, info.Mode().Perm()).
			WithNext("Delete it and sign in again")
	}
	var s stored
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil || s.Version != storedVersion || s.Token == "" {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s is not a session", c.Path).
			WithNext("Delete it and sign in again").Because(err)
	}
	return &Session{
		Issuer: s.Issuer, ClientID: s.ClientID, Token: Bearer(s.Token), Expires: s.Expires, Refresh: Bearer(s.Refresh),
		Subject: s.Subject, Address: s.Address, Scopes: s.Scopes, UseIDToken: s.UseIDToken,
	}, nil
}

// Delete forgets the session. It is no error if there is none.
func (c *Cache) Delete() error {
	err := os.Remove(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Token returns a token that is good for another minute at least, renewed if
// need be. It returns TOKEN_MISSING or TOKEN_EXPIRED if the person must sign
// in, and IDENTITY_PROVIDER_DOWN if renewal failed for now; as long as the old
// token is good it is returned instead.
func (c *Cache) Token(ctx context.Context) (Bearer, error) {
	s, err := c.Load()
	if err != nil {
		return "", err
	}
	if c.fresh(s) {
		return s.Token, nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if s, err = c.Load(); err != nil { // another program may have renewed it
		return "", err
	}
	if c.fresh(s) {
		return s.Token, nil
	}
	renewed, err := c.renew(ctx, s)
	if err != nil {
		if c.now().Before(s.Expires) && vocab.ReasonOf(err) == vocab.ReasonIdentityProviderDown {
			return s.Token, nil
		}
		return "", err
	}
	if err := c.Save(renewed); err != nil {
		return "", err
	}
	return renewed.Token, nil
}

func (c *Cache) renew(ctx context.Context, s *Session) (*Session, error) {
	if s.Refresh == "" {
		return nil, signInAgain(errors.New("no refresh token"))
	}
	client, err := Discover(ctx, Provider{Issuer: s.Issuer, ClientID: s.ClientID, Scopes: s.Scopes, UseIDToken: s.UseIDToken}, c.HTTPClient)
	if err != nil {
		return nil, err
	}
	client.now = c.now
	return client.Refresh(ctx, s)
}

func (c *Cache) fresh(s *Session) bool { return c.now().Add(renewBefore).Before(s.Expires) }

func (c *Cache) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// lock takes the lock file, asking again until ctx ends. The lock ends with
// the process whatever happens.
func (c *Cache) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(c.Path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", f.Name(), err), f.Close())
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
}
