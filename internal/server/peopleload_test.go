package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// underLoad has clients ask all the time while somebody changes things, and
// judges every question that no change overlaps: its answer must be that of the
// last change that had returned before it was asked.
func underLoad(t *testing.T, clients []*rms.Client, changes int, change func(n int), ask func(*rms.Client) vocab.Reason, want func(n int) vocab.Reason) {
	t.Helper()
	var begun, returned atomic.Int64
	judged := make(chan struct{})
	over := make(chan struct{})
	var asking sync.WaitGroup
	for i, c := range clients {
		asking.Go(func() {
			for {
				before := returned.Load()
				got := ask(c)
				if begun.Load() != before {
					continue // a change overlaps it, so either answer is right
				}
				if w := want(int(before)); got != w {
					t.Errorf("connection %d after change %d: %q, want %q", i, before, got, w)
				}
				select {
				case judged <- struct{}{}:
				case <-over:
					return
				}
			}
		})
	}
	for n := range changes {
		for range 2 * len(clients) {
			<-judged
		}
		begun.Add(1)
		change(n + 1)
		returned.Add(1)
	}
	close(over)
	asking.Wait()
}

// inOrder reads the whole log and checks that nothing succeeded for bob while it
// must not, by the changes that stand before it: not even what had begun before
// a change.
func (w *town) inOrder(changes func(*rmsv1.Event) bool, want func(n int) vocab.Reason) {
	w.t.Helper()
	s, err := w.Client("erin").Audit().ExportEvents(w.t.Context(), &rmsv1.ExportEventsRequest{Parent: "tenants/contoso"})
	if err != nil {
		w.t.Fatal(err)
	}
	n, succeeded := 0, 0
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		e := r.GetEvent()
		if changes(e) {
			n++
		}
		if e.GetPrincipal() != "bob@contoso.test" || e.GetOutcome() != "OK" {
			continue
		}
		if succeeded++; want(n) != "" {
			w.t.Errorf("position %d: %s after change %d, which forbids it", r.GetIndex(), e.GetKind(), n)
		}
	}
	if n == 0 || succeeded == 0 {
		w.t.Errorf("the log has %d changes, and %d times bob succeeded", n, succeeded)
	}
}

// ofKind finds changes in the log.
func ofKind(kinds ...string) func(*rmsv1.Event) bool {
	return func(e *rmsv1.Event) bool { return e.GetOutcome() == "OK" && slices.Contains(kinds, e.GetKind()) }
}

// Whatever changes who people are is in force, under load and on every
// connection, for what begins after it returned.
func TestPeopleUnderLoad(t *testing.T) {
	const connections, changes = 8, 12
	odd := func(yes, no vocab.Reason) func(int) vocab.Reason {
		return func(n int) vocab.Reason {
			if n%2 == 1 {
				return yes
			}
			return no
		}
	}
	t.Run("groups", func(t *testing.T) {
		w := newTown(t)
		doc := w.document("group:staff@contoso.test")
		w.group("staff", "group:project@contoso.test")
		underLoad(t, w.connections("bob", connections), changes, func(n int) {
			if n%2 == 1 {
				w.group("project", "user:bob@contoso.test", "user:carla@contoso.test")
			} else {
				w.group("project", "user:carla@contoso.test")
			}
		}, func(c *rms.Client) vocab.Reason { return opens(context.Background(), c, doc) }, odd("", vocab.ReasonNoRights))
		w.inOrder(func(e *rmsv1.Event) bool { return strings.HasPrefix(e.GetDetail(), "groups/project@") }, odd("", vocab.ReasonNoRights))
	})
	t.Run("disabled", func(t *testing.T) {
		w := newTown(t)
		doc := w.document("user:bob@contoso.test")
		underLoad(t, w.connections("bob", connections), changes, func(n int) {
			if n%2 == 1 {
				w.disable("user:bob@contoso.test")
			} else {
				w.enable("user:bob@contoso.test")
			}
		}, func(c *rms.Client) vocab.Reason { return opens(context.Background(), c, doc) }, odd(vocab.ReasonPrincipalDisabled, ""))
		w.inOrder(ofKind("principal-disabled", "principal-enabled"), odd(vocab.ReasonPrincipalDisabled, ""))
	})
	protect := func(c *rms.Client) vocab.Reason {
		_, err := c.Protect(context.Background(), &bytes.Buffer{}, strings.NewReader("a test value"), rms.ProtectOptions{AdHoc: &rmsv1.AdHocPolicy{
			Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{{To: "anyone", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
		}})
		return vocab.ReasonOf(err)
	}
	t.Run("publishers", func(t *testing.T) {
		w := newTown(t)
		w.group("project", "user:carla@contoso.test")
		if _, err := w.Client("alice").Policy().UpdateSettings(t.Context(), &rmsv1.UpdateSettingsRequest{
			Settings:   &rmsv1.Settings{Name: "tenants/contoso/settings", Etag: "*", Publishers: []string{"group:project@contoso.test"}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"publishers"}},
		}); err != nil {
			t.Fatal(err)
		}
		underLoad(t, w.connections("bob", connections), changes, func(n int) {
			w.group("project", []string{"user:carla@contoso.test", "user:bob@contoso.test"}[n%2])
		}, protect, odd("", vocab.ReasonNotAPublisher))
		made := false // the first event made the group
		w.inOrder(func(e *rmsv1.Event) bool {
			of := e.GetKind() == "group-changed"
			was := made
			made = made || of
			return of && was
		}, odd("", vocab.ReasonNotAPublisher))
	})
	t.Run("disabled while they write", func(t *testing.T) {
		w := newTown(t)
		underLoad(t, w.connections("bob", connections), changes, func(n int) {
			if n%2 == 1 {
				w.disable("user:bob@contoso.test")
			} else {
				w.enable("user:bob@contoso.test")
			}
		}, protect, odd(vocab.ReasonPrincipalDisabled, ""))
		w.inOrder(ofKind("principal-disabled", "principal-enabled"), odd(vocab.ReasonPrincipalDisabled, ""))
	})
	t.Run("roles", func(t *testing.T) {
		w := newTown(t)
		const role, bob = "tenants/contoso/roles/policy-admin", "user:bob@contoso.test"
		people := w.Client("alice").People()
		underLoad(t, w.connections("bob", connections), changes, func(n int) {
			var err error
			if n%2 == 1 {
				_, err = people.GrantRole(context.Background(), &rmsv1.GrantRoleRequest{Name: role, Principal: bob})
			} else {
				_, err = people.RevokeRole(context.Background(), &rmsv1.RevokeRoleRequest{Name: role, Principal: bob})
			}
			if err != nil {
				t.Error(err)
			}
		}, func(c *rms.Client) vocab.Reason {
			_, err := c.Policy().ListTemplates(context.Background(), &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso"})
			return vocab.ReasonOf(err)
		}, odd("", vocab.ReasonRoleRequired))
		w.inOrder(ofKind("role-changed"), odd("", vocab.ReasonRoleRequired))
	})
}
