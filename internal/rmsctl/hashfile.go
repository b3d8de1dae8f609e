package rmsctl

import (
	"encoding/base64"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/vocab"
)

// hashFile keeps the hashes of a tree in a temporary file, where they are in
// the numbering of tlog: memory does not grow with the log, and the root of
// every size can be computed afterwards. A tree that begins at a checkpoint
// holds of what came before only the right edge.
type hashFile struct {
	f    *os.File
	from uint64
}

// newHashFile begins a tree, at a checkpoint if there is one.
func newHashFile(start *seenCheckpoint) (*hashFile, error) {
	f, err := os.CreateTemp("", "rms-audit-*")
	if err != nil {
		return nil, fmt.Errorf("creating a temporary file: %w", err)
	}
	// Nothing secret is in it; without a name it goes with the process.
	_ = os.Remove(f.Name())
	t := &hashFile{f: f}
	if start == nil {
		return t, nil
	}
	if err := t.begin(start); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// begin writes the right edge of a checkpoint and checks that it is.
func (t *hashFile) begin(start *seenCheckpoint) error {
	bad := vocab.Errorf(vocab.ReasonConfigurationInvalid, "the saved checkpoint does not hold together").
		WithNext("Verify the whole log: rmsctl audit verify")
	t.from = start.Size
	if start.Size == 0 {
		return nil
	}
	edge := start.saved.Edge
	root, err := tlog.TreeHash(int64(start.Size), tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		if len(indexes) != len(edge) {
			return nil, bad
		}
		hashes := make([]tlog.Hash, len(edge))
		for i, text := range edge {
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil || len(b) != tlog.HashSize {
				return nil, bad
			}
			hashes[i] = tlog.Hash(b)
			if err := t.write(indexes[i], hashes[i]); err != nil {
				return nil, err
			}
		}
		return hashes, nil
	}))
	if err != nil {
		return err
	}
	if root != tlog.Hash(start.Root) {
		return bad
	}
	return nil
}

func (t *hashFile) close() { _ = t.f.Close() }

func (t *hashFile) write(index int64, h tlog.Hash) error {
	if _, err := t.f.WriteAt(h[:], index*tlog.HashSize); err != nil {
		return fmt.Errorf("writing a temporary file: %w", err)
	}
	return nil
}

// ReadHashes makes the file a tlog.HashReader.
func (t *hashFile) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if _, err := t.f.ReadAt(hashes[i][:], index*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("reading a temporary file: %w", err)
		}
	}
	return hashes, nil
}

// add appends the leaf of position n.
func (t *hashFile) add(n uint64, leaf [32]byte) error {
	hashes, err := tlog.StoredHashesForRecordHash(int64(n), leaf, t)
	if err != nil {
		return err
	}
	index := tlog.StoredHashIndex(0, int64(n))
	for i, h := range hashes {
		if err := t.write(index+int64(i), h); err != nil {
			return err
		}
	}
	return nil
}

// root computes the root of the first n leaves, n not before where the tree
// begins.
func (t *hashFile) root(n uint64) (tlog.Hash, error) {
	if n == 0 {
		return tlog.Hash((&audit.Tree{}).Root()), nil
	}
	return tlog.TreeHash(int64(n), t)
}

// edge returns the hashes the root of n leaves is computed from.
func (t *hashFile) edge(n uint64) ([]tlog.Hash, error) {
	if n == 0 {
		return nil, nil
	}
	var edge []tlog.Hash
	_, err := tlog.TreeHash(int64(n), tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var err error
		edge, err = t.ReadHashes(indexes)
		return edge, err
	}))
	return edge, err
}
