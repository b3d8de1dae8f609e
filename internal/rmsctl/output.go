package rmsctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Ways to print.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// clean makes text that others wrote safe to show on a terminal and in one
// line of a table: control characters (escape sequences, line breaks) and the
// invisible characters that reorder text become U+FFFD.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.IsControl(r),
			r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func cleanAll(args []any) []any {
	out := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			out[i] = clean(v)
		case error:
			out[i] = clean(v.Error())
		case fmt.Stringer:
			out[i] = clean(v.String())
		default:
			out[i] = arg
		}
	}
	return out
}

// outf prints a line of data for people.
func (a *app) outf(format string, args ...any) {
	fmt.Fprintf(a.stdout, format+"\n", cleanAll(args)...)
}

// sayf prints a line of talk; programs that read JSON do not get any.
func (a *app) sayf(format string, args ...any) {
	if a.format == "" || a.format == formatTable {
		fmt.Fprintf(a.stderr, format+"\n", cleanAll(args)...)
	}
}

// warnf prints a line that must be seen in any format.
func (a *app) warnf(format string, args ...any) {
	fmt.Fprintf(a.stderr, "rmsctl: warning: "+format+"\n", cleanAll(args)...)
}

// next prints the line after a change.
func (a *app) next(format string, args ...any) { a.sayf("next: "+format, args...) }

// emit prints data in the format asked for: as JSON or YAML, or with table.
// Messages of the API keep the names of their proto fields.
func (a *app) emit(data any, table func()) error {
	switch a.format {
	case formatJSON:
		b, err := toJSON(data)
		if err != nil {
			return err
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, b, "", "  "); err != nil {
			return err
		}
		indented.WriteByte('\n')
		_, err = a.stdout.Write(indented.Bytes())
		return err
	case formatYAML:
		b, err := toJSON(data)
		if err != nil {
			return err
		}
		// JSON is YAML: parsing it as a node keeps the order of the keys.
		var n yaml.Node
		if err := yaml.Unmarshal(b, &n); err != nil {
			return err
		}
		blockStyle(&n)
		e := yaml.NewEncoder(a.stdout)
		e.SetIndent(2)
		if err := e.Encode(&n); err != nil {
			return err
		}
		return e.Close()
	}
	table()
	return nil
}

// blockStyle undoes the braces and quotes of JSON.
func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// line prints one item of a stream: a line of JSON, or with table.
func (a *app) line(data any, table func()) error {
	if a.format != formatJSON && a.format != formatYAML {
		table()
		return nil
	}
	b, err := toJSON(data)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", b)
	return err
}

func toJSON(data any) ([]byte, error) {
	switch v := data.(type) {
	case proto.Message:
		b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(v)
		if err != nil {
			return nil, err
		}
		// protojson varies its white space on purpose.
		var out bytes.Buffer
		err = json.Compact(&out, b)
		return out.Bytes(), err
	case []proto.Message:
		parts := make([]json.RawMessage, len(v))
		for i, m := range v {
			b, err := toJSON(m)
			if err != nil {
				return nil, err
			}
			parts[i] = b
		}
		return json.Marshal(parts)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(data)
	return bytes.TrimSpace(b.Bytes()), err
}

// messages makes a list of messages printable.
func messages[M proto.Message](list []M) []proto.Message {
	out := make([]proto.Message, len(list))
	for i, m := range list {
		out[i] = m
	}
	return out
}

// table collects rows and aligns them.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, header ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

// row adds a row; empty cells show as "-" so that columns can be cut.
func (t *table) row(cells ...string) {
	for i, c := range cells {
		if cells[i] = clean(c); cells[i] == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() { _ = t.w.Flush() }

// Times are shown in UTC to the second, as the log has them.
func showTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func showStamp(ts *timestamppb.Timestamp) string {
	if ts == nil {
		return ""
	}
	return showTime(ts.AsTime())
}

// lastPart returns what a resource name ends with.
func lastPart(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// plural is "1 license", "2 licenses".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return group(int64(n)) + " " + many
}

// group writes a number with commas between thousands.
func group(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// showSize writes a number of bytes as people say it.
func showSize(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, u := float64(n), 0
	for v >= 1000 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}
