package rmsctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/policy/suitefile"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) policyCommand() *cobra.Command {
	return noun("policy", "Rights policy as a whole: test what it says", a.policyTestCommand())
}

func (a *app) policyTestCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "test SUITE.yaml",
		Short: "Check cases: who may do what, and who must not",
		Long: `Check the cases of a suite: who may do what with which document or template, when,
from where, and what the answer must be. It prints a line for each case and exits with
9 if one fails, so that it can stand in a pipeline before rmsctl template apply.

Cases about templates that the suite brings along are decided here, by the rules that
the server decides by, and need no server. All others are asked of the server, as
explain --user does. The syntax is in docs/policy.md.`,
		Example: `  rmsctl policy test suite.yaml
  rmsctl policy test suite.yaml -o json`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error { return a.testPolicy(ctx, args[0]) }),
	})
}

// caseResult is how a case went.
type caseResult struct {
	Name   string   `json:"name"`
	Line   int      `json:"line"`
	Passed bool     `json:"passed"`
	Want   string   `json:"want"`
	Got    string   `json:"got"`              // allow, or the reason of the refusal
	Rights []string `json:"rights,omitempty"` // that it gives
	Error  string   `json:"error,omitempty"`  // why it could not be asked
}

// suiteResult is how a suite went.
type suiteResult struct {
	Cases  []caseResult `json:"cases"`
	Passed int          `json:"passed"`
	Failed int          `json:"failed"`
}

func (a *app) testPolicy(ctx context.Context, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	suite, err := suitefile.Parse(b)
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		return vocab.Errorf(e.Reason, "%s: %s", path, e.Message).WithNext("%s", e.Next).Because(err)
	}
	dir := filepath.Dir(path)
	var paths []string
	for _, p := range suite.Paths {
		paths = append(paths, besides(dir, p))
	}
	own, err := readTemplates(paths)
	if err != nil {
		return err
	}
	decider, err := suite.NewDecider(own)
	if err != nil {
		return err
	}
	t := &policyTest{app: a, dir: dir, decider: decider}
	var out suiteResult
	for i := range suite.Cases {
		r, err := t.run(ctx, &suite.Cases[i])
		if err != nil {
			return err
		}
		if r.Passed {
			out.Passed++
		} else {
			out.Failed++
		}
		out.Cases = append(out.Cases, r)
	}
	if err := a.emit(out, func() { a.showSuite(out) }); err != nil {
		return err
	}
	if out.Failed > 0 {
		return &exitError{code: exitVerification, err: fmt.Errorf("%s failed", plural(out.Failed, "case", "cases"))} //nolint:err113 // a sentence for people
	}
	return nil
}

// besides is a path as the suite means it: from where the suite is.
func besides(dir, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}

// policyTest asks cases, here or at the server.
type policyTest struct {
	*app
	dir     string
	decider *suitefile.Decider
	server  *server
}

// run asks one case. The error is one that concerns all of them: there is no
// server, or it does not answer us.
func (t *policyTest) run(ctx context.Context, c *suitefile.Case) (caseResult, error) {
	out := caseResult{Name: c.Name, Line: c.Line, Want: c.Want.String()}
	reason, rights, err := t.ask(ctx, c)
	if e := explain(err); e != nil && (e.Reason == vocab.ReasonResourceNotFound || e.Reason == vocab.ReasonRequestInvalid) {
		out.Error = e.Message
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Passed = c.Want.Meets(reason, rights)
	if out.Got = string(reason); reason == "" {
		out.Got = "allow"
	}
	for _, r := range rights.List() {
		out.Rights = append(out.Rights, r.String())
	}
	return out, nil
}

func (t *policyTest) ask(ctx context.Context, c *suitefile.Case) (vocab.Reason, vocab.Rights, error) {
	if t.decider.Decides(c) {
		d, err := t.decider.Decide(c, t.now())
		return d.Reason, d.Rights, err
	}
	req := &rmsv1.EvaluateAccessRequest{
		Right: rmsv1.Right(c.Right) + 1, Caller: &rmsv1.SupposedCaller{
			Principal: c.Who.Who.String(), Groups: c.Who.Groups, Mfa: c.Who.MFA, Peer: c.Who.Peer, WithoutDirectory: c.WithoutDirectory,
		},
	}
	if !c.At.IsZero() {
		req.Time = timestamppb.New(c.At)
	}
	s, err := t.addressed(ctx, c, req)
	if err != nil {
		return "", 0, err
	}
	x, err := evaluateAccess(ctx, s, req)
	if err != nil {
		return "", 0, err
	}
	return vocab.Reason(x.GetExplanation().GetReason()), rightsOf(x.GetExplanation().GetRights()), nil
}

// addressed names the document or template of a case at its server.
func (t *policyTest) addressed(ctx context.Context, c *suitefile.Case, req *rmsv1.EvaluateAccessRequest) (*server, error) {
	if c.Document != "" {
		document := c.Document
		if _, err := vocab.ParseContentID(document); err != nil {
			document = besides(t.dir, document)
		}
		s, name, err := t.licenseOf(ctx, document)
		if err != nil {
			return nil, err
		}
		req.Document = &rmsv1.EvaluateAccessRequest_License{License: name}
		return s, nil
	}
	if t.server == nil {
		var err error
		if t.server, err = t.connect(ctx); err != nil {
			return nil, err
		}
	}
	req.Document = &rmsv1.EvaluateAccessRequest_Template{Template: templateName(t.server, c.Template)}
	return t.server, nil
}

func (a *app) showSuite(r suiteResult) {
	for _, c := range r.Cases {
		switch {
		case c.Passed:
			a.outf("ok    %s", c.Name)
		case c.Error != "":
			a.outf("FAIL  %s (line %d): %s", c.Name, c.Line, c.Error)
		default:
			got := c.Got
			if got == "allow" {
				var rights vocab.Rights
				for _, name := range c.Rights {
					if right, err := vocab.ParseRight(name); err == nil {
						rights |= vocab.RightsOf(right)
					}
				}
				got = showRights(rightsProto(rights))
			}
			a.outf("FAIL  %s (line %d): want %s, got %s", c.Name, c.Line, c.Want, got)
		}
	}
	a.outf("%s, %d passed, %d failed", plural(len(r.Cases), "case", "cases"), r.Passed, r.Failed)
}
