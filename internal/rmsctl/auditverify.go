package rmsctl

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// notVerified is the error of a log, or a proof, that does not hold. The exit
// code is that of verifications whatever the reason.
func notVerified(format string, args ...any) error {
	return &exitError{
		code: exitVerification,
		err:  vocab.Errorf(vocab.ReasonLogDamaged, format, args...),
		next: "Keep what you have, and ask the operator and another auditor to look",
	}
}

// saved is the last good checkpoint of a log with what is needed to go on
// from it: the roots of the complete subtrees at its right edge.
type saved struct {
	Note  string    `json:"note"`
	Saved time.Time `json:"saved"`
	Edge  []string  `json:"edge"` // base64, as tlog reads them for the root
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var from, save string
	c := &cobra.Command{
		Use:   "verify [--from saved|FILE] [--save FILE]",
		Short: "Recompute the log from its events and compare it with its signed checkpoint",
		Long: `Read every event, compute the root of the tree anew, and compare it with the
checkpoint the server signs. The key that signed must be certified by a root you
pinned at login. The log must also continue the last checkpoint that verified on
this machine, so that nothing you have seen can be changed or left out later.

--from saved reads only what came after that checkpoint. Exit code 9 names the
first event that is wrong.`,
		Args: cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			return a.verifyLog(ctx, s, from, save)
		}),
	}
	c.Flags().StringVar(&from, "from", "", "begin at a checkpoint that verified: saved, or a file made with --save")
	c.Flags().StringVar(&save, "save", "", "also save the verified checkpoint in this file")
	return a.formatFlag(c)
}

// verified is what a verification found good.
type verified struct {
	Events        uint64     `json:"events"`
	Read          uint64     `json:"read"`
	Root          string     `json:"root"`
	Time          time.Time  `json:"time"`
	Signer        string     `json:"signer"`
	ContinuesSize uint64     `json:"continues_size,omitempty"`
	ContinuesSeen *time.Time `json:"continues_saved,omitempty"`
}

func (a *app) verifyLog(ctx context.Context, s *server, from, save string) error {
	// What was seen before is read first: a damaged memory must not be
	// noticed only after an hour of reading.
	last, err := a.lastCheckpoint(s.Context, a.folder.CheckpointPath(s.Name))
	if err != nil {
		return err
	}
	start := last
	switch {
	case from == "":
		start = nil
	case from != "saved":
		if start, err = a.lastCheckpoint(s.Context, from); err != nil {
			return err
		}
		fallthrough
	default:
		if start == nil {
			return vocab.Errorf(vocab.ReasonResourceNotFound, "there is no saved checkpoint to begin from").
				WithNext("Verify the whole log once: rmsctl audit verify")
		}
	}
	now, signer, err := a.checkpoint(ctx, s)
	if err != nil {
		return err
	}
	for _, seen := range []*seenCheckpoint{last, start} {
		if seen != nil && seen.Size > now.Size {
			return a.notContinued(ctx, s, "the log has %s events, but had %s when you saved a checkpoint at %s",
				group(int64(now.Size)), group(int64(seen.Size)), showTime(seen.saved.Saved))
		}
	}
	tree, err := newHashFile(start)
	if err != nil {
		return err
	}
	defer tree.close()
	if err := a.readLeaves(ctx, s, tree, now.Size); err != nil {
		return err
	}
	root, err := tree.root(now.Size)
	if err != nil {
		return err
	}
	if root != tlog.Hash(now.Root) {
		return a.firstBad(ctx, s, tree, now)
	}
	result := verified{
		Events: now.Size, Read: now.Size - tree.from, Time: now.Time, Signer: signer,
		Root: base64.StdEncoding.EncodeToString(now.Root[:]),
	}
	if last != nil {
		if last.Size >= tree.from && last.Size > 0 {
			if root, err = tree.root(last.Size); err != nil {
				return err
			}
			if root != tlog.Hash(last.Root) {
				return a.notContinued(ctx, s, "the first %s events are not those of the checkpoint you saved at %s: the log was rewritten",
					group(int64(last.Size)), showTime(last.saved.Saved))
			}
		}
		result.ContinuesSize, result.ContinuesSeen = last.Size, &last.saved.Saved
	}
	if err := a.saveCheckpoint(s, tree, now, save); err != nil {
		return err
	}
	return a.emit(result, func() {
		line := plural(int(now.Size), "event", "events")
		if result.Read != now.Size {
			line += fmt.Sprintf(" (%s read)", group(int64(result.Read)))
		}
		line += "; checkpoint signed by " + signer
		if last != nil {
			line += fmt.Sprintf("; consistent with checkpoint %s you saved %s", group(int64(last.Size)), last.saved.Saved.UTC().Format(time.DateOnly))
		}
		a.outf("%s ✓", line)
	})
}

// checkpoint fetches a checkpoint and verifies it down to the pinned root. It
// returns the name of the key that signed.
func (a *app) checkpoint(ctx context.Context, s *server) (audit.Checkpoint, string, error) {
	r, err := s.Audit().GetCheckpoint(ctx, &rmsv1.GetCheckpointRequest{Parent: s.parent()})
	if err != nil {
		return audit.Checkpoint{}, "", err
	}
	key, err := a.checkpointKey(ctx, s, r.GetCertificate())
	if err != nil {
		return audit.Checkpoint{}, "", &exitError{code: exitVerification, err: err}
	}
	c, err := audit.OpenCheckpoint([]byte(r.GetNote()), s.Context.TenantID, key)
	if err != nil {
		return c, "", &exitError{code: exitVerification, err: err}
	}
	v, err := audit.Verifier(s.Context.TenantID, key)
	if err != nil {
		return c, "", err
	}
	a.note = r.GetNote()
	return c, fmt.Sprintf("%s-log+%08x", s.Context.Tenant, v.KeyHash()), nil
}

// readLeaves reads the log up to size into the tree. An event that is not
// what it must be ends it, by name.
func (a *app) readLeaves(ctx context.Context, s *server, tree *hashFile, size uint64) error {
	if size == tree.from {
		return nil
	}
	stream, err := s.Audit().ExportEvents(ctx, &rmsv1.ExportEventsRequest{Parent: s.parent(), FromIndex: int64(tree.from), ToIndex: int64(size)})
	if err != nil {
		return err
	}
	for next := tree.from; ; next++ {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if next != size {
				return notVerified("the server ended at event %d of %d", next, size)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if next == size || r.GetIndex() != int64(next) {
			return notVerified("the server sent event %d where %d of %d was due", r.GetIndex(), next, size)
		}
		e, err := audit.ParseEvent(r.GetLeaf())
		if err != nil {
			return notVerified("event %d cannot be read: %v", next, err)
		}
		hash := audit.HashLeaf(r.GetLeaf())
		if problem := mismatch(s.Context.TenantID, e, hash, r.GetEvent()); problem != "" {
			return notVerified("event %d (%s): %s", next, e.ID, problem)
		}
		if err := tree.add(next, hash); err != nil {
			return err
		}
	}
}

// mismatch compares a leaf with what the server shows people for it: what is
// shown must be what was recorded.
func mismatch(t vocab.TenantID, e *audit.Event, hash [32]byte, shown *rmsv1.Event) string {
	outcome := "OK"
	if e.Reason != "" {
		outcome = string(e.Reason)
	}
	switch {
	case e.Tenant != t:
		return "it belongs to another tenant's log"
	case shown == nil:
		return ""
	case lastPart(shown.GetName()) != e.ID.String():
		return "it is shown under another ID"
	case shown.GetKind() != e.Kind.String():
		return "it is shown as " + shown.GetKind() + ", recorded as " + e.Kind.String()
	case shown.GetOutcome() != outcome:
		return "its outcome is shown as " + shown.GetOutcome() + ", recorded as " + outcome
	case shown.GetBreakGlass() != e.BreakGlass:
		return "that it was break-glass is not shown as it was recorded"
	case len(shown.GetLeafHash()) > 0 && !bytes.Equal(shown.GetLeafHash(), hash[:]):
		return "its bytes are not those that were recorded"
	}
	return ""
}

// firstBad finds the first event that the checkpoint does not cover, by
// asking for proofs that its shorter beginnings are covered.
func (a *app) firstBad(ctx context.Context, s *server, tree *hashFile, now audit.Checkpoint) error {
	good, bad := tree.from, now.Size // good events from the start are covered, bad are not
	for good+1 < bad {
		middle := good + (bad-good)/2
		covered, err := a.covered(ctx, s, tree, middle, now)
		if err != nil {
			return notVerified("the events do not give the root that was signed, and the server cannot prove where they part: %v", err)
		}
		if covered {
			good = middle
		} else {
			bad = middle
		}
	}
	page, err := s.Audit().ExportEvents(ctx, &rmsv1.ExportEventsRequest{Parent: s.parent(), FromIndex: int64(bad - 1), ToIndex: int64(bad)})
	name := ""
	if err == nil {
		if r, err := page.Recv(); err == nil {
			name = " (" + lastPart(r.GetEvent().GetName()) + ")"
		}
	}
	return notVerified("event %d%s is not the one that the checkpoint of %s events covers", bad-1, name, group(int64(now.Size)))
}

// covered says whether the first n events, as they were read, are covered by
// the checkpoint.
func (a *app) covered(ctx context.Context, s *server, tree *hashFile, n uint64, now audit.Checkpoint) (bool, error) {
	r, err := s.Audit().GetProof(ctx, &rmsv1.GetProofRequest{Parent: s.parent(), FromSize: int64(n), Size: int64(now.Size)})
	if err != nil {
		return false, err
	}
	root, err := tree.root(n)
	if err != nil {
		return false, err
	}
	hashes, err := hashList(r.GetHashes())
	if err != nil {
		return false, err
	}
	return audit.Consistency{From: n, FromRoot: root, Size: now.Size, Root: now.Root, Hashes: hashes}.Verify(), nil
}

func hashList(list [][]byte) ([][32]byte, error) {
	out := make([][32]byte, len(list))
	for i, h := range list {
		if len(h) != 32 {
			return nil, vocab.Errorf(vocab.ReasonLogDamaged, "a proof holds something that is not a hash")
		}
		out[i] = [32]byte(h)
	}
	return out, nil
}

// proof is a proof that an event is in the log, for keeping.
type proof struct {
	Event  json.RawMessage `json:"event"`
	Index  int64           `json:"index"`
	Size   int64           `json:"size"`
	Leaf   string          `json:"leaf_hash"`
	Hashes []string        `json:"hashes"`
	Note   string          `json:"checkpoint"`
	Signer string          `json:"signer"`
}

// prove fetches a proof that the event is in the log and checks it.
func (a *app) prove(ctx context.Context, s *server, id vocab.EventID) (*proof, error) {
	now, signer, err := a.checkpoint(ctx, s)
	if err != nil {
		return nil, err
	}
	r, err := s.Audit().GetProof(ctx, &rmsv1.GetProofRequest{Parent: s.parent(), Event: id.String(), Size: int64(now.Size)})
	if err != nil {
		return nil, err
	}
	// The leaf itself decides what is proved, not the server's hash of it.
	stream, err := s.Audit().ExportEvents(ctx, &rmsv1.ExportEventsRequest{Parent: s.parent(), FromIndex: r.GetIndex(), ToIndex: r.GetIndex() + 1})
	if err != nil {
		return nil, err
	}
	leaf, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	e, err := audit.ParseEvent(leaf.GetLeaf())
	if err != nil || e.ID != id || e.Tenant != s.Context.TenantID {
		return nil, notVerified("the event at position %d is not %s", r.GetIndex(), id)
	}
	hashes, err := hashList(r.GetHashes())
	if err != nil {
		return nil, &exitError{code: exitVerification, err: err}
	}
	hash := audit.HashLeaf(leaf.GetLeaf())
	if r.GetIndex() < 0 || !(audit.Inclusion{Index: uint64(r.GetIndex()), LeafHash: hash, Size: now.Size, Root: now.Root, Hashes: hashes}).Verify() {
		return nil, notVerified("the server's proof that event %s is in the log does not hold", id)
	}
	p := &proof{Index: r.GetIndex(), Size: int64(now.Size), Leaf: base64.StdEncoding.EncodeToString(hash[:]), Note: a.note, Signer: signer}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, base64.StdEncoding.EncodeToString(h[:]))
	}
	return p, nil
}

// seenCheckpoint is a checkpoint that verified on this machine.
type seenCheckpoint struct {
	audit.Checkpoint
	saved saved
}

// maxSaved bounds a saved checkpoint, in bytes.
const maxSaved = 64 << 10

// lastCheckpoint reads a saved checkpoint; nil if there is none under the
// context's own name. It was verified before it was saved.
func (a *app) lastCheckpoint(c *contexts.Context, path string) (*seenCheckpoint, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && path == a.folder.CheckpointPath(c.Name) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSaved))
	if err != nil {
		return nil, err
	}
	bad := vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s is not a saved checkpoint of tenant %s", path, c.Tenant).
		WithNext("If you know why, remove it, and the next verification starts anew")
	seen := &seenCheckpoint{}
	if err := json.Unmarshal(b, &seen.saved); err != nil {
		return nil, bad.Because(err)
	}
	if seen.Checkpoint, err = audit.ReadCheckpoint([]byte(seen.saved.Note), c.TenantID); err != nil {
		return nil, bad.Because(err)
	}
	return seen, nil
}

// saveCheckpoint remembers a checkpoint that verified.
func (a *app) saveCheckpoint(s *server, tree *hashFile, c audit.Checkpoint, file string) error {
	edge, err := tree.edge(c.Size)
	if err != nil {
		return err
	}
	state := saved{Note: a.note, Saved: a.now().UTC().Truncate(time.Second)}
	for _, h := range edge {
		state.Edge = append(state.Edge, base64.StdEncoding.EncodeToString(h[:]))
	}
	b, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if err := contexts.WritePrivate(a.folder.CheckpointPath(s.Name), b); err != nil {
		return err
	}
	if file == "" {
		return nil
	}
	o, err := createOutput(file)
	if err != nil {
		return err
	}
	defer o.discard()
	if _, err := o.Write(b); err != nil {
		return err
	}
	return o.keep()
}
