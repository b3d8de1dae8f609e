// Package evidence is the bundle that proves the life of a tenant's keys to
// somebody who has nothing but the tenant's root key ID: what the custodians say
// of the keys, what was registered, and every event about them with the proof
// that it is in the tenant's log. docs/formats.md §17 is its format. Nothing in
// it is secret, and nothing of any document is in it.
package evidence

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Limits of a bundle.
const (
	// MaxSize is that of the whole, in bytes.
	MaxSize = 128 << 20
	// MaxEvents is how many events one can hold.
	MaxEvents = 100_000
	// MaxResources is how many resources one can hold.
	MaxResources = 20_000
	// MaxTransitions is how many changes of root one leads along.
	MaxTransitions = 64
	maxKeys        = 64
	maxPath        = 64 // hashes of a proof
)

// The files of a bundle, in their order.
const (
	fileManifest    = "evidence.cose"
	fileTrust       = "trust-bundle.cose"
	fileTransitions = "transitions.bin"
	fileCertificate = "checkpoint-certificate.cose"
	fileCheckpoint  = "checkpoint.txt"
	fileConsistency = "consistency.bin" // only if an earlier checkpoint was named
	fileEvents      = "events.bin"
	fileResources   = "resources.bin"
	fileFacts       = "facts.bin"
)

// Content is what a bundle says, beside its manifest.
type Content struct {
	// Trust is the tenant's trust bundle, Certificate that of the key which
	// signed Checkpoint, a signed note. All as they were signed.
	Trust, Certificate, Checkpoint []byte
	// Transitions are the trust bundles with which the tenant changed its root,
	// oldest first, so that whoever knows an earlier root finds the way.
	Transitions [][]byte
	// Consistency proves that the log of the checkpoint continues an earlier
	// one; nil if none was named.
	Consistency *Consistency
	// Events are in the order of the log.
	Events []Event
	// Resources are as they are stored, sorted by name. Their hashes are in the
	// events that wrote them.
	Resources [][]byte
	// Facts are sorted by the name of the key.
	Facts []Facts
}

// Event is a leaf of the log and the path from it to the checkpoint's root.
type Event struct {
	Index uint64     `cbor:"1,keyasint"`
	Leaf  []byte     `cbor:"2,keyasint"`
	Path  [][32]byte `cbor:"3,keyasint,omitempty"`
}

// Consistency is the proof between two checkpoints (RFC 6962 §2.1.2).
type Consistency struct {
	From     uint64     `cbor:"1,keyasint"`
	FromRoot [32]byte   `cbor:"2,keyasint"`
	Path     [][32]byte `cbor:"3,keyasint,omitempty"`
}

// Bundle is a bundle that was read, and not yet verified.
type Bundle struct {
	// Manifest is the signed manifest, Files what it names.
	Manifest []byte
	Content

	manifest *license.Evidence
}

// Seal makes a bundle: files and a manifest signed by a certified key, as the
// bytes of a zip file. Files of head are filled in.
func Seal(ctx context.Context, signer license.Signer, cert *license.Certificate, head license.Evidence, c *Content) ([]byte, error) {
	files, err := c.files()
	if err != nil {
		return nil, err
	}
	head.Files = nil
	for _, f := range files {
		head.Files = append(head.Files, license.EvidenceFile{Name: f.name, Size: uint64(len(f.content)), Hash: canon.Hash(f.content)})
	}
	m, err := license.SignEvidence(ctx, signer, cert, head)
	if err != nil {
		return nil, err
	}
	out := archive(append([]file{{fileManifest, m.Raw()}}, files...))
	if len(out) > MaxSize {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the evidence would be larger than %d bytes", MaxSize).
			WithNext("Ask for less of it: --since, or --key")
	}
	return out, nil
}

type file struct {
	name    string
	content []byte
}

// files encodes what a manifest names.
func (c *Content) files() ([]file, error) {
	out := []file{{fileTrust, c.Trust}, {fileTransitions, frames(c.Transitions)}, {fileCertificate, c.Certificate}, {fileCheckpoint, c.Checkpoint}}
	if c.Consistency != nil {
		b, err := items([]*Consistency{c.Consistency})
		if err != nil {
			return nil, err
		}
		out = append(out, file{fileConsistency, b})
	}
	events, err := items(c.Events)
	if err != nil {
		return nil, err
	}
	facts, err := items(c.Facts)
	if err != nil {
		return nil, err
	}
	return append(out, file{fileEvents, events}, file{fileResources, frames(c.Resources)}, file{fileFacts, facts}), nil
}

// items is a file of encoded values, each behind its length.
func items[T any](list []T) ([]byte, error) {
	var all [][]byte
	for _, v := range list {
		b, err := canon.Marshal(v)
		if err != nil {
			return nil, vocab.Errorf(vocab.ReasonInternal, "evidence cannot be encoded").Because(err)
		}
		all = append(all, b)
	}
	return frames(all), nil
}

func frames(list [][]byte) (out []byte) {
	for _, b := range list {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...)
	}
	return out
}

// Read takes a bundle apart. It accepts exactly what [Seal] makes, verifies no
// signature, and looks at no hash.
func Read(b []byte) (*Bundle, error) {
	if len(b) > MaxSize {
		return nil, bad("it is larger than %d bytes", MaxSize)
	}
	files, err := unarchive(b)
	if err != nil {
		return nil, err
	}
	if files[0].name != fileManifest {
		return nil, bad("its first file is not %s", fileManifest)
	}
	out := &Bundle{Manifest: files[0].content}
	if out.manifest, err = license.ParseEvidence(out.Manifest); err != nil {
		return nil, bad("its manifest cannot be read: %s", why(err)).Because(err)
	}
	if err := sameFiles(out.manifest.Files, files[1:]); err != nil {
		return nil, err
	}
	byName := map[string][]byte{}
	for _, f := range files[1:] {
		byName[f.name] = f.content
	}
	out.Trust, out.Certificate, out.Checkpoint = byName[fileTrust], byName[fileCertificate], byName[fileCheckpoint]
	if out.Transitions, err = unframe(fileTransitions, byName[fileTransitions], MaxTransitions); err != nil {
		return nil, err
	}
	if p, ok := byName[fileConsistency]; ok {
		list, err := parseItems[Consistency](fileConsistency, p, 1)
		if err != nil {
			return nil, err
		}
		if len(list) != 1 || len(list[0].Path) > maxPath {
			return nil, bad("%s is not one proof", fileConsistency)
		}
		out.Consistency = &list[0]
	}
	if out.Events, err = parseItems[Event](fileEvents, byName[fileEvents], MaxEvents); err != nil {
		return nil, err
	}
	for _, e := range out.Events {
		if len(e.Leaf) > audit.MaxLeaf || len(e.Path) > maxPath {
			return nil, bad("%s: an event is larger than any can be", fileEvents)
		}
	}
	if out.Resources, err = unframe(fileResources, byName[fileResources], MaxResources); err != nil {
		return nil, err
	}
	out.Facts, err = parseItems[Facts](fileFacts, byName[fileFacts], maxKeys)
	return out, err
}

// sameFiles compares what a manifest names with what is there: the files this
// version knows, in their order.
func sameFiles(named []license.EvidenceFile, there []file) error {
	known := []string{fileTrust, fileTransitions, fileCertificate, fileCheckpoint, fileConsistency, fileEvents, fileResources, fileFacts}
	if len(there) == len(known)-1 {
		known = slices.DeleteFunc(known, func(s string) bool { return s == fileConsistency })
	}
	for i := range max(len(known), len(named), len(there)) {
		switch {
		case i >= len(there) || i >= len(known) || there[i].name != known[i]:
			return bad("its files are not those that evidence has: one was added or removed")
		case i >= len(named) || named[i].Name != there[i].name:
			return bad("its files are not those that its manifest names: one was added or removed")
		}
	}
	return nil
}

func parseItems[T any](name string, b []byte, limit int) ([]T, error) {
	list, err := unframe(name, b, limit)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(list))
	for i, item := range list {
		if err := canon.Unmarshal(item, &out[i]); err != nil {
			return nil, bad("%s: item %d cannot be read", name, i).Because(err)
		}
	}
	return out, nil
}

func unframe(name string, b []byte, limit int) (out [][]byte, err error) {
	for len(b) > 0 {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return nil, bad("%s is truncated", name)
		}
		if len(out) == limit {
			return nil, bad("%s has more than %d items", name, limit)
		}
		n := binary.BigEndian.Uint32(b)
		out, b = append(out, b[4:4+n:4+n]), b[4+n:]
	}
	return out, nil
}

// why is an error's own sentence, where it has one.
func why(err error) string {
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

// bad is the error of evidence that is not what it should be.
func bad(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonLogDamaged, "the evidence does not hold: %s", fmt.Sprintf(format, args...)).
		WithNext("Do not rely on it; ask for it anew, and ask whoever gave it to you")
}

// sameBytes reports whether a bundle is what making it again would give.
func sameBytes(b []byte, files []file) bool { return bytes.Equal(b, archive(files)) }

// Tenant is whose evidence the manifest says that it is.
func (b *Bundle) Tenant() vocab.TenantID { return b.manifest.Tenant }
