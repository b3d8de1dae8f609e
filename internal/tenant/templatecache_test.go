package tenant

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// ForgetTemplates drops what the tenant keeps of templates, for other tests.
func (t *Tenant) ForgetTemplates() {
	t.templates.mu.Lock()
	defer t.templates.mu.Unlock()
	clear(t.templates.byUID)
	t.templates.grants = 0
}

// compiled is a revision of a template, read by nobody.
func compiled(uid vocab.TemplateUID, revision uint32) *policy.CompiledTemplate {
	return &policy.CompiledTemplate{Template: &policy.Template{UID: uid, Revision: revision}}
}

// However many ask for a revision at once, it is read once, and those who ask
// for another template or revision do not wait for it.
func TestTemplateIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c templates
		uid := vocab.NewTemplateUID()
		for revision, want := range map[uint32]error{1: nil, 2: errors.New("damaged by the test")} {
			var reads atomic.Int32
			finish := make(chan struct{})
			var asking sync.WaitGroup
			for range 64 {
				asking.Go(func() {
					got, err := c.get(uid, revision, func() (*policy.CompiledTemplate, error) {
						reads.Add(1)
						<-finish
						return compiled(uid, revision), want
					})
					if err != want || err == nil && got.Revision != revision { //nolint:errorlint // the very same
						t.Errorf("revision %d: got %v, %v", revision, got, err)
					}
				})
			}
			synctest.Wait()
			other := vocab.NewTemplateUID()
			if got, err := c.get(other, 1, func() (*policy.CompiledTemplate, error) { return compiled(other, 1), nil }); err != nil || got.UID != other {
				t.Errorf("another template: got %v, %v", got, err)
			}
			close(finish)
			asking.Wait()
			if n := reads.Load(); n != 1 {
				t.Errorf("revision %d was read %d times", revision, n)
			}
		}
	})
}

// What could not be read is not kept, and a reader that fails altogether leaves
// nobody waiting.
func TestTemplateThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c templates
		uid := vocab.NewTemplateUID()
		var asking sync.WaitGroup
		fail := make(chan struct{})
		asking.Go(func() {
			defer func() { _ = recover() }()
			_, _ = c.get(uid, 1, func() (*policy.CompiledTemplate, error) {
				<-fail
				panic("a fault of the test")
			})
		})
		synctest.Wait()
		asking.Go(func() {
			if got, err := c.get(uid, 1, nil); got != nil || vocab.ReasonOf(err) != vocab.ReasonInternal {
				t.Errorf("whoever waited got %v, %v", got, err)
			}
		})
		synctest.Wait()
		close(fail)
		asking.Wait()
		if got, err := c.get(uid, 1, func() (*policy.CompiledTemplate, error) { return compiled(uid, 1), nil }); err != nil || got == nil {
			t.Errorf("reading it again gave %v, %v", got, err)
		}
	})
}

// Who looks at an old snapshot gets what was current then, and does not take
// the newer revision from the others.
func TestOldTemplateDoesNotReplaceNewer(t *testing.T) {
	var c templates
	uid := vocab.NewTemplateUID()
	read := func(revision uint32) (reads int) {
		got, err := c.get(uid, revision, func() (*policy.CompiledTemplate, error) {
			reads++
			return compiled(uid, revision), nil
		})
		if err != nil || got.Revision != revision {
			t.Errorf("asked for revision %d, got %v, %v", revision, got, err)
		}
		return reads
	}
	for _, c := range []struct {
		revision uint32
		reads    int
	}{{1, 1}, {1, 0}, {2, 1}, {1, 1}, {2, 0}, {3, 1}, {3, 0}} {
		if n := read(c.revision); n != c.reads {
			t.Errorf("revision %d was read %d times, want %d", c.revision, n, c.reads)
		}
	}
}

// However many grants there are in all, no more are kept than there is room for;
// and what is kept is counted once, whichever revision it is.
func TestTemplatesKeptAreBounded(t *testing.T) {
	grants := make([]policy.Grant, policy.MaxTemplateGrants)
	var c templates
	ask := func(uid vocab.TemplateUID, revision uint32) (reads int) {
		_, _ = c.get(uid, revision, func() (*policy.CompiledTemplate, error) {
			reads++
			big := compiled(uid, revision)
			big.Template.Grants = grants
			return big, nil
		})
		return reads
	}
	fits := maxGrants / len(grants)
	for n := range 2*fits + 1 {
		ask(vocab.NewTemplateUID(), 1)
		if want := n%fits + 1; len(c.byUID) != want || c.grants != want*len(grants) {
			t.Fatalf("after %d templates %d are kept, with %d grants", n+1, len(c.byUID), c.grants)
		}
	}
	uid := vocab.NewTemplateUID()
	for revision := range uint32(2 * fits) {
		ask(uid, revision+1)
	}
	if len(c.byUID) != 2 || ask(uid, uint32(2*fits)) != 0 {
		t.Errorf("after many revisions of one template %d are kept", len(c.byUID))
	}
}
