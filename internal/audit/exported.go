package audit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"iter"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// maxExportLine bounds a line of an export, in bytes: a leaf in base64 and what
// people are shown of it.
const maxExportLine = 1 << 20

// ReadExport reads a log as it was exported, JSON lines with the position and
// the leaf of an event each. It says nothing of whether the events are those of
// any log: that their root says. It ends after an error, which is LOG_DAMAGED or
// that of r.
func ReadExport(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 0, 64<<10), maxExportLine)
		for n := 1; lines.Scan(); n++ {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue
			}
			e, err := readExportLine(lines.Bytes())
			if err != nil {
				yield(Entry{}, vocab.Errorf(vocab.ReasonLogDamaged, "line %d of the exported events cannot be read", n).
					WithNext("The file is that of: rmsctl audit export").Because(err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
			yield(Entry{}, vocab.Errorf(vocab.ReasonLogDamaged, "a line of the exported events is longer than any can be").Because(err))
		} else if err != nil {
			yield(Entry{}, err)
		}
	}
}

func readExportLine(b []byte) (Entry, error) {
	var line struct {
		Index *uint64 `json:"index"`
		Leaf  string  `json:"leaf"`
	}
	if err := json.Unmarshal(b, &line); err != nil {
		return Entry{}, err
	}
	if line.Index == nil || *line.Index > maxSize {
		return Entry{}, errors.New("it has no position")
	}
	leaf, err := base64.StdEncoding.Strict().DecodeString(line.Leaf)
	if err != nil {
		return Entry{}, err
	}
	e, err := ParseEvent(leaf)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Index: *line.Index, Leaf: leaf, Event: e}, nil
}

// TreeAt returns the tree of the first n events of a tenant's log, from their
// leaves, so that others can be added to it.
func TreeAt(r store.Reader, t vocab.TenantID, n uint64) (*Tree, error) {
	tree := new(Tree)
	for i := range n {
		e, err := entry(r, t, i)
		if err != nil {
			return nil, err
		}
		tree.Add(e.LeafHash())
	}
	return tree, nil
}

// CheckRoot reports, as LOG_DAMAGED, that a log of at least the size of c has
// another beginning.
func CheckRoot(r store.Reader, c Checkpoint) error {
	h, err := root(r, c.Tenant, c.Size)
	if err == nil && h != c.Root {
		err = damaged("its first %d events are not those of the checkpoint", c.Size)
	}
	return err
}
