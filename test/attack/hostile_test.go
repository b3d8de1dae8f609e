package attack

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// TestHostileDocument hands people documents that point elsewhere: to a server
// that would like their token, to a name whose lookup tells that the document
// was opened, to another organisation. The client dials its own server and
// nothing else.
func TestHostileDocument(t *testing.T) {
	s := newSite(t, nil)
	view := rmsv1.Right_RIGHT_VIEW
	content := []byte("TEST content of a hostile document")
	file, _ := s.protect(t, "mallory", content, rms.ProtectOptions{}, grant("user:bob@contoso.test", view))
	doc := licenseIn(t, file)
	contacted := listener(t)
	lookups := countLookups(t)
	stolen := s.stolen(t, contoso, license.UsagePL)
	hints := func(t *testing.T, h header) {
		h.Set(t, fieldServiceHint, "https://"+contacted.address+"/rms")
		h.Set(t, fieldContactHint, "http://collector.attacker.test/"+doc.content.String())
		h.Set(t, fieldDescriptor, `\\attacker.test\share\icon.ico <img src="`+contacted.url+`">`)
	}
	replaced := func(t *testing.T, raw []byte) []byte {
		t.Helper()
		f := &memoryFile{b: bytes.Clone(file)}
		must(t, container.ReplaceLicense(f, raw, func(container.Prefix, []byte) error { return nil }))
		return f.b
	}

	t.Run("well signed hints, all pointing elsewhere: the document opens at home", func(t *testing.T) {
		hostile := replaced(t, stolen.forgePL(t, doc, func(h header, _ *[]byte) { hints(t, h) }))
		got, _, err := read(t.Context(), s.honest(t, "bob", s.daemon.Addr(), nil), hostile)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%v", err)
		}
	})
	for name, raw := range map[string]func(t *testing.T) []byte{
		"hints under a foreign root": func(t *testing.T) []byte {
			return certify(t, ownRoot(t), s.trust[contoso].TenantID, license.UsagePL).forgePL(t, doc, func(h header, _ *[]byte) { hints(t, h) })
		},
		"hints nobody signed": func(t *testing.T) []byte {
			return (&forger{Signer: ownRoot(t), cert: stolen.cert}).forgePL(t, doc, func(h header, _ *[]byte) { hints(t, h) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, address := s.inBetween(t)
			var asked atomic.Int64
			b.request = func(*rmsv1.AcquireRequest) { asked.Add(1) }
			got, d, err := read(t.Context(), s.honest(t, "bob", address, nil), replaced(t, raw(t)))
			if err == nil && (!d.LicenseDamaged || !bytes.Equal(got, content)) {
				t.Fatalf("opened without a word: %v", d)
			}
			if err != nil && len(got) > 0 {
				t.Fatalf("%d bytes came out of a forged document", len(got))
			}
			if r := vocab.ReasonOf(err); err != nil && r != vocab.ReasonTrustRootMismatch && r != vocab.ReasonLicenseSignature {
				t.Fatalf("%v", err)
			}
		})
	}
	t.Run("another organisation's document: no call is made, anywhere", func(t *testing.T) {
		b, address := s.inBetween(t)
		var asked atomic.Int64
		b.request = func(*rmsv1.AcquireRequest) { asked.Add(1) }
		bob := s.honest(t, "bob", address, nil)
		foreign := bytes.Clone(file)
		id := vocab.NewTenantID()
		copy(foreign[16:32], id[:])
		if got, _, err := read(t.Context(), bob, foreign); err == nil || len(got) > 0 {
			t.Fatalf("a foreign document opened: %v", err)
		}
		if asked.Load() != 0 {
			t.Fatal("the client's token went out for a document of an organisation it does not know")
		}
	})
	t.Run("looking into it offline", func(t *testing.T) {
		hostile := replaced(t, stolen.forgePL(t, doc, func(h header, _ *[]byte) { hints(t, h) }))
		if _, err := rms.Inspect(bytes.NewReader(hostile), int64(len(hostile)), nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the daemon, shown the same", func(t *testing.T) {
		bob := s.person("bob")
		raw := stolen.forgePL(t, doc, func(h header, _ *[]byte) { hints(t, h) })
		_, err := bob.acquire(raw)
		must(t, err)
	})

	if n := contacted.count.Load(); n != 0 {
		t.Errorf("%d connections were made to where documents pointed", n)
	}
	if names := lookups(); names != 0 {
		t.Errorf("%d names were looked up", names)
	}
}

// countLookups makes every lookup of a name in this process fail and counts
// them. Addresses need none.
func countLookups(t *testing.T) func() int64 {
	t.Helper()
	var n atomic.Int64
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		n.Add(1)
		return nil, errors.New("no lookups in this test")
	}}
	t.Cleanup(func() { net.DefaultResolver = old })
	if _, err := net.LookupHost("control.attacker.test"); err == nil || n.Load() == 0 {
		t.Fatal("lookups are not seen, so that none proves nothing")
	}
	n.Store(0)
	return n.Load
}

// memoryFile is a file in memory.
type memoryFile struct{ b []byte }

func (f *memoryFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}
func (f *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	return copy(f.b[off:], p), nil
}
func (f *memoryFile) Sync() error { return nil }
