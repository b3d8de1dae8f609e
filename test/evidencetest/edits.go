package evidencetest

import (
	"bytes"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/evidence"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// ofContent are edits of what a bundle says, which a thief can seal again.
var ofContent = map[string]func(*Forger, *evidence.Content){
	"an attribute is flipped":                   func(_ *Forger, c *evidence.Content) { c.Facts[0].Root.Attributes ^= evidence.Exportable },
	"a version is claimed that was never noted": func(_ *Forger, c *evidence.Content) { c.Facts[0].Root.Latest++ },
	"a version gets another creation time":      func(_ *Forger, c *evidence.Content) { c.Facts[0].Root.Versions[0].Created++ },
	"a request ID is changed": func(_ *Forger, c *evidence.Content) {
		c.Facts[0].Requests = append([]string{"00000000-0000-0000-0000-000000000000"}, c.Facts[0].Requests...)
	},
	"the facts of a key are removed": func(_ *Forger, c *evidence.Content) { c.Facts = c.Facts[1:] },
	"the provenance of a key is changed": func(f *Forger, c *evidence.Content) {
		f.resource(c, record.PrefixKeys, func(s *record.Resource) {
			k, err := record.DecodeTenantKey(s.Body)
			check(f.tb, err)
			k.Versions[0].Provenance = &record.Provenance{Form: "byok", KCV: "C0FFEE", Proven: 1}
			s.Body, err = k.Encode()
			check(f.tb, err)
		})
	},
	"a resource is put back to an earlier state": func(f *Forger, c *evidence.Content) {
		f.resource(c, record.PrefixGenerations, func(s *record.Resource) {
			s.Revision--
			s.LastEvent = f.writers(c, s.Name)[0]
		})
	},
	"a key is removed": func(_ *Forger, c *evidence.Content) {
		i := slices.IndexFunc(c.Resources, func(b []byte) bool { return strings.HasPrefix(parsed(b).Name, record.PrefixKeys) })
		c.Resources = slices.Delete(c.Resources, i, i+1)
	},
	"an approval is removed": func(f *Forger, c *evidence.Content) { f.drop(c, audit.KindOperationApproved) },
	"an event is dropped":    func(f *Forger, c *evidence.Content) { f.drop(c, audit.KindKeySuspended) },
	"an event is doubled":    func(_ *Forger, c *evidence.Content) { c.Events = slices.Insert(c.Events, 1, c.Events[0]) },
	"two events are exchanged": func(_ *Forger, c *evidence.Content) {
		c.Events[1], c.Events[2] = c.Events[2], c.Events[1]
	},
	"an event is changed": func(f *Forger, c *evidence.Content) {
		e := &c.Events[f.find(c, audit.KindKeySuspended)]
		event, err := audit.ParseEvent(e.Leaf)
		check(f.tb, err)
		event.Principal.Name = "somebody.else@contoso.test"
		e.Leaf, err = event.Encode()
		check(f.tb, err)
	},
	"two proofs are exchanged": func(_ *Forger, c *evidence.Content) {
		c.Events[1].Path, c.Events[2].Path = c.Events[2].Path, c.Events[1].Path
	},
	"the event that says it was made is dropped": func(f *Forger, c *evidence.Content) { f.drop(c, audit.KindEvidenceMade) },
	"the proof of consistency is changed":        func(_ *Forger, c *evidence.Content) { c.Consistency.FromRoot[0] ^= 1 },
	"the checkpoint is of another tree": func(f *Forger, c *evidence.Content) {
		lines := bytes.SplitN(c.Checkpoint, []byte("\n"), 4)
		lines[2] = []byte("AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQ=")
		c.Checkpoint = bytes.Join(lines, []byte("\n"))
	},
	"the checkpoint's certificate is another tenant's": func(f *Forger, c *evidence.Content) { c.Certificate = f.foreign },
	"the checkpoint's certificate has expired":         func(f *Forger, c *evidence.Content) { c.Certificate = f.old },
}

// ofFiles are edits of the files, after which nothing can be sealed.
var ofFiles = map[string]func(*Forger, []File) []byte{
	"the manifest names another hash": func(f *Forger, files []File) []byte {
		sum := canon.Hash(files[len(files)-1].Content)
		files[0].Content = bytes.Replace(files[0].Content, sum[:], make([]byte, 32), 1)
		return Join(files)
	},
	"the manifest's signature is changed": func(_ *Forger, files []File) []byte {
		files[0].Content[len(files[0].Content)-1] ^= 1
		return Join(files)
	},
	"the manifest is of other evidence": func(f *Forger, files []File) []byte {
		// Genuine, under the root that is trusted here, but of an edited bundle.
		other := Files(f.tb, f.Thief("a request ID is changed"))
		own := Files(f.tb, f.Thief(""))
		own[0] = other[0]
		return Join(own)
	},
	"the root is another": func(f *Forger, _ []File) []byte { return f.Thief("") },
	"a file is added":     func(_ *Forger, files []File) []byte { return Join(append(files, File{"readme.txt", []byte("x")})) },
	"a file is removed":   func(_ *Forger, files []File) []byte { return Join(files[:len(files)-1]) },
	"two files are exchanged": func(_ *Forger, files []File) []byte {
		files[3], files[4] = files[4], files[3]
		return Join(files)
	},
	"it is truncated": func(f *Forger, _ []File) []byte { return f.genuine[:len(f.genuine)-40] },
}

func parsed(b []byte) *record.Resource {
	s, err := record.ParseResource(b)
	if err != nil {
		panic(err)
	}
	return s
}

// resource edits the first resource of a kind that has more than one revision.
func (f *Forger) resource(c *evidence.Content, prefix string, edit func(*record.Resource)) {
	f.tb.Helper()
	for i, b := range c.Resources {
		if s := parsed(b); strings.HasPrefix(s.Name, prefix) && s.Revision > 1 {
			edit(s)
			var err error
			c.Resources[i], err = s.Encode()
			check(f.tb, err)
			return
		}
	}
	f.tb.Fatalf("no %s has changed", prefix)
}

// writers are the events that wrote a resource.
func (f *Forger) writers(c *evidence.Content, target string) (out []vocab.EventID) {
	for _, e := range c.Events {
		if event, err := audit.ParseEvent(e.Leaf); err == nil && event.Target == target && event.State != [32]byte{} {
			out = append(out, event.ID)
		}
	}
	return out
}

func (f *Forger) find(c *evidence.Content, k audit.Kind) int {
	f.tb.Helper()
	for i, e := range c.Events {
		if event, err := audit.ParseEvent(e.Leaf); err == nil && event.Kind == k && (k != audit.KindEvidenceMade || event.ID == f.head.Event) {
			return i
		}
	}
	f.tb.Fatalf("there is no event %s", k)
	return 0
}

func (f *Forger) drop(c *evidence.Content, k audit.Kind) {
	f.tb.Helper()
	i := f.find(c, k)
	c.Events = slices.Delete(c.Events, i, i+1)
}
