package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/openrms/rms/internal/vocab"
)

// browserLife is how long the person may take.
const browserLife = 5 * time.Minute

// Browser signs in with a browser on this machine. open is called once with
// the URL to open; it must not block until the person is done, and an error
// from it ends the sign-in. The answer comes to a listener on 127.0.0.1 that
// accepts exactly one answer to exactly this request.
func (c *Client) Browser(ctx context.Context, open func(url string) error) (*Session, error) {
	if c.oauth.Endpoint.AuthURL == "" {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the identity provider does not offer signing in with a browser").
			WithNext("Sign in by code: --device")
	}
	ctx, cancel := context.WithTimeout(ctx, browserLife)
	defer cancel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	config := c.oauth
	config.RedirectURL = "http://" + listener.Addr().String() + "/callback"
	state, nonce, pkce := rand.Text(), rand.Text(), oauth2.GenerateVerifier()

	answers := make(chan url.Values, 1)
	server := &http.Server{Handler: callback(listener.Addr().String(), state, answers), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 32 << 10}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) }) // ends with ErrServerClosed
	defer func() {
		// Let the page that thanks the person go out, but wait for nobody.
		bye, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		if server.Shutdown(bye) != nil {
			_ = server.Close()
		}
		served.Wait()
	}()

	if err := open(config.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(pkce))); err != nil {
		return nil, err
	}
	var got url.Values
	select {
	case got = <-answers:
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, codeExpired(ctx.Err())
		}
		return nil, ctx.Err()
	}
	if e := got.Get("error"); e != "" {
		return nil, vocab.Errorf(vocab.ReasonNoRights, "the sign-in was refused at the identity provider").
			Because((&answer{Error: e, Description: got.Get("error_description")}).err())
	}
	// RFC 9207: whoever names an issuer must name the right one.
	if iss := got.Get("iss"); iss != "" && iss != c.provider.Issuer {
		return nil, badAnswer(errors.New("the answer is of another issuer"))
	}
	a, err := c.exchange(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {got.Get("code")},
		"redirect_uri": {config.RedirectURL}, "code_verifier": {pkce},
	})
	if err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, badAnswer(a.err())
	}
	return c.finish(ctx, a, nonce, "")
}

// callback accepts the one answer that carries our state and leaves everything
// else, such as another page's guess, without effect.
func callback(host, state string, answers chan<- url.Values) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Connection", "close")
		q := r.URL.Query()
		if r.Host != host || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			http.Error(w, "This is no answer to a sign-in under way.", http.StatusBadRequest)
			return
		}
		select {
		case answers <- q:
			_, _ = w.Write([]byte("You can close this page and go back to the terminal.\n"))
		default:
			http.Error(w, "This sign-in was answered already.", http.StatusConflict)
		}
	})
	return mux
}
