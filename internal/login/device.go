package login

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// DevicePrompt is what to show the person.
type DevicePrompt struct {
	// URL is the page to open on any device, and Code what to type there.
	URL, Code string
	// CompleteURL is URL with the code in it; may be empty.
	CompleteURL string
	// Expires is when the code does.
	Expires time.Time
}

// Device signs in with a code that the person confirms in a browser anywhere.
// prompt is called once, to show it; Device then asks the provider, as often as
// it allows, until the person answered. It returns NO_RIGHTS if the person
// refused and TOKEN_EXPIRED if the code ran out.
func (c *Client) Device(ctx context.Context, prompt func(DevicePrompt)) (*Session, error) {
	if c.oauth.Endpoint.DeviceAuthURL == "" {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the identity provider does not offer signing in by code").
			WithNext("Sign in with a browser")
	}
	var d struct {
		DeviceCode  string `json:"device_code"`
		UserCode    string `json:"user_code"`
		URL         string `json:"verification_uri"`
		CompleteURL string `json:"verification_uri_complete"`
		ExpiresIn   int64  `json:"expires_in"`
		Interval    int64  `json:"interval"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	form := url.Values{"client_id": {c.provider.ClientID}, "scope": {strings.Join(c.oauth.Scopes, " ")}}
	if err := c.post(ctx, c.oauth.Endpoint.DeviceAuthURL, form, &d); err != nil {
		return nil, err
	}
	if d.Error != "" {
		return nil, providerDown((&answer{Error: d.Error, Description: d.Description}).err())
	}
	if d.DeviceCode == "" || d.UserCode == "" || checkEndpoint(d.URL) != nil {
		return nil, providerDown(errors.New("an incomplete device code"))
	}
	if checkEndpoint(d.CompleteURL) != nil {
		d.CompleteURL = ""
	}
	// RFC 8628 §3.2: five seconds unless it says otherwise.
	interval := 5 * time.Second
	if d.Interval > 0 {
		interval = min(time.Duration(d.Interval)*time.Second, time.Minute)
	}
	life := min(time.Duration(max(d.ExpiresIn, 1))*time.Second, time.Hour)
	expires := c.now().Add(life)
	prompt(DevicePrompt{URL: printable(d.URL), Code: printable(d.UserCode), CompleteURL: printable(d.CompleteURL), Expires: expires})

	for {
		if err := c.wait(ctx, interval); err != nil {
			return nil, err
		}
		a, err := c.exchange(ctx, url.Values{
			"grant_type":  {"urn:ietf:params:oauth:grant-type:device_code"},
			"device_code": {d.DeviceCode},
		})
		switch {
		case err != nil && vocab.ReasonOf(err) == vocab.ReasonIdentityProviderDown && c.now().Before(expires):
			interval = min(2*interval, time.Minute) // RFC 8628 §3.5: back off on connection trouble
		case err != nil:
			return nil, err
		case a.Error == "":
			return c.finish(ctx, a, "", "")
		case a.Error == "authorization_pending":
		case a.Error == "slow_down":
			interval += 5 * time.Second // RFC 8628 §3.5
		case a.Error == "access_denied":
			return nil, vocab.Errorf(vocab.ReasonNoRights, "the sign-in was refused at the identity provider").Because(a.err())
		case a.Error == "expired_token":
			return nil, codeExpired(a.err())
		default:
			return nil, badAnswer(a.err())
		}
		if !c.now().Before(expires) {
			return nil, codeExpired(nil)
		}
	}
}

func codeExpired(cause error) error {
	return vocab.Errorf(vocab.ReasonTokenExpired, "nobody confirmed the code in time").WithNext("Sign in again").Because(cause)
}
