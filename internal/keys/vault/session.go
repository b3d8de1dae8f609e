package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

const (
	// freshLogin is how young a login is when a refusal is not answered by
	// another one: a tenant that is switched off is not asked twice per call.
	freshLogin = 2 * time.Second
	// refusedRest is how long a refused login stands before another is tried.
	refusedRest = time.Second
	// Pauses between attempts to renew while Vault does not answer.
	minPause, maxPause = time.Second, 30 * time.Second
)

// session is the login of one tenant: made when first needed, renewed in the
// background, made anew when refused or run out.
type session struct {
	v *Vault

	// turn is held by whoever logs in, so that others wait for the result.
	turn chan struct{}

	mu      sync.Mutex
	current login
	changed chan struct{} // closed and replaced when current changes

	// Guarded by turn.
	refusal   error     // of the last login, if Vault refused it
	refusedAt time.Time // when it did
	secretID  string    // that was unwrapped
	wrapToken [32]byte  // hash of the wrapping token it came out of
}

type login struct {
	token     string
	since     time.Time
	lease     time.Duration // 0: no end
	renewable bool
}

func newSession(v *Vault) *session {
	return &session{v: v, turn: make(chan struct{}, 1), changed: make(chan struct{})}
}

func (s *session) get() (login, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.changed
}

func (s *session) set(l login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = l
	close(s.changed)
	s.changed = make(chan struct{})
}

// token returns the token of the login, logging in if there is none.
func (s *session) token(ctx context.Context) (string, error) {
	if l, _ := s.get(); l.token != "" {
		return l.token, nil
	}
	return s.anew(ctx, "")
}

// anew replaces the login whose token is bad. It returns "" without error if
// that login is so fresh that another would not help.
func (s *session) anew(ctx context.Context, bad string) (string, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", unreachable(ctx, context.Cause(ctx))
	}
	now := s.v.cfg.Now()
	l, _ := s.get()
	switch {
	case s.v.closed.Load():
		return "", vocab.Errorf(vocab.ReasonCustodianUnreachable, "the connection to the tenant's Vault is closed")
	case l.token != bad && l.token != "": // somebody else just did it
		return l.token, nil
	case bad != "" && now.Sub(l.since) < freshLogin:
		return "", nil
	case s.refusal != nil && now.Sub(s.refusedAt) < refusedRest:
		return "", s.refusal
	}
	l, err := s.login(ctx)
	if err != nil {
		if keys.IsRefusal(err) {
			s.refusal, s.refusedAt = err, s.v.cfg.Now()
		}
		s.v.cfg.Log.Warn("Vault login failed", "mount", s.v.cfg.Mount, "reason", vocab.ReasonOf(err), "cause", errors.Unwrap(err))
		return "", err
	}
	s.refusal = nil
	s.set(l)
	s.v.cfg.Log.Info("logged in to Vault", "mount", s.v.cfg.Mount, "lease", l.lease)
	return l.token, nil
}

// login logs in. A pinned cluster is recognised first: no other one gets to
// see a credential.
func (s *session) login(ctx context.Context) (login, error) {
	if _, err := s.v.conn.expected(ctx); err != nil {
		return login{}, err
	}
	if s.v.cfg.TokenFile != "" {
		return s.tokenLogin(ctx)
	}
	return s.appRoleLogin(ctx)
}

func (s *session) appRoleLogin(ctx context.Context) (login, error) {
	a := s.v.cfg.AppRole
	roleID, err := readCredential(a.RoleIDFile)
	if err != nil {
		return login{}, err
	}
	secretID, err := s.takeSecretID(ctx)
	if err != nil {
		return login{}, err
	}
	started := s.v.cfg.Now()
	ans, err := s.v.conn.send(ctx, http.MethodPost, "auth/"+a.Mount+"/login", "", map[string]string{"role_id": roleID, "secret_id": secretID})
	if r, ok := errors.AsType[*refused](err); ok && (r.status == http.StatusBadRequest || r.status == http.StatusForbidden) {
		return login{}, vocab.Errorf(vocab.ReasonCustodianRefused, "the tenant's Vault does not accept the service's login").
			WithNext("This is the customer's own switch, or the secret ID ran out: ask the key custodian").Because(r.err)
	}
	if err != nil {
		return login{}, unrefused(err)
	}
	if ans.Auth == nil || ans.Auth.ClientToken == "" || ans.Auth.LeaseDuration < 0 {
		return login{}, keys.Integrity(errors.New("login without a token"))
	}
	return login{ans.Auth.ClientToken, started, seconds(ans.Auth.LeaseDuration), ans.Auth.Renewable}, nil
}

func seconds(n int64) time.Duration { return time.Duration(min(n, 1<<31)) * time.Second }

// unrefused takes the *refused off before an error leaves or becomes a cause, so
// that it is only ever found on an answer to the request just made.
func unrefused(err error) error {
	if r, ok := errors.AsType[*refused](err); ok {
		return r.err
	}
	return err
}

func (s *session) tokenLogin(ctx context.Context) (login, error) {
	token, err := readCredential(s.v.cfg.TokenFile)
	if err != nil {
		return login{}, err
	}
	started := s.v.cfg.Now()
	ans, err := s.v.conn.send(ctx, http.MethodGet, "auth/token/lookup-self", token, nil)
	if err != nil {
		return login{}, unrefused(err)
	}
	var d struct {
		TTL       *int64 `json:"ttl"`
		Renewable bool   `json:"renewable"`
	}
	if err := decodeOne(ans.Data, &d); err != nil || d.TTL == nil || *d.TTL < 0 {
		return login{}, keys.Integrity(errors.New("token without TTL"))
	}
	return login{token, started, seconds(*d.TTL), d.Renewable}, nil
}

// takeSecretID returns the secret ID: from its file, or out of its wrapping.
func (s *session) takeSecretID(ctx context.Context) (string, error) {
	a := s.v.cfg.AppRole
	content, err := readCredential(a.SecretIDFile)
	if err != nil {
		if a.Wrapped && s.secretID != "" { // delivered, taken and removed
			return s.secretID, nil
		}
		return "", err
	}
	if !a.Wrapped {
		return content, nil
	}
	sum := sha256.Sum256([]byte(content))
	if s.secretID != "" && sum == s.wrapToken {
		return s.secretID, nil
	}
	id, err := s.unwrapSecretID(ctx, content)
	if err != nil {
		return "", err
	}
	s.secretID, s.wrapToken = id, sum
	return id, nil
}

// unwrapSecretID takes a secret ID out of its wrapping token: first the token
// must say that it came from a role's secret-id path, so that nobody can hand
// over a wrapping of their own making; then it must not have been used. A used
// one means that somebody else has the secret ID.
func (s *session) unwrapSecretID(ctx context.Context, wrapping string) (string, error) {
	a := s.v.cfg.AppRole
	alarm := func(err error) error {
		if !isRefused(err) {
			return unrefused(err)
		}
		return vocab.Errorf(vocab.ReasonCustodyIntegrity, "the wrapped secret ID was used before, or was never one").
			WithNext("Unless this service itself took it before a restart, somebody else has it: have the key custodian destroy it and deliver a new one").
			Because(unrefused(err))
	}
	ans, err := s.v.conn.send(ctx, http.MethodPost, "sys/wrapping/lookup", "", map[string]string{"token": wrapping})
	if err != nil {
		return "", alarm(err)
	}
	var info struct {
		Path string `json:"creation_path"`
	}
	if err := decodeOne(ans.Data, &info); err != nil {
		return "", keys.Integrity(err)
	}
	role, ok := strings.CutPrefix(info.Path, "auth/"+a.Mount+"/role/")
	role, isSecretID := strings.CutSuffix(role, "/secret-id")
	if !ok || !isSecretID || !nameRule.MatchString(role) || a.Role != "" && role != a.Role {
		return "", vocab.Errorf(vocab.ReasonCustodyIntegrity, "what was delivered as a wrapped secret ID is something else").
			WithNext("Ask the key custodian who delivered it").Because(fmt.Errorf("wrapped at %.200q", info.Path))
	}
	ans, err = s.v.conn.send(ctx, http.MethodPost, "sys/wrapping/unwrap", wrapping, nil)
	if err != nil {
		return "", alarm(err)
	}
	var d struct {
		SecretID string `json:"secret_id"`
	}
	if err := decodeOne(ans.Data, &d); err != nil || d.SecretID == "" {
		return "", keys.Integrity(errors.New("wrapping without a secret ID"))
	}
	return d.SecretID, nil
}

// readCredential reads a small file of one line.
func readCredential(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 4096 {
		err = errors.New("it is larger than 4096 bytes")
	}
	line := string(bytes.TrimSpace(b))
	if err == nil && (line == "" || strings.ContainsFunc(line, func(r rune) bool { return r <= ' ' || r > '~' })) {
		err = errors.New("it is empty or has more than one line")
	}
	if err != nil {
		return "", vocab.Errorf(vocab.ReasonConfigurationInvalid, "a login file of the custodian cannot be used").
			WithNext("Check the custodian of the tenant's file").Because(fmt.Errorf("%s: %w", path, err))
	}
	return line, nil
}

// run keeps the login alive until ctx ends. It only ever helps: calls log in by
// themselves when they must, so an absence of Vault, however long, ends with
// the first call after it.
func (s *session) run(ctx context.Context) {
	pause := minPause
	for {
		l, changed := s.get()
		wait, due := s.untilDue(l)
		if due {
			if s.refresh(ctx, l) {
				pause = minPause
				continue
			}
			wait = pause/2 + rand.N(pause/2) //nolint:gosec // jitter, not a secret
			pause = min(2*pause, maxPause)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-changed:
			t.Stop()
			pause = minPause
		case <-t.C:
		}
	}
}

// untilDue says how long until a login should be renewed: about two thirds of
// its lease. Without login or end there is nothing to do.
func (s *session) untilDue(l login) (time.Duration, bool) {
	if l.token == "" || l.lease == 0 {
		return 24 * time.Hour, false
	}
	at := l.since.Add(time.Duration(float64(l.lease) * (0.6 + 0.1*float64(l.token[len(l.token)-1]%8)/8)))
	wait := at.Sub(s.v.cfg.Now())
	return wait, wait <= 0
}

// refresh renews l, or replaces it if it cannot be renewed any more.
func (s *session) refresh(ctx context.Context, l login) bool {
	if l.renewable {
		started := s.v.cfg.Now()
		ans, err := s.v.conn.send(ctx, http.MethodPost, "auth/token/renew-self", l.token, struct{}{})
		switch {
		case err == nil && ans.Auth != nil && ans.Auth.LeaseDuration > 0:
			next := login{l.token, started, seconds(ans.Auth.LeaseDuration), ans.Auth.Renewable}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.current.token == l.token {
				s.current = next
			}
			// One that was cut short nears its explicit end: then log in next.
			if next.lease < l.lease/2 {
				s.current.renewable = false
			}
			return true
		case err != nil && !isRefused(err):
			return false // out of reach: later
		}
	}
	_, err := s.anew(ctx, l.token)
	return err == nil
}

func isRefused(err error) bool {
	r, ok := errors.AsType[*refused](err)
	return ok && (r.status == http.StatusForbidden || r.status == http.StatusBadRequest)
}

// close gives the token back, if Vault still listens, and forgets everything.
func (s *session) close() {
	l, _ := s.get()
	if l.token != "" && s.v.cfg.AppRole != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, _ = s.v.conn.send(ctx, http.MethodPost, "auth/token/revoke-self", l.token, struct{}{})
		cancel()
	}
	s.set(login{})
	s.turn <- struct{}{}
	s.secretID = ""
	<-s.turn
}

// capabilities asks what the login may do on each path.
func (v *Vault) capabilities(ctx context.Context, paths []string) (map[string][]string, error) {
	ans, err := v.call(ctx, http.MethodPost, "sys/capabilities-self", map[string][]string{"paths": paths})
	if err != nil {
		return nil, unrefused(err)
	}
	return parseCapabilities(ans.Data, paths)
}

func parseCapabilities(data json.RawMessage, paths []string) (map[string][]string, error) {
	var all map[string]json.RawMessage
	if err := decodeOne(data, &all); err != nil {
		return nil, keys.Integrity(err)
	}
	out := make(map[string][]string)
	for _, p := range paths {
		var caps []string
		if err := json.Unmarshal(all[p], &caps); err != nil || len(caps) == 0 {
			return nil, keys.Integrity(fmt.Errorf("no capabilities for %q", p))
		}
		out[p] = caps
	}
	return out, nil
}
