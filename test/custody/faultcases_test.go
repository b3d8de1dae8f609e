package custody_test

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
	"github.com/openrms/rms/test/storeedit"
)

// faults are the cases by the names of the rows.
var faults = map[string]fault{
	"sealed": {
		own: true, asked: 1,
		do:   func(w *world) { w.must(w.vault.Seal(w.Context())) },
		undo: func(w *world) { w.must(w.vault.Unseal(w.Context())) },
	},
	"stopped": {
		own: true, asked: 1,
		do:   func(w *world) { w.vault.Kill() },
		undo: func(w *world) { w.must(w.vault.Again(w.Context())) },
	},
	"slow-beyond-timeout": {
		asked: 1,
		do:    func(w *world) { w.proxy.Set(vaulttest.Fault{Delay: time.Hour}) },
		undo:  healed,
	},
	"slow-within-timeout": {
		asked: 1,
		do:    func(w *world) { w.proxy.Set(vaulttest.Fault{Delay: 500 * time.Millisecond}) },
		undo:  healed,
	},
	"starts-while-away": {
		own: true,
		do:  func(w *world) { w.restart(func() { w.vault.Kill() }) },
		during: func(w *world) {
			conn, signed := w.alice.Conn()
			licenses := rmsv1.NewLicenseServiceClient(conn)
			page, err := licenses.ListLicenses(w.Context(), &rmsv1.ListLicensesRequest{Parent: w.site.Parent()}, signed)
			if err != nil || len(page.GetLicenses()) != len(w.strict)+len(w.cached) {
				w.Errorf("licenses while Vault is away: %d, %v", len(page.GetLicenses()), err)
			}
		},
		undo: func(w *world) { w.must(w.vault.Again(w.Context())) },
	},
	"refused": {
		asked: 2, // and once after the daemon signed in anew
		do: func(w *world) {
			w.ageLogin()
			w.must(w.tenant.SetPolicy(w.Context(), ""))
		},
		undo: func(w *world) { w.must(w.tenant.SetPolicy(w.Context(), vaultpolicy.Daemon(w.tenant.Mount, "root"))) },
	},
	"token-revoked": {
		asked: 2,
		do: func(w *world) {
			w.ageLogin()
			w.must(w.tenant.RevokeTokens(w.Context()))
		},
	},
	"secret-id-destroyed": {
		asked: 1,
		do: func(w *world) {
			w.ageLogin()
			w.must(w.tenant.RevokeTokens(w.Context()))
			w.must(w.tenant.DestroySecretIDs(w.Context()))
		},
		undo: func(w *world) { w.must(w.tenant.Deliver(w.Context())) },
	},
	"root-rotated": {
		asked: 1,
		do: func(w *world) {
			w.must(w.tenant.Rotate(w.Context(), "root"))
			w.look()
			w.await("the rotation is an event", lookWithin, func() bool { return len(w.events("key-rotated")) == 1 })
		},
		during: func(w *world) {
			d := w.newStrict()
			for _, e := range w.events("published") {
				if e.GetLicense() == w.site.Parent()+"/licenses/"+d.Content.String() && e.GetKeyVersion() != 2 {
					w.Errorf("a new strict document is under version %d of the key", e.GetKeyVersion())
				}
			}
		},
	},
	"sign-rotated": {
		asked: 1,
		do: func(w *world) {
			w.must(w.tenant.Rotate(w.Context(), "sign"))
			w.look()
			w.await("a second bundle", lookWithin, func() bool { return len(w.events("bundle-published")) == 2 })
		},
	},
	"withdrawn": {
		asked: 1,
		do: func(w *world) {
			w.must(w.tenant.Rotate(w.Context(), "root"))
			w.newStrict()
			w.must(w.tenant.Configure(w.Context(), "root", map[string]any{"min_decryption_version": 2}))
		},
		undo: func(w *world) {
			w.must(w.tenant.Configure(w.Context(), "root", map[string]any{"min_decryption_version": 1}))
		},
	},
	"trimmed": {
		asked: 1,
		do: func(w *world) {
			w.must(w.tenant.Rotate(w.Context(), "root"))
			w.newStrict()
			w.must(w.tenant.Configure(w.Context(), "root", map[string]any{"min_decryption_version": 2, "min_encryption_version": 2}))
			w.must(w.vault.Request(w.Context(), http.MethodPost, w.tenant.Mount+"/keys/root/trim", map[string]any{"min_available_version": 2}, nil))
			w.loses(vocab.ReasonKeyState)
		},
	},
	"key-deleted": {
		asked: 1,
		do:    func(w *world) { w.must(w.tenant.DeleteKey(w.Context(), "root")) },
		during: func(w *world) {
			w.must(w.tenant.CreateKey(w.Context(), "root", map[string]any{"type": "aes256-gcm96", "derived": true}))
			w.newStrict()
			w.loses(vocab.ReasonCustodyIntegrity)
			for d, reason := range w.lost { // an answer of Vault's stands for half a second
				w.await("a lost document is damage", lookWithin, func() bool { return w.open(d).Reason == reason })
			}
		},
	},
	"restored-older": {
		own: true, snapshot: true,
		do: func(w *world) {
			w.must(w.tenant.Rotate(w.Context(), "root"))
			newest := w.newStrict()
			w.spared, w.strict = nil, append(w.strict, newest)
			w.look()
			w.await("the rotation is an event", lookWithin, func() bool { return len(w.events("key-rotated")) == 1 })
			older := w.before
			newer, err := w.vault.Snapshot(w.Context())
			w.must(err)
			w.must(w.vault.Restore(w.Context(), older))
			w.before = newer
			w.meets("opening a document of the version that is missing", vocab.ReasonCustodianChanged, byLook,
				func() *rmsdtest.Reply { return w.open(newest) })
		},
		undo: restored,
	},
	"another-cluster": {
		asked: 1,
		do: func(w *world) {
			w.stranger = vaulttest.Start(w.T)
			vaulttest.Tenant(w.T, w.stranger, w.tenant.Name)
			w.ageLogin()
			w.must(w.proxy.To(w.stranger))
		},
		during: func(w *world) {
			entries, err := w.stranger.ReadAudit()
			w.must(err)
			for _, e := range entries {
				if e.Type == "request" && (e.Request.Path == "auth/approle/login" || e.Request.Path == "sys/wrapping/unwrap") {
					w.Errorf("another cluster got to see a credential: %s", e.Request.Path)
				}
			}
		},
		undo: func(w *world) { w.must(w.proxy.To(w.vault)) },
	},
	"exportable": {
		own: true, snapshot: true,
		do: func(w *world) {
			w.must(w.tenant.Configure(w.Context(), "root", map[string]any{"exportable": true}))
			w.look()
		},
		undo: restored,
	},
	"plaintext-backup": {
		own: true, snapshot: true,
		do: func(w *world) {
			w.must(w.tenant.Configure(w.Context(), "root", map[string]any{"allow_plaintext_backup": true}))
			w.look()
		},
		during: func(w *world) {
			// Vault takes a backup of an exportable key only.
			w.must(w.tenant.Configure(w.Context(), "root", map[string]any{"exportable": true}))
			w.must(w.vault.Request(w.Context(), http.MethodGet, w.tenant.Mount+"/backup/root", nil, nil))
			w.checkStrict(fault{})
		},
		undo: restored,
	},
	"not-derived": {
		own: true, snapshot: true,
		do: func(w *world) {
			w.must(w.tenant.DeleteKey(w.Context(), "root"))
			w.must(w.tenant.CreateKey(w.Context(), "root", map[string]any{"type": "aes256-gcm96"}))
			w.look()
		},
		undo: restored,
	},
	"namespace": {
		do: func(w *world) {
			w.restart(func() { w.site.SetCustodians(w.custodian(", namespace: contoso")) })
		},
		undo: func(w *world) { w.restart(func() { w.site.SetCustodians(w.custodian("")) }) },
	},
	"swapped": {
		asked: 1,
		do:    swap,
		undo:  func(w *world) { w.restart(w.putBack) },
	},
	"reordered": {
		asked: 1,
		do: func(w *world) {
			w.edits(func(results []any) []any {
				slices.Reverse(results)
				return results
			}, "encrypt", "decrypt")
		},
		during: func(w *world) {
			if opened, refused := w.openBatch(); refused != 0 || opened == 0 {
				w.Errorf("of a batch %d open and %d are refused", opened, refused)
			}
		},
		undo: healed,
	},
	"duplicated": {
		asked: 1,
		do: func(w *world) {
			w.edits(func(results []any) []any {
				if len(results) > 1 { // as many as were asked for
					results[len(results)-1] = results[0]
					return results
				}
				return append(results, results[0])
			}, "encrypt", "decrypt")
		},
		during: wholeBatchRefused,
		undo:   healed,
	},
	"dropped": {
		asked:  1,
		do:     func(w *world) { w.edits(func(results []any) []any { return results[1:] }, "encrypt", "decrypt") },
		during: wholeBatchRefused,
		undo:   healed,
	},
	"exchanged": {
		asked: 1,
		do: func(w *world) {
			var mu sync.Mutex
			var of any // the last strict document, which is opened now and gives its key to the others
			w.edits(func(results []any) []any {
				mu.Lock()
				defer mu.Unlock()
				first := results[0].(map[string]any)
				if of == nil {
					of = first["plaintext"]
				}
				first["plaintext"] = of
				return results
			}, "decrypt")
			w.spare(3)
			w.checkSpared()
		},
		during: oneOfBatchRefused,
		undo:   healed,
	},
	"item-error": {
		asked: 1,
		do: func(w *world) {
			w.edits(func(results []any) []any {
				results[0] = map[string]any{"reference": results[0].(map[string]any)["reference"], "error": "cipher: message authentication failed"}
				return results
			}, "decrypt")
		},
		during: oneOfBatchRefused,
		undo:   healed,
	},
	"warned": {
		asked: 1,
		do: func(w *world) {
			w.proxy.Set(vaulttest.Fault{Of: w.transit("encrypt", "decrypt"), Edit: func(answer map[string]any) {
				answer["warnings"] = []string{"Endpoint ignored these unrecognized parameters: [context]"}
			}})
		},
		during: wholeBatchRefused,
		undo:   healed,
	},
}

// healed ends what the proxy does.
func healed(w *world) { w.proxy.Set(vaulttest.Fault{}) }

// restored puts the snapshot back.
func restored(w *world) { w.must(w.vault.Restore(w.Context(), w.before)) }

// ageLogin waits until the daemon's login is so old that a refusal may be the
// login's fault: one that is younger than two seconds is not made anew.
func (w *world) ageLogin() { wait(w.T, time.Until(w.copied.Add(2*time.Second))) }

// loses says that all documents that are not spared are lost.
func (w *world) loses(reason vocab.Reason) {
	for _, d := range slices.Concat(w.strict, w.cached) {
		w.lost[d] = reason
	}
}

// spare takes strict documents out of those that are concerned.
func (w *world) spare(which ...int) {
	var concerned []*rmsdtest.Document
	for i, d := range w.strict {
		if slices.Contains(which, i) {
			w.spared = append(w.spared, d)
		} else {
			concerned = append(concerned, d)
		}
	}
	w.strict = concerned
}

// edits changes the results of every batch on contoso's root key.
func (w *world) edits(change func([]any) []any, ops ...string) {
	w.proxy.Set(vaulttest.Fault{Of: w.transit(ops...), Edit: vaulttest.Results(func(results []any) []any {
		if len(results) > 1 {
			w.edited.Add(1)
		}
		return change(results)
	})})
}

// openBatch opens every strict document several times in one batch, and says
// how many opened and how many were refused, none for another reason than
// CUSTODY_INTEGRITY. No key is asked for more often than that.
func (w *world) openBatch() (opened, refused int) {
	w.Helper()
	const times = 4 // so that the daemon must ask Vault for several at once
	batch := slices.Repeat(w.strict, times)
	before := w.edited.Load()
	if n := w.asked(func() {
		replies, err := w.bob.AcquireAll(w.Context(), batch)
		w.must(err)
		for _, r := range replies {
			switch w.noted(r); {
			case r.Outcome == rmsdtest.Received:
				opened++
			case r.Reason == vocab.ReasonCustodyIntegrity:
				refused++
			default:
				w.Errorf("in a batch, a document is refused for another reason: %v", r.Err)
			}
		}
	}); n > times {
		w.Errorf("Vault was asked %d times for a key that was opened %d times", n, times)
	}
	if w.edited.Load() == before && w.row.Name != "warned" {
		w.Error("the daemon asked Vault for every key alone: nothing was tried")
	}
	return opened, refused
}

func wholeBatchRefused(w *world) {
	if opened, refused := w.openBatch(); opened != 0 || refused == 0 {
		w.Errorf("of a batch %d open and %d are refused", opened, refused)
	}
}

func oneOfBatchRefused(w *world) {
	if opened, refused := w.openBatch(); opened == 0 || refused == 0 {
		w.Errorf("of a batch %d open and %d are refused", opened, refused)
	}
}

// swap exchanges wrapped keys in the store: between two of contoso's documents,
// between one of contoso's and one of the other tenant's, and between the two
// tenants' generations. Those of the other tenant are made to say that they are
// under contoso's key.
func swap(w *world) {
	contoso, fabrikam := w.site.TenantID, w.other.TenantID
	a, b, c := w.strict[0], w.strict[1], w.strict[2]
	w.spare(1, 3)
	was := map[*rmsdtest.Document]cbor.RawMessage{}
	var generation cbor.RawMessage
	edit := func(edit func(tx *bbolt.Tx)) { storeedit.Update(w.T, w.site.Data, edit) }
	put := func(tx *bbolt.Tx, d *rmsdtest.Document, wrap cbor.RawMessage) {
		storeedit.ForgeRecord(w.T, tx, w.site.Data, contoso, d.Content, func(f storeedit.Fields) { f[storeedit.RecordWrap] = wrap })
	}
	putGeneration := func(tx *bbolt.Tx, wrap cbor.RawMessage) {
		storeedit.ForgeBody(w.T, tx, w.site.Data, contoso, "generations/1", func(f storeedit.Fields) { f[storeedit.GenerationWrap] = wrap })
	}
	renamed := func(raw, like cbor.RawMessage) cbor.RawMessage {
		encoded, err := storeedit.Deterministic(w.T).Marshal(storeedit.Renamed(w.T, raw, like))
		w.must(err)
		return encoded
	}
	w.restart(func() {
		edit(func(tx *bbolt.Tx) {
			wrap := func(tenant vocab.TenantID, d *rmsdtest.Document) cbor.RawMessage {
				return storeedit.WrapOf(w.T, tx, storeedit.Licenses, storeedit.Key(tenant, d.Content[:]), storeedit.RecordWrap)
			}
			generationOf := func(tenant vocab.TenantID) cbor.RawMessage {
				return storeedit.BodyOf(w.T, tx, tenant, "generations/1")[storeedit.GenerationWrap]
			}
			was[a], was[c], generation = wrap(contoso, a), wrap(contoso, c), generationOf(contoso)
			put(tx, a, wrap(contoso, b))
			put(tx, c, renamed(wrap(fabrikam, w.otherStrict), was[c]))
			putGeneration(tx, renamed(generationOf(fabrikam), generation))
		})
	})
	w.process.AwaitServing(w.T, w.site)
	w.putBack = func() {
		edit(func(tx *bbolt.Tx) {
			for d, wrap := range was {
				put(tx, d, wrap)
			}
			putGeneration(tx, generation)
		})
	}
}
