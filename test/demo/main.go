// Command demo shows the main job with the real programs: it builds rmsd and
// rmsctl, starts a development daemon, protects a file, opens it as somebody
// who may, is refused as somebody who may not, and reads the record that
// proves it. It prints each command as typed and what it answered, checks
// every exit code and hash itself, and stops at the first difference.
//
//	go run ./test/demo          on the embedded keyring
//	go run ./test/demo -vault   on a real Vault, which it starts
//
// FILE=path protects your own file, which is only read. KEEP=1 keeps
// everything it made.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	useVault := flag.Bool("vault", false, "keep the keys in a real Vault, started for the demo")
	flag.Parse()
	// A reader of the output that goes away ends the demo like an interrupt, so
	// that nothing it started stays behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	defer stop()
	if err := run(ctx, os.Stdout, options{vault: *useVault, file: os.Getenv("FILE"), keep: os.Getenv("KEEP") != ""}); err != nil {
		fmt.Fprintln(os.Stderr, "demo FAILED:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

// options say which demo.
type options struct {
	vault bool
	file  string // protected instead of the demo's own
	keep  bool
	dir   string // made if empty
	bin   string // programs that are built already; built into ./bin if empty
}

func run(ctx context.Context, out io.Writer, o options) (err error) {
	d := &demo{out: out, options: o}
	defer func() {
		if cerr := d.close(); err == nil {
			err = cerr
		}
	}()
	for _, step := range []func(context.Context) error{d.prepare, d.startVault, d.startDaemon, d.show} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}
