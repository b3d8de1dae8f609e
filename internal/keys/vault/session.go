package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
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
	// badRest is how long credentials that were refused badTries times in a row
	// are not tried again. Vault counts the failures of a role, by itself, and
	// locks out whoever has 5 of which each follows the one before within 15
	// minutes: then also a good secret ID is refused, for 15 minutes.
	badRest  = 16 * time.Minute
	badTries = 3
	// deliveryPause is how often a wrapped secret ID is looked for while the
	// login is good: one that is only unwrapped when it is needed has run out.
	deliveryPause = time.Minute
	// Pauses between attempts to renew while Vault does not answer.
	minPause, maxPause = time.Second, 30 * time.Second
)

// session is the login of a connection: made when first needed, renewed in the
// background, made anew when refused or run out.
type session struct {
	c *Connection

	// turn is held by whoever logs in, so that others wait for the result.
	turn chan struct{}

	mu      sync.Mutex
	current login
	changed chan struct{} // closed and replaced when current changes

	// Guarded by turn.
	refusal     error     // of the last login, if Vault refused it
	refusedAt   time.Time // when it did
	refusedWith [32]byte  // hash of the credentials that it refused
	bad         int       // how often in a row it said that those are wrong
	secretID    string    // that was unwrapped
	wrapToken   [32]byte  // hash of the wrapping token it came out of
	wrongWrap   [32]byte  // hash of the last one that was not good
	wrongErr    error     // why; nil if the last one was
}

type login struct {
	token     string
	since     time.Time
	lease     time.Duration // 0: no end
	renewable bool
}

func newSession(c *Connection) *session {
	return &session{c: c, turn: make(chan struct{}, 1), changed: make(chan struct{})}
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
	now := s.c.cfg.Now()
	l, _ := s.get()
	switch {
	case s.c.closed.Load():
		return "", closed()
	case l.token != bad && l.token != "": // somebody else just did it
		return l.token, nil
	case bad != "" && now.Sub(l.since) < freshLogin:
		return "", nil
	}
	offered := s.offered()
	if s.refusal != nil && offered == s.refusedWith && now.Sub(s.refusedAt) < s.rest() {
		return "", s.refusal
	}
	l, err := s.login(ctx)
	if err != nil {
		s.noteRefusal(err, offered)
		s.c.cfg.Log.Warn("Vault login failed", "mount", s.c.cfg.Mount, "reason", vocab.ReasonOf(err), "cause", errors.Unwrap(err))
		return "", err
	}
	s.refusal, s.bad = nil, 0
	s.set(l)
	s.c.cfg.Log.Info("logged in to Vault", "mount", s.c.cfg.Mount, "lease", l.lease)
	return l.token, nil
}

// offered is the hash of the credentials as they lie in their files now.
func (s *session) offered() (sum [32]byte) {
	paths := []string{s.c.cfg.TokenFile}
	if a := s.c.cfg.AppRole; a != nil {
		paths = []string{a.RoleIDFile, a.SecretIDFile}
	}
	h := sha256.New()
	for _, path := range paths {
		content, _ := readCredential(path) // what cannot be read is one more content
		fmt.Fprintf(h, "%d %s ", len(content), content)
	}
	return [32]byte(h.Sum(nil))
}

// noteRefusal remembers that a login failed, if it was refused.
func (s *session) noteRefusal(err error, offered [32]byte) {
	if !keys.IsRefusal(err) {
		return
	}
	wrong := errors.Is(err, errWrongCredentials)
	if offered != s.refusedWith || !wrong {
		s.bad = 0
	}
	if wrong {
		s.bad++
	}
	s.refusal, s.refusedAt, s.refusedWith = err, s.c.cfg.Now(), offered
}

// rest is how long the last refusal stands.
func (s *session) rest() time.Duration {
	if s.bad >= badTries {
		return badRest
	}
	return refusedRest
}

// errWrongCredentials is the cause of a login that failed for its credentials.
var errWrongCredentials = errors.New("wrong role ID or secret ID")

// login logs in. A pinned cluster is recognised first: no other one gets to
// see a credential.
func (s *session) login(ctx context.Context) (login, error) {
	if _, err := s.c.client.expected(ctx); err != nil {
		return login{}, err
	}
	if s.c.cfg.TokenFile != "" {
		return s.tokenLogin(ctx)
	}
	return s.appRoleLogin(ctx)
}

func (s *session) appRoleLogin(ctx context.Context) (login, error) {
	a := s.c.cfg.AppRole
	roleID, err := readCredential(a.RoleIDFile)
	if err != nil {
		return login{}, err
	}
	secretID, err := s.takeSecretID(ctx)
	if err != nil {
		return login{}, err
	}
	started := s.c.cfg.Now()
	ans, err := s.c.client.send(ctx, http.MethodPost, "auth/"+a.Mount+"/login", "", map[string]string{"role_id": roleID, "secret_id": secretID})
	if r, ok := errors.AsType[*refused](err); ok && (r.status == http.StatusBadRequest || r.status == http.StatusForbidden) {
		cause := r.err
		if r.status == http.StatusBadRequest {
			cause = fmt.Errorf("%w: %w", errWrongCredentials, r.err)
		}
		return login{}, vocab.Errorf(vocab.ReasonCustodianRefused, "the tenant's Vault does not accept the service's login").
			WithNext("This is the customer's own switch, or the secret ID ran out: ask the key custodian to deliver a new one").Because(cause)
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
	token, err := readCredential(s.c.cfg.TokenFile)
	if err != nil {
		return login{}, err
	}
	started := s.c.cfg.Now()
	ans, err := s.c.client.send(ctx, http.MethodGet, "auth/token/lookup-self", token, nil)
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
	a := s.c.cfg.AppRole
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
	if s.secretID != "" && (sum == s.wrapToken || s.wrongErr != nil && sum == s.wrongWrap) {
		return s.secretID, nil
	}
	id, err := s.unwrapSecretID(ctx, content)
	switch {
	case err == nil:
		s.secretID, s.wrapToken, s.wrongErr = id, sum, nil
		return id, nil
	case vocab.ReasonOf(err) != vocab.ReasonCustodyIntegrity:
		return "", err
	}
	// An alarm for [session.delivered]. The secret ID that is held came unspent,
	// and is no worse for it.
	s.wrongWrap, s.wrongErr = sum, err
	if s.secretID != "" {
		return s.secretID, nil
	}
	return "", err
}

// takeDelivery takes a secret ID that was delivered anew out of its wrapping,
// before the wrapping runs out.
func (s *session) takeDelivery(ctx context.Context) {
	a := s.c.cfg.AppRole
	if a == nil || !a.Wrapped {
		return
	}
	content, err := readCredential(a.SecretIDFile)
	if err != nil {
		return // nothing new
	}
	sum := sha256.Sum256([]byte(content))
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return
	}
	// The first one is taken by who needs it.
	if s.secretID == "" || sum == s.wrapToken || s.wrongErr != nil && sum == s.wrongWrap {
		return
	}
	if _, err = s.c.client.expected(ctx); err == nil {
		_, err = s.takeSecretID(ctx)
	}
	switch {
	case err == nil && s.wrongErr == nil:
		s.c.cfg.Log.Info("took a new secret ID for Vault", "mount", s.c.cfg.Mount)
	case err == nil:
		s.c.cfg.Log.Error("what was delivered as a wrapped secret ID is none", "mount", s.c.cfg.Mount, "cause", errors.Unwrap(s.wrongErr))
	default:
		s.c.cfg.Log.Info("a new secret ID for Vault could not be taken yet", "mount", s.c.cfg.Mount, "reason", vocab.ReasonOf(err))
	}
}

// delivered is why what was last delivered as a wrapped secret ID is none, nil
// if it was one.
func (s *session) delivered(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
		return s.wrongErr
	case <-ctx.Done():
		return unreachable(ctx, context.Cause(ctx))
	}
}

// unwrapSecretID takes a secret ID out of its wrapping token: first the token
// must say that it came from a role's secret-id path, so that nobody can hand
// over a wrapping of their own making; then it must not have been used. A used
// one means that somebody else has the secret ID.
func (s *session) unwrapSecretID(ctx context.Context, wrapping string) (string, error) {
	a := s.c.cfg.AppRole
	alarm := func(err error) error {
		if !isRefused(err) {
			return unrefused(err)
		}
		return vocab.Errorf(vocab.ReasonCustodyIntegrity, "the wrapped secret ID was used before, or was never one").
			WithNext("Unless this service itself took it before a restart, somebody else has it: have the key custodian destroy it and deliver a new one").
			Because(unrefused(err))
	}
	ans, err := s.c.client.send(ctx, http.MethodPost, "sys/wrapping/lookup", "", map[string]string{"token": wrapping})
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
	ans, err = s.c.client.send(ctx, http.MethodPost, "sys/wrapping/unwrap", wrapping, nil)
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
		if l.token != "" {
			s.takeDelivery(ctx)
			wait = min(wait, deliveryPause)
		}
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
	wait := at.Sub(s.c.cfg.Now())
	return wait, wait <= 0
}

// refresh renews l, or replaces it if it cannot be renewed any more.
func (s *session) refresh(ctx context.Context, l login) bool {
	if l.renewable {
		started := s.c.cfg.Now()
		ans, err := s.c.client.send(ctx, http.MethodPost, "auth/token/renew-self", l.token, struct{}{})
		switch {
		case err == nil && ans.Auth != nil && ans.Auth.LeaseDuration > 0:
			next := login{l.token, started, seconds(ans.Auth.LeaseDuration), ans.Auth.Renewable}
			// One that was cut short nears its explicit end: then log in next.
			if next.lease < l.lease/2 {
				next.renewable = false
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.current.token == l.token {
				s.current = next
			}
			return true
		case err != nil && !isRefused(err):
			return false // out of reach: later
		}
	}
	// A login too fresh to be replaced is no progress: it is tried again later.
	token, err := s.anew(ctx, l.token)
	return err == nil && token != ""
}

func isRefused(err error) bool {
	r, ok := errors.AsType[*refused](err)
	return ok && (r.status == http.StatusForbidden || r.status == http.StatusBadRequest)
}

// close gives the token back, if Vault still listens, and forgets everything.
func (s *session) close() {
	l, _ := s.get()
	if l.token != "" && s.c.cfg.AppRole != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, _ = s.c.client.send(ctx, http.MethodPost, "auth/token/revoke-self", l.token, struct{}{})
		cancel()
	}
	s.set(login{})
	s.turn <- struct{}{}
	s.secretID = ""
	<-s.turn
}
