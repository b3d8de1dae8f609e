package evidence

import (
	"archive/zip"
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

func must[T any](tb testing.TB) func(T, error) T {
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

// sealer signs manifests of files that need not make sense.
type sealer struct {
	tb  testing.TB
	key *keys.Signing
}

var (
	someTenant = vocab.TenantID{1}
	someTime   = time.UnixMilli(1_795_338_843_412).UTC()
)

func newSealer(tb testing.TB) *sealer {
	root := license.DaemonKeyFromSeed(vocab.SecretFrom(bytes.Repeat([]byte{7}, 32)))
	return &sealer{tb, must[*keys.Signing](tb)(keys.Certify(tb.Context(), root, license.Certificate{
		Tenant: someTenant, Usage: license.UsageEvidence, NotBefore: someTime, NotAfter: someTime.Add(time.Hour),
	}))}
}

// manifest names files.
func (s *sealer) manifest(files []file) file {
	s.tb.Helper()
	e := license.Evidence{Tenant: someTenant, IssuedAt: someTime, Event: vocab.EventID{1}}
	for _, f := range files {
		e.Files = append(e.Files, license.EvidenceFile{Name: f.name, Size: uint64(len(f.content)), Hash: canon.Hash(f.content)})
	}
	return file{fileManifest, must[*license.Evidence](s.tb)(license.SignEvidence(s.tb.Context(), s.key.Signer, s.key.Certificate, e)).Raw()}
}

func (s *sealer) bundle(files []file) []byte {
	return archive(append([]file{s.manifest(files)}, files...))
}

func someContent() *Content {
	return &Content{
		Trust: []byte("trust"), Certificate: []byte("certificate"), Checkpoint: []byte("checkpoint"),
		Transitions: [][]byte{[]byte("transition")},
		Consistency: &Consistency{From: 1, FromRoot: [32]byte{1}, Path: [][32]byte{{2}}},
		Events:      []Event{{Index: 1, Leaf: []byte("leaf"), Path: [][32]byte{{3}, {4}}}, {Index: 2, Leaf: []byte("leaf")}},
		Resources:   [][]byte{[]byte("one"), {}},
		Facts: []Facts{{
			Key: "root", ID: vocab.CustodianID{1}, Kind: "vault", Cluster: "c", ReadAt: 5, Requests: []string{"r"},
			Root: &KeyFacts{Name: "root", Type: "aes256-gcm96", Attributes: Derived, Latest: 1, Versions: []Version{{Number: 1, Created: 4}}},
			Sign: &KeyFacts{Name: "sign", Type: "ed25519", Latest: 1, Versions: []Version{{Number: 1, PublicKey: make([]byte, 32)}}},
		}, {Key: "two", ID: vocab.CustodianID{2}, Kind: "embedded", Fault: "CUSTODIAN_REFUSED", FaultText: "no"}},
	}
}

// seeds are a bundle, and signed ones that break a rule.
func seeds(tb testing.TB) (out [][]byte) {
	s := newSealer(tb)
	whole := must[[]file](tb)(someContent().files())
	with := func(name string, content []byte) []byte {
		files := slices.Clone(whole)
		for i := range files {
			if files[i].name == name {
				files[i].content = content
			}
		}
		return s.bundle(files)
	}
	good := s.bundle(whole)
	bare := someContent()
	bare.Consistency = nil
	out = append(out, good, s.bundle(must[[]file](tb)(bare.files())), good[:len(good)-1], append(bytes.Clone(good), 0), []byte("PK\x03\x04"), nil)

	out = append(out, archive(nil), archive(whole), archive([]file{s.manifest(whole)}), s.bundle(whole[1:]))
	out = append(out, archive(append([]file{{fileManifest, []byte("no manifest")}}, whole...)))
	out = append(out, archive(append([]file{s.manifest(whole[1:])}, whole...)), archive(append([]file{s.manifest(whole)}, append(whole, file{"more", nil})...)))
	out = append(out, archive(slices.Repeat(whole, 4)), archive([]file{{string(bytes.Repeat([]byte("n"), 65)), nil}}))

	path := slices.Repeat([][32]byte{{1}}, maxPath+1)
	long := must[[]byte](tb)(items([]Event{{Index: 1, Leaf: []byte("x"), Path: path}}))
	out = append(out,
		with(fileConsistency, nil), with(fileConsistency, frames([][]byte{{0xa0}})),
		with(fileConsistency, must[[]byte](tb)(items([]Consistency{{From: 1, Path: path}}))),
		with(fileConsistency, must[[]byte](tb)(items([]Consistency{{From: 1}, {From: 2}}))),
		with(fileTransitions, []byte{1}), with(fileEvents, []byte{0}), with(fileEvents, []byte{0, 0, 0, 9, 1}), with(fileEvents, long), with(fileEvents, frames([][]byte{{0xff}})),
		with(fileEvents, must[[]byte](tb)(items([]Event{{Index: 1, Leaf: make([]byte, 40<<10)}}))),
		with(fileResources, []byte{1, 2, 3}), with(fileFacts, frames([][]byte{{0xa0}})),
		with(fileFacts, frames(slices.Repeat([][]byte{{}}, maxKeys+1))),
	)
	// What the standard library writes has other headers, and is refused.
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range append([]file{s.manifest(whole)}, whole...) {
		_, err := must[interface{ Write([]byte) (int, error) }](tb)(z.Create(f.name)).Write(f.content)
		must[int](tb)(0, err)
	}
	must[int](tb)(0, z.Close())
	return append(out, b.Bytes())
}

// Whatever is read is the one form of what it says.
func FuzzRead(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	root := license.KeyID{1}
	f.Fuzz(func(t *testing.T, b []byte) {
		bundle, err := Read(b)
		if _, verifyErr := Verify(b, []license.KeyID{root}, nil); verifyErr == nil {
			t.Fatal("it is signed by nobody")
		}
		if err != nil {
			if vocab.ReasonOf(err) != vocab.ReasonLogDamaged {
				t.Fatal(err)
			}
			return
		}
		files, err := bundle.files()
		if err != nil || !bytes.Equal(archive(append([]file{{fileManifest, bundle.Manifest}}, files...)), b) {
			t.Fatalf("written again it is another bundle (%v)", err)
		}
	})
}

func TestReadRefuses(t *testing.T) {
	for i, b := range seeds(t) {
		if _, err := Read(b); (err == nil) != (i < 2) {
			t.Errorf("seed %d: %v", i, err)
		}
	}
	if _, err := Read(make([]byte, MaxSize+1)); err == nil {
		t.Error("a bundle of any size is read")
	}
}

// What custodians say is made fit to be written down.
func TestFactsOfOddCustodians(t *testing.T) {
	f := FactsOf("root", &record.TenantKey{ID: vocab.CustodianID{1}, Kind: "vault"}, "https://vault\x00.test", &keys.Facts{
		Version: "1.21\n\xff" + string(bytes.Repeat([]byte("e\u0301"), 2000)), RequestIDs: []string{"a\tb"},
		Root: keys.KeyFacts{AutoRotate: -1, Exportable: true},
	}, vocab.Errorf(vocab.ReasonCustodianRefused, "no\r"))
	if _, err := canon.Marshal(f); err != nil {
		t.Errorf("%v: %+v", err, f)
	}
	if f.Root.Attributes != Exportable || f.Requests[0] != "a\ufffdb" || len(f.Version) > 1024 || f.Fault != "CUSTODIAN_REFUSED" {
		t.Errorf("%+v", f)
	}
}
