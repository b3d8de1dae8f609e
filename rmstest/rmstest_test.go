package rmstest_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/rmstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStart(t *testing.T) {
	svc := rmstest.Start(t, rmstest.WithPeople(rmstest.Person{Email: "frank@contoso.test", Groups: []string{"finance@contoso.test"}}))
	var doc bytes.Buffer
	made, err := svc.Client("alice").Protect(t.Context(), &doc, strings.NewReader("third quarter"), rms.ProtectOptions{
		Template: "finance-internal", Name: "q3.txt", MediaType: "text/plain",
	})
	if err != nil {
		t.Fatal(err)
	}
	open := func(c *rms.Client) (string, error) {
		d, err := c.Open(t.Context(), bytes.NewReader(doc.Bytes()), int64(doc.Len()), rms.RightView)
		if err != nil {
			return "", err
		}
		defer d.Close()
		if d.License != made.License {
			t.Errorf("opened %s, made %s", d.License, made.License)
		}
		var clear strings.Builder
		_, err = d.WriteTo(&clear)
		return clear.String(), err
	}
	for name, c := range map[string]*rms.Client{
		"the publisher": svc.Client("alice"), "an intern": svc.Client("bob"), "somebody of the test": svc.Client("frank"), "the service": svc.ServiceClient(),
	} {
		if got, err := open(c); err != nil || got != "third quarter" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := open(svc.Client("mallory")); !errors.Is(err, rms.ReasonNoRights) {
		t.Errorf("mallory: %v, want NO_RIGHTS", err)
	}

	svc.Restart()
	if got, err := open(svc.Client("bob")); err != nil || got != "third quarter" {
		t.Errorf("after a restart: %q, %v", got, err)
	}
}
