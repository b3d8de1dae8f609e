package rmsctl

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) auditCommand() *cobra.Command {
	return noun("audit", "The tenant's log: follow it, search it, verify it",
		a.auditTailCommand(), a.auditSearchCommand(), a.auditVerifyCommand(), a.auditProofCommand(), a.auditExportCommand())
}

func (a *app) auditTailCommand() *cobra.Command {
	var follow bool
	var lines int
	c := &cobra.Command{
		Use:   "tail [-f]",
		Short: "Show the newest events; with -f, and each that follows",
		Args:  cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			if lines < 0 || lines > 1000 {
				return usagef("--lines must be 0 to 1000")
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			// One event at least: it tells where to go on.
			page, err := s.Audit().ListEvents(ctx, &rmsv1.ListEventsRequest{Parent: s.parent(), PageSize: int32(max(lines, 1))})
			if err != nil {
				return err
			}
			events := page.GetEvents()
			next := int64(0)
			if len(events) > 0 {
				next = events[0].GetIndex() + 1
			}
			events = events[:min(len(events), lines)]
			slices.Reverse(events)
			for _, e := range events {
				if err := a.eventLine(e); err != nil {
					return err
				}
			}
			if !follow {
				return nil
			}
			return a.followEvents(ctx, s, next)
		}),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with each event as it happens, until interrupted")
	c.Flags().IntVarP(&lines, "lines", "n", 20, "how many of the newest to begin with")
	return a.formatFlag(c)
}

// eventLine prints one event of a stream, whose columns cannot be aligned in
// advance.
func (a *app) eventLine(e *rmsv1.Event) error {
	return a.line(e, func() {
		cells := eventCells(e, true)
		for i, cell := range cells {
			if cell == "" {
				cells[i] = "-"
			}
		}
		a.outf("%-20s  %-17s  %-30s  %-6s  %-15s  %s  %s", cleanAll(anys(cells))...)
	})
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// reconnectPause is how long a tail waits before it takes up a connection that
// broke.
const reconnectPause = time.Second

// followEvents prints events from a position on. A connection that breaks is
// taken up again where it broke, so that no event is missed or shown twice.
func (a *app) followEvents(ctx context.Context, s *server, next int64) error {
	lost := false
	for {
		err := a.follow(ctx, s, &next)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // how a tail ends
		case err != nil && describe(err).Exit != exitUnavailable:
			return err
		case !lost:
			a.warnf("the connection ended; going on when the server is back")
			lost = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnectPause):
		}
	}
}

func (a *app) follow(ctx context.Context, s *server, next *int64) error {
	stream, err := s.Audit().TailEvents(ctx, &rmsv1.TailEventsRequest{Parent: s.parent(), FromIndex: *next})
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e := r.GetEvent()
		if e.GetIndex() != *next {
			return vocab.Errorf(vocab.ReasonLogDamaged, "the server sent event %d where %d was due", e.GetIndex(), *next)
		}
		*next++
		if err := a.eventLine(e); err != nil {
			return err
		}
	}
}

func (a *app) auditSearchCommand() *cobra.Command {
	var file, principal, result, since, until, operation string
	var kinds []string
	var limit int
	c := &cobra.Command{
		Use:   "search [FLAGS]",
		Short: "Find events, newest first",
		Example: `  rmsctl audit search --file q3.pdf.rms --result denied --since 7d
  rmsctl audit search --principal mallory@contoso.com`,
		Args: cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			filter := &rmsv1.EventFilter{Principal: shortPrincipal(principal), Kinds: kinds}
			switch result {
			case "all":
			case "denied":
				filter.Refused = true
			case "alarm":
				filter.Alarm = true
			default:
				return usagef("--result is all, denied or alarm, not %q", result)
			}
			if since != "" {
				t, err := parseSince(since, a.now())
				if err != nil {
					return err
				}
				filter.Since = timestamppb.New(t)
			}
			if until != "" {
				t, err := parseSince(until, a.now())
				if err != nil {
					return err
				}
				filter.Until = timestamppb.New(t)
			}
			if operation != "" {
				if _, err := vocab.ParseOperationID(operation); err != nil {
					return usagef("--operation: %q is not the ID of an operation", operation).withNext("See: rmsctl operation list")
				}
				filter.Operation = operation
			}
			s, err := a.searched(ctx, file, filter)
			if err != nil {
				return err
			}
			events, more, err := collect(limit, func(size int32, token string) ([]*rmsv1.Event, string, error) {
				page, err := s.Audit().ListEvents(ctx, &rmsv1.ListEventsRequest{Parent: s.parent(), PageSize: size, PageToken: token, Filter: filter})
				return page.GetEvents(), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			err = a.emit(messages(events), func() { a.eventTable(events, true) })
			if err == nil && more {
				a.sayf("there are older ones; --limit 0 shows all")
			}
			return err
		}),
	}
	flags := c.Flags()
	flags.StringVar(&file, "file", "", "only those of this document: its file or its license's ID")
	flags.StringVar(&principal, "principal", "", "only those of this person or service, as events name them")
	flags.StringVar(&operation, "operation", "", "only those that belong to this operation")
	flags.StringSliceVar(&kinds, "kind", nil, "only these kinds, such as released, refused, license-revoked")
	flags.StringVar(&result, "result", "all", "all, denied or alarm")
	flags.StringVar(&since, "since", "", "not before: 7d (ago) or an RFC 3339 time")
	flags.StringVar(&until, "until", "", "before: 7d (ago) or an RFC 3339 time")
	flags.IntVar(&limit, "limit", 100, "at most so many; 0: all")
	return a.formatFlag(c)
}

// searched connects for a search: where a document is searched for, to its
// server.
func (a *app) searched(ctx context.Context, file string, filter *rmsv1.EventFilter) (*server, error) {
	if file == "" {
		return a.connect(ctx)
	}
	s, name, err := a.licenseOf(ctx, file)
	filter.License = name
	return s, err
}

// exportLine is an event as it is exported: with the bytes that are in the
// tree, so that whoever keeps them can verify them.
type exportLine struct {
	Index int64           `json:"index"`
	Leaf  string          `json:"leaf"` // base64
	Event json.RawMessage `json:"event"`
}

func (a *app) auditExportCommand() *cobra.Command {
	var output, format string
	var from, to int64
	c := &cobra.Command{
		Use:   "export [-o FILE]",
		Short: "Write the log as lines of JSON, each with the bytes that are in the tree",
		Args:  cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			if format != "jsonl" {
				return usagef("--format is jsonl, not %q", format)
			}
			if from < 0 || to < 0 {
				return usagef("--from and --to must not be negative")
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			if output == "" {
				n, err := a.exportTo(ctx, s, a.stdout, from, to)
				if err == nil {
					a.sayf("%s", plural(int(n), "event", "events"))
				}
				return err
			}
			f, err := createOutput(output)
			if err != nil {
				return err
			}
			defer f.discard()
			n, err := a.exportTo(ctx, s, f, from, to)
			if err != nil {
				return err
			}
			if err := f.keep(); err != nil {
				return err
			}
			a.sayf("%s in %s", plural(int(n), "event", "events"), output)
			a.next("verify the log: rmsctl audit verify")
			return nil
		}),
	}
	flags := c.Flags()
	flags.StringVarP(&output, "output", "o", "", "write to this file instead of standard output")
	flags.StringVar(&format, "format", "jsonl", "how to write: jsonl")
	flags.Int64Var(&from, "from", 0, "the first position")
	flags.Int64Var(&to, "to", 0, "the position after the last; 0: the end")
	return c
}

func (a *app) exportTo(ctx context.Context, s *server, w io.Writer, from, to int64) (int64, error) {
	stream, err := s.Audit().ExportEvents(ctx, &rmsv1.ExportEventsRequest{Parent: s.parent(), FromIndex: from, ToIndex: to})
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriter(w)
	next := from
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return next - from, out.Flush()
		}
		if err != nil {
			return 0, err
		}
		if r.GetIndex() != next {
			return 0, vocab.Errorf(vocab.ReasonLogDamaged, "the server sent event %d where %d was due", r.GetIndex(), next)
		}
		next++
		event, err := toJSON(r.GetEvent())
		if err != nil {
			return 0, err
		}
		line, err := toJSON(exportLine{Index: r.GetIndex(), Leaf: base64.StdEncoding.EncodeToString(r.GetLeaf()), Event: event})
		if err != nil {
			return 0, err
		}
		if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
			return 0, err
		}
	}
}

func (a *app) auditProofCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "proof EVENT",
		Short: "Show an event and prove that it is in the log",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			id, err := vocab.ParseEventID(strings.TrimSpace(args[0]))
			if err != nil {
				return usagef("%v", err)
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			e, err := s.Audit().GetEvent(ctx, &rmsv1.GetEventRequest{Name: s.parent() + "/events/" + id.String()})
			if err != nil {
				return err
			}
			p, err := a.prove(ctx, s, id)
			if err != nil {
				return err
			}
			event, err := toJSON(e)
			if err != nil {
				return err
			}
			p.Event = event
			return a.emit(p, func() {
				a.eventTable([]*rmsv1.Event{e}, true)
				a.outf("in the log at position %s of %s; checkpoint signed by %s, proof of %s verified ✓",
					group(p.Index), group(p.Size), p.Signer, plural(len(p.Hashes), "hash", "hashes"))
			})
		}),
	})
}
