package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/hashicorp/vault/api"

	"github.com/openrms/rms/internal/vocab"
)

// refused is an answer that is not a success, with what is needed to look
// into it.
type refused struct {
	status int
	answer *answer // may hold batch results
	err    error
}

func (r *refused) Error() string { return r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

// send makes one request with the given token and returns Vault's answer, a
// *refused, or an error of the way there. It never repeats anything.
func (c *Client) send(ctx context.Context, method, path, token string, body any) (*answer, error) {
	status, b, err := c.exchange(ctx, method, path, nil, token, body)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	a, err := parseAnswer(b)
	switch {
	case status == http.StatusOK || status == http.StatusNoContent:
		if err != nil {
			return nil, vocab.Errorf(vocab.ReasonCustodianUnreachable, "the tenant's Vault did not answer as Vault does").Because(err)
		}
		// Data must outlive b, which is cleared.
		a.Data = bytes.Clone(a.Data)
		return a, nil
	case err != nil:
		a = new(answer)
	}
	a.Data = bytes.Clone(a.Data)
	return nil, &refused{status, a, refusal(status, a.Errors)}
}

// exchange makes one HTTP exchange.
func (c *Client) exchange(ctx context.Context, method, path string, query url.Values, token string, body any) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.endpoint.Timeout)
	defer cancel()
	req := c.api.NewRequest(method, "/v1/"+path)
	req.ClientToken = token
	if query != nil {
		req.Params = query
	}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, vocab.Errorf(vocab.ReasonInternal, "a request to Vault could not be written").Because(err)
		}
		defer clear(b) // it may hold a generation
		req.BodyBytes = b
	}
	resp, err := c.api.RawRequestWithContext(ctx, req) //nolint:staticcheck // the only call that keeps the body of an answer that is not a success
	if resp == nil || resp.Response == nil {
		return 0, nil, unreachable(ctx, err)
	}
	defer resp.Body.Close()
	if _, isAnswer := errors.AsType[*api.ResponseError](err); err != nil && !isAnswer {
		return 0, nil, unreachable(ctx, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, unreachable(ctx, err)
	}
	return resp.StatusCode, b, nil
}

// unreachable is the error of a request that got no answer. A caller that gave
// up gets its own error back; a time limit, whoever set it, is an outage.
func unreachable(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return fmt.Errorf("waiting for Vault: %w", context.Canceled)
	}
	return vocab.Errorf(vocab.ReasonCustodianUnreachable, "the tenant's Vault cannot be reached").
		WithNext("Try again later").Because(err)
}

// call makes one request with the login. If Vault refuses it, the login is made
// anew, unless it is fresh, and the request is made once more; what is refused
// then is refused.
func (c *Connection) call(ctx context.Context, method, path string, body any) (*answer, error) {
	token, err := c.session.token(ctx)
	if err != nil {
		return nil, err
	}
	a, err := c.client.send(ctx, method, path, token, body)
	if r, ok := errors.AsType[*refused](err); ok && r.status == http.StatusForbidden {
		fresh, loginErr := c.session.anew(ctx, token)
		switch {
		case loginErr != nil:
			return nil, loginErr
		case fresh == "":
			return nil, err
		}
		a, err = c.client.send(ctx, method, path, fresh, body)
	}
	return a, err
}
