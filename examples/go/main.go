// Example protects a file for one reader, or opens one for its user:
//
//	ACCESS_TOKEN=… go run ./examples/go protect -server rms.contoso.com:7443 -tenant contoso \
//		-root SHA256:… -to user:bob@contoso.com q3.pdf
//	ACCESS_TOKEN=… go run ./examples/go open -server … -tenant … -root SHA256:… q3.pdf.rms > q3.pdf
//
// The root is the tenant's signing root as its administrator states it; with
// none given the program shows what the server claims, and stops.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"

	"github.com/openrms/rms"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv("ACCESS_TOKEN"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, token string, out io.Writer) error {
	if len(args) == 0 || args[0] != "protect" && args[0] != "open" {
		return errors.New("want protect or open")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	server := flags.String("server", "localhost:7443", "HOST:PORT of the service")
	tenant := flags.String("tenant", "", "the tenant's name")
	root := flags.String("root", "", "the tenant's root key ID, SHA256:…")
	ca := flags.String("ca", "", "PEM file of the server certificate's authority; default: the system's")
	to := flags.String("to", "", "who may read, for example user:bob@contoso.com")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one file")
	}
	client, err := dial(ctx, *server, *tenant, *root, *ca, token)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // nothing is left to lose
	if args[0] == "protect" {
		return protect(ctx, client, flags.Arg(0), *to, out)
	}
	return open(ctx, client, flags.Arg(0), out)
}

// dial pins the root that the user named. A program that runs more than once
// keeps the trust, and what Updated tells it.
func dial(ctx context.Context, server, tenant, root, ca, token string) (*rms.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if ca != "" {
		pem, err := os.ReadFile(ca) //nolint:gosec // the user named it
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", ca)
		}
	}
	info, err := rms.FetchTrust(ctx, server, config, tenant)
	if err != nil {
		return nil, err
	}
	claimed := make([]string, len(info.RootKeyIDs))
	for i, id := range info.RootKeyIDs {
		claimed[i] = "SHA256:" + base64.RawStdEncoding.EncodeToString(id[:])
	}
	i := slices.Index(claimed, root)
	if i < 0 {
		return nil, fmt.Errorf("the server claims the root %s; ask the tenant's administrator, then pass it with -root", claimed[0])
	}
	trust := info.Trust()
	trust.RootKeyIDs = info.RootKeyIDs[i : i+1]
	return rms.Dial(ctx, rms.Config{
		Address: server, Tenant: info.Tenant, TLS: config, Trust: trust, Product: "example",
		Token: func(context.Context) (string, error) { return token, nil },
	})
}

// protect writes FILE.rms beside the file, complete or not at all.
func protect(ctx context.Context, client *rms.Client, path, to string, out io.Writer) error {
	src, err := os.Open(path) //nolint:gosec // the user named it
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	viewer, err := rms.Level("viewer")
	if err != nil {
		return err
	}
	dst, err := os.CreateTemp(filepath.Dir(path), ".protecting-*")
	if err != nil {
		return err
	}
	defer os.Remove(dst.Name()) //nolint:errcheck // it was renamed, or is of no use
	made, err := client.Protect(ctx, dst, src, rms.ProtectOptions{
		AdHoc: rms.AdHoc(rms.Grant(to, viewer)), Name: info.Name(), ModTime: info.ModTime(), Size: info.Size(),
	})
	if err = errors.Join(err, dst.Sync(), dst.Close()); err != nil {
		return err
	}
	if err := os.Rename(dst.Name(), path+rms.Suffix); err != nil { //nolint:gosec // beside the file the user named
		return err
	}
	fmt.Fprintln(out, path+rms.Suffix, "license", made.License)
	return nil
}

// open writes the content to out.
func open(ctx context.Context, client *rms.Client, path string, out io.Writer) error {
	src, err := os.Open(path) //nolint:gosec // the user named it
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	document, err := client.Open(ctx, src, info.Size(), rms.RightView)
	if refused, ok := errors.AsType[*rms.Error](err); ok && !refused.Event.IsZero() {
		return fmt.Errorf("%w; ask %s, quote event %s", err, refused.Contact, refused.Event)
	}
	if err != nil {
		return err
	}
	defer document.Close() //nolint:errcheck // it never fails
	_, err = document.WriteTo(out)
	return err
}
