package rms_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/openrms/rms"
	"github.com/openrms/rms/rmstest"
)

// A program signs in with its user's token and the trust that was pinned at
// the first sign-in.
func ExampleDial() {
	ctx := context.Background()
	info, err := rms.FetchTrust(ctx, "rms.contoso.com:7443", nil, "contoso")
	if err != nil {
		log.Fatal(err)
	}
	// Once: a person compares info.RootKeyIDs with what the tenant's
	// administrator says, then the program keeps info.Trust().
	trust := info.Trust()
	trust.Updated = func(newer rms.Trust) { /* keep it in place of the old one */ }

	client, err := rms.Dial(ctx, rms.Config{
		Address: "rms.contoso.com:7443",
		Tenant:  "contoso",
		Token:   func(context.Context) (string, error) { return os.Getenv("ACCESS_TOKEN"), nil },
		Trust:   trust,
		Product: "archive/1.4",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

// A service signs in with its client certificate.
func ExampleDial_service() {
	var trust rms.Trust // as it was kept
	certificate, err := tls.LoadX509KeyPair("dlp.pem", "dlp.key")
	if err != nil {
		log.Fatal(err)
	}
	client, err := rms.Dial(context.Background(), rms.Config{
		Address: "rms.contoso.com:7443",
		Tenant:  "contoso",
		TLS:     &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
		Trust:   trust,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func ExampleClient_Protect() {
	var client *rms.Client // from Dial
	src, err := os.Open("q3.pdf")
	if err != nil {
		log.Fatal(err)
	}
	defer src.Close()
	dst, err := os.CreateTemp(".", "q3-*.pdf.rms")
	if err != nil {
		log.Fatal(err)
	}
	viewer, err := rms.Level("viewer")
	if err != nil {
		log.Fatal(err)
	}
	made, err := client.Protect(context.Background(), dst, src, rms.ProtectOptions{
		AdHoc:     rms.AdHoc(rms.Grant("user:bob@fabrikam.com", viewer)),
		Name:      "q3.pdf",
		MediaType: "application/pdf",
	})
	if err == nil {
		err = dst.Close()
	}
	if err != nil {
		_ = os.Remove(dst.Name()) // what is there does not open
		log.Fatal(err)
	}
	fmt.Println("license", made.License)
}

// A service protects what a person brings: the person is the owner, and the
// service can open it afterwards only for its users, or if a grant names it. The
// request's ID is the job's, so that a job that begins anew makes no second
// license.
func ExampleClient_Protect_onBehalf() {
	var client *rms.Client // of a service, from Dial
	ctx := context.Background()
	var document bytes.Buffer
	_, err := client.Protect(ctx, &document, strings.NewReader("the minutes"), rms.ProtectOptions{
		Template:  "board-secret",
		Owner:     "user:alice@contoso.com",
		RequestID: "upload 4711",
	})
	if err != nil {
		log.Fatal(err)
	}
	file := bytes.NewReader(document.Bytes())
	_, err = client.Open(ctx, file, file.Size(), rms.RightView)
	fmt.Println(errors.Is(err, rms.ReasonNoRights)) // true

	var token string // bob's, which came with his request
	opened, err := client.Open(ctx, file, file.Size(), rms.RightView, rms.OnBehalfOf(token), rms.Because("preview"))
	if err != nil {
		log.Fatal(err)
	}
	defer opened.Close()
}

// Somebody who may edit a document and not export it saves it anew: under the
// same terms, for the same owner.
func ExampleClient_Protect_derived() {
	var client *rms.Client       // from Dial
	var original *rms.Document   // opened with it
	var dst, edited bytes.Buffer // what it became
	made, err := client.Protect(context.Background(), &dst, &edited, rms.ProtectOptions{
		Parents: []rms.ContentID{original.License},
		Name:    original.Name,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("license", made.License, "of", made.Record.GetOwner())
}

func ExampleClient_Open() {
	var client *rms.Client // from Dial
	file, err := os.Open("q3.pdf.rms")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		log.Fatal(err)
	}
	document, err := client.Open(context.Background(), file, info.Size(), rms.RightView)
	if refused, ok := errors.AsType[*rms.Error](err); ok {
		log.Fatalf("%s (%s). Ask %s, quote %s", refused.Message, refused.Reason, refused.Contact, refused.Event)
	}
	if err != nil {
		log.Fatal(err) // the file cannot be read
	}
	defer document.Close()
	fmt.Println(document.Name, document.Size, document.Rights.Has(rms.RightPrint))
	page := make([]byte, 4096)
	if _, err := document.ReadAt(page, 0); err != nil && !errors.Is(err, io.EOF) {
		log.Fatal(err)
	}
}

// What the examples show, on a whole service.
func TestExampleOnAService(t *testing.T) {
	svc := rmstest.Start(t)
	path := t.TempDir() + "/q3.txt.rms"
	dst, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := svc.Client("alice").Protect(t.Context(), dst, strings.NewReader("third quarter"), rms.ProtectOptions{Template: "finance-internal", Name: "q3.txt"}); err != nil {
		t.Fatal(err)
	}
	info, err := dst.Stat()
	if err != nil {
		t.Fatal(err)
	}
	document, err := svc.Client("bob").Open(t.Context(), dst, info.Size(), rms.RightView)
	if err != nil {
		t.Fatal(err)
	}
	defer document.Close()
	part := make([]byte, 7)
	if n, err := document.ReadAt(part, 6); err != nil || string(part[:n]) != "quarter" {
		t.Errorf("%q, %v", part[:n], err)
	}
	if n, err := document.ReadAt(part, 8); !errors.Is(err, io.EOF) || string(part[:n]) != "arter" {
		t.Errorf("beyond the end: %q, %v", part[:n], err)
	}
}
