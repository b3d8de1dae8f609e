package rmsctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/evidence"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) keyEvidenceCommand() *cobra.Command {
	var output, key, since, from string
	c := &cobra.Command{
		Use:   "evidence -o FILE [--key NAME]",
		Short: "Write a signed bundle of what proves the life of the tenant's keys",
		Long: `Have the service look at every key at its custodian and sign what it found,
with every registered key, every event about keys and its proof that it is in the
log. The file holds no secret and nothing of any document. It is verified before
it is kept, and can be verified by anybody who knows the tenant's root key ID:
rmsctl key evidence verify, or the script examples/python/verify_evidence.py.`,
		Example: `  rmsctl key evidence -o 2026-q4.zip --from q3-checkpoint.json
  rmsctl key evidence verify 2026-q4.zip --root SHA256:…`,
		Args: cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			if output == "" {
				return usagef("say where to write it: -o FILE")
			}
			req := &rmsv1.GetEvidenceRequest{}
			if since != "" {
				t, err := parseSince(since, a.now())
				if err != nil {
					return err
				}
				req.Since = timestamppb.New(t)
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			req.Parent = s.parent()
			if key != "" {
				req.Key = s.parent() + "/keys/" + key
			}
			return a.takeEvidence(ctx, s, req, from, output)
		}),
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write to this file, which must not exist")
	c.Flags().StringVar(&key, "key", "", "only this key")
	c.Flags().StringVar(&since, "since", "", "leave out events before: 7d (ago) or an RFC 3339 time")
	c.Flags().StringVar(&from, "from", "", "prove that the log continues this checkpoint, saved with rmsctl audit verify --save")
	c.AddCommand(a.keyEvidenceVerifyCommand())
	return c
}

// takeEvidence receives a bundle and keeps it if it verifies.
func (a *app) takeEvidence(ctx context.Context, s *server, req *rmsv1.GetEvidenceRequest, from, output string) error {
	var earlier *audit.Checkpoint
	if from != "" {
		c, err := readCheckpoint(from, s.Context.TenantID)
		if err != nil {
			return err
		}
		earlier, req.FromSize = &c, int64(c.Size)
	}
	f, err := createOutput(output)
	if err != nil {
		return err
	}
	defer f.discard()
	stream, err := s.Custody().GetEvidence(ctx, req)
	if err != nil {
		return err
	}
	var b []byte
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if b = append(b, r.GetData()...); len(b) > evidence.MaxSize {
			return notVerified("the server sends more than evidence can be")
		}
	}
	// The pins follow the root first, if it was rotated.
	if _, err := a.verifier(ctx, s.Context); err != nil {
		return err
	}
	v, err := evidence.Verify(b, keyIDs(s.Context.Roots), earlier)
	if err != nil {
		return &exitError{code: exitVerification, err: err}
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.keep(); err != nil {
		return err
	}
	a.sayf("%s about %s in %s", plural(len(v.Events), "event", "events"), plural(len(v.Keys), "key", "keys"), output)
	for _, w := range v.Warnings() {
		a.warnf("%s", w)
	}
	a.next("verify it anywhere: rmsctl key evidence verify %s --root %s", output, contexts.KeyID(v.Root))
	return nil
}

func keyIDs(pins []contexts.KeyID) (out []license.KeyID) {
	for _, p := range pins {
		out = append(out, license.KeyID(p))
	}
	return out
}

// readCheckpoint reads a checkpoint that was saved: the file of rmsctl audit
// verify --save, or a signed note.
func readCheckpoint(path string, t vocab.TenantID) (audit.Checkpoint, error) {
	b, err := readBounded(path, maxSaved)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	var s saved
	if json.Unmarshal(b, &s) == nil {
		b = []byte(s.Note)
	}
	c, err := audit.ReadCheckpoint(b, t)
	if err != nil {
		return c, usagef("%s is not a saved checkpoint of this tenant's log", path)
	}
	return c, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = usagef("%s has more than %d bytes", path, limit)
	}
	return b, err
}

// custodyReport is what verified evidence says.
type custodyReport struct {
	Tenant    string                `json:"tenant"`
	Made      time.Time             `json:"made"`
	Root      string                `json:"root"`
	LogSize   uint64                `json:"log_size"`
	LogTime   time.Time             `json:"log_time"`
	Continues uint64                `json:"continues,omitempty"`
	Keys      []evidence.KeySummary `json:"keys"`
	Warnings  []string              `json:"warnings,omitempty"`
	History   []evidence.Line       `json:"history"`
}

func (a *app) keyEvidenceVerifyCommand() *cobra.Command {
	var root, from string
	c := &cobra.Command{
		Use:   "verify FILE [--root KEYID] [--from CHECKPOINT]",
		Short: "Verify a bundle of evidence without a server, and tell what it says",
		Long: `Verify a bundle of evidence down to the tenant's root, and tell the history of
its keys. No server is asked. The root is the one given with --root, as rmsctl
login showed it, or those pinned at login of the same tenant on this machine. With
--from the log must continue a checkpoint that you saved earlier, so that nothing
from before it can have been changed or left out.

Exit code 9 names the first thing that is wrong.`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(_ context.Context, args []string) error {
			b, err := readBounded(args[0], evidence.MaxSize)
			if err != nil {
				return err
			}
			v, err := a.verifyEvidence(b, root, from)
			if err != nil {
				return err
			}
			r := custodyReport{
				Tenant: v.Tenant.String(), Made: v.Made, Root: contexts.KeyID(v.Root).String(), LogSize: v.Checkpoint.Size, LogTime: v.Checkpoint.Time,
				Continues: v.Continues, Keys: v.Summaries(), Warnings: v.Warnings(), History: v.History(),
			}
			return a.emit(r, func() { a.tellEvidence(&r) })
		}),
	}
	c.Flags().StringVar(&root, "root", "", "the tenant's root key ID, SHA256:…")
	c.Flags().StringVar(&from, "from", "", "a checkpoint of the log that you saved earlier")
	return a.formatFlag(c)
}

// verifyEvidence verifies a bundle; whatever is wrong with it is exit code 9.
func (a *app) verifyEvidence(b []byte, root, from string) (*evidence.Verified, error) {
	var trusted []license.KeyID
	if root != "" {
		id, err := contexts.ParseKeyID(root)
		if err != nil {
			return nil, usagef("--root: %v", err)
		}
		trusted = append(trusted, license.KeyID(id))
	}
	bundle, err := evidence.Read(b)
	if err != nil {
		return nil, &exitError{code: exitVerification, err: err}
	}
	if root == "" {
		all, err := a.folder.All()
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if c.TenantID == bundle.Tenant() {
				trusted = append(trusted, keyIDs(c.Roots)...)
			}
		}
		if trusted == nil {
			return nil, usagef("no root of this evidence's tenant was pinned here").
				withNext("Say which root you trust: --root SHA256:…; ask the tenant's administrator for it, not whoever gave you the file")
		}
	}
	var earlier *audit.Checkpoint
	if from != "" {
		c, err := readCheckpoint(from, bundle.Tenant())
		if err != nil {
			return nil, err
		}
		earlier = &c
	}
	v, err := evidence.Verify(b, trusted, earlier)
	if err != nil {
		return nil, &exitError{code: exitVerification, err: err}
	}
	return v, nil
}

func (a *app) tellEvidence(r *custodyReport) {
	t := newTable(a.stdout, "TIME", "EVENT", "WHAT", "WHO", "DETAIL")
	for _, l := range r.History {
		kind, who := l.Kind, l.Who
		if l.Alarm {
			kind = "ALARM " + kind
		}
		if who == "" {
			who = "the service"
		}
		detail := l.Detail
		if l.Reason != "" {
			detail = l.Reason + " " + detail
		}
		t.row(l.Time.UTC().Format("2006-01-02 15:04:05"), kind, l.About, who, detail)
	}
	t.flush()
	for _, k := range r.Keys {
		a.outf("")
		a.outf("key %s, %s, at %s", k.Key, k.State, k.Where)
		for _, v := range k.Versions {
			a.outf("  %s", v)
		}
		a.outf("  %s", k.Custody)
	}
	a.outf("")
	line := fmt.Sprintf("evidence of %s for tenant %s, signed under %s; %s proven in a log of %s",
		showTime(r.Made), r.Tenant, r.Root, plural(len(r.History), "event", "events"), group(int64(r.LogSize)))
	if r.Continues > 0 {
		line += fmt.Sprintf(", which continues the one of %s", group(int64(r.Continues)))
	}
	a.outf("%s ✓", line)
	for _, w := range r.Warnings {
		a.warnf("%s", w)
	}
}
