// Package evidencetest edits bundles of evidence as a forger would, and seals
// them again as somebody would who stole every key of the daemon's.
package evidencetest

import (
	"archive/zip"
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/evidence"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
)

// Row is an edit of a genuine bundle.
type Row struct {
	Edit string
	// Plain is what the verifier says of the edited file, Thief what it says if
	// the thief sealed it again: empty if nothing can be seen then, and missing
	// where sealing undoes the edit.
	Plain string
	Thief *string
}

//go:embed testdata/edits.json
var edits []byte

// Rows returns the table of edits; each has its function, and each function its
// row.
func Rows(tb testing.TB) (rows []Row) {
	tb.Helper()
	check(tb, json.Unmarshal(edits, &rows))
	seen := map[string]bool{}
	for _, r := range rows {
		if ofContent[r.Edit] == nil && ofFiles[r.Edit] == nil || seen[r.Edit] {
			tb.Fatalf("there is no edit %q, or it stands there twice", r.Edit)
		}
		seen[r.Edit] = true
	}
	if len(seen) != len(ofContent)+len(ofFiles) {
		tb.Fatalf("%d rows for %d edits", len(seen), len(ofContent)+len(ofFiles))
	}
	return rows
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// File is a file of a bundle.
type File struct {
	Name    string
	Content []byte
}

// Files reads a zip file with the standard library.
func Files(tb testing.TB, b []byte) (out []File) {
	tb.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	check(tb, err)
	for _, f := range z.File {
		r, err := f.Open()
		check(tb, err)
		content, err := io.ReadAll(r)
		check(tb, err)
		out = append(out, File{f.Name, content})
	}
	return out
}

// Join writes a zip file as docs/formats.md says.
func Join(files []File) []byte {
	le := binary.LittleEndian
	var out, central bytes.Buffer
	for _, f := range files {
		head := make([]byte, 26)
		head[0] = 20
		le.PutUint16(head[8:], 0x21)
		le.PutUint32(head[10:], crc32.ChecksumIEEE(f.Content))
		le.PutUint32(head[14:], uint32(len(f.Content)))
		le.PutUint32(head[18:], uint32(len(f.Content)))
		le.PutUint16(head[22:], uint16(len(f.Name)))
		central.WriteString("PK\x01\x02\x14\x00")
		central.Write(head)
		central.Write(make([]byte, 10))
		central.Write(le.AppendUint32(nil, uint32(out.Len())))
		central.WriteString(f.Name)
		out.WriteString("PK\x03\x04")
		out.Write(head)
		out.WriteString(f.Name)
		out.Write(f.Content)
	}
	end := le.AppendUint32(le.AppendUint32(nil, uint32(central.Len())), uint32(out.Len()))
	out.Write(central.Bytes())
	out.WriteString("PK\x05\x06\x00\x00\x00\x00")
	out.Write(le.AppendUint16(le.AppendUint16(nil, uint16(len(files))), uint16(len(files))))
	out.Write(append(end, 0, 0))
	return out.Bytes()
}

// Forger has a genuine bundle, and every key that a daemon of the tenant has in
// memory: it stands for a tenant whose root is its own, which the root of the
// genuine bundle came before.
type Forger struct {
	tb      testing.TB
	genuine []byte
	bundle  *evidence.Bundle
	head    *license.Evidence
	now     time.Time

	root, log    *license.DaemonKey
	trust        []byte
	certificate  []byte // of log
	old, foreign []byte // of log before its time; of another tenant's
	note         []byte
	seal         *keys.Signing
}

// New makes a forger of a bundle that holds.
func New(tb testing.TB, genuine []byte) *Forger {
	tb.Helper()
	f := &Forger{tb: tb, genuine: genuine}
	var err error
	f.bundle, err = evidence.Read(genuine)
	check(tb, err)
	f.head, err = license.ParseEvidence(f.bundle.Manifest)
	check(tb, err)
	f.now = f.head.IssuedAt
	f.root, err = license.NewDaemonKey()
	check(tb, err)
	f.log, err = license.NewDaemonKey()
	check(tb, err)

	was, err := license.ParseBundle(f.bundle.Trust)
	check(tb, err)
	next := *was
	next.Roots = []license.Root{{Key: f.root.PublicKey(), Version: 99, State: license.RootCurrent}}
	for _, r := range was.Roots {
		next.Roots = append(next.Roots, license.Root{Key: r.Key, Version: r.Version, State: license.RootPrevious})
	}
	signed, err := license.SignBundle(f.ctx(), next, f.root)
	check(tb, err)
	f.trust = signed.Raw()
	f.seal, err = keys.Certify(f.ctx(), f.root, license.Certificate{
		Tenant: was.Tenant, Usage: license.UsageEvidence, NotBefore: f.now, NotAfter: f.now.Add(time.Hour),
	})
	check(tb, err)

	c, err := audit.ReadCheckpoint(f.bundle.Checkpoint, was.Tenant)
	check(tb, err)
	f.certificate = f.certify(f.root, c.Time)
	f.old = f.certify(f.root, c.Time.Add(-48*time.Hour))
	stranger, err := license.NewDaemonKey()
	check(tb, err)
	other, err := keys.Certify(f.ctx(), stranger, license.Certificate{
		Tenant: was.Tenant, Usage: license.UsageCheckpoint, NotBefore: c.Time, NotAfter: c.Time.Add(time.Hour),
	})
	check(tb, err)
	f.foreign = other.Certificate.Raw()
	f.note, err = c.Sign(f.ctx(), f.log)
	check(tb, err)
	return f
}

func (f *Forger) ctx() context.Context { return f.tb.Context() }

// certify has a root certify the key of checkpoints from a time on.
func (f *Forger) certify(root license.Signer, from time.Time) []byte {
	f.tb.Helper()
	cert, err := license.IssueCertificate(f.ctx(), root, license.Certificate{
		Tenant: f.head.Tenant, IssuedAt: from, Subject: f.log.PublicKey(), Usage: license.UsageCheckpoint,
		NotBefore: from, NotAfter: from.Add(time.Hour),
	})
	check(f.tb, err)
	return cert.Raw()
}

// Root is the root under which what the thief seals holds, if nothing was edited.
func (f *Forger) Root() license.KeyID { return license.KeyIDOf(f.root.PublicKey()) }

// Thief seals the content anew with an edit; an empty one edits nothing.
func (f *Forger) Thief(edit string) []byte {
	f.tb.Helper()
	c := f.content()
	c.Trust, c.Transitions, c.Certificate, c.Checkpoint = f.trust, nil, f.certificate, f.note
	if edit != "" {
		ofContent[edit](f, c)
	}
	b, err := evidence.Seal(f.ctx(), f.seal.Signer, f.seal.Certificate, license.Evidence{
		Tenant: f.head.Tenant, IssuedAt: f.now, Event: f.head.Event, Since: f.head.Since, Key: f.head.Key,
	}, c)
	check(f.tb, err)
	return b
}

// Plain edits a bundle and seals nothing. It is the genuine one, or where the edit
// needs two that are sealed, one of the thief's, whose root is then returned.
func (f *Forger) Plain(edit string) (b []byte, root license.KeyID) {
	f.tb.Helper()
	files := Files(f.tb, f.genuine)
	if edit == "the manifest is of other evidence" {
		root = f.Root()
	}
	if fn := ofFiles[edit]; fn != nil {
		return fn(f, files), root
	}
	c := f.content()
	ofContent[edit](f, c)
	b, err := evidence.Seal(f.ctx(), f.seal.Signer, f.seal.Certificate, license.Evidence{
		Tenant: f.head.Tenant, IssuedAt: f.now, Event: f.head.Event,
	}, c)
	check(f.tb, err)
	changed := Files(f.tb, b)
	changed[0] = files[0] // the genuine manifest
	return Join(changed), root
}

// content is a copy of the genuine content that can be edited.
func (f *Forger) content() *evidence.Content {
	f.tb.Helper()
	b, err := evidence.Read(bytes.Clone(f.genuine))
	check(f.tb, err)
	return &b.Content
}
