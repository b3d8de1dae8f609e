package rmsctl

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/vocab"
)

// readFiles reads all files that apply was given before anything is decided:
// files, and the *.yaml files of folders. Nothing may be in two of them.
func readFiles[T any](paths []string, noun string, parse func([]byte) ([]T, error), id func(T) string) ([]T, error) {
	var files []string
	for _, p := range paths {
		st, err := os.Stat(p) //nolint:gosec // a file that the user named
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			files = append(files, p)
			continue
		}
		found, err := filepath.Glob(filepath.Join(p, "*.y*ml"))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, usagef("%s holds no *.yaml files", p)
		}
		files = append(files, found...)
	}
	var all []T
	from := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f) //nolint:gosec // a file that the user named
		if err != nil {
			return nil, err
		}
		list, err := parse(b)
		if err != nil {
			if e, ok := errors.AsType[*vocab.Error](err); ok {
				return nil, vocab.Errorf(e.Reason, "%s: %s", f, e.Message).WithNext("%s", e.Next).Because(err)
			}
			return nil, err
		}
		for _, t := range list {
			if other, ok := from[id(t)]; ok {
				return nil, usagef("%s %s is in %s and in %s", noun, id(t), other, f)
			}
			from[id(t)] = f
		}
		all = append(all, list...)
	}
	return all, nil
}

// bases is which revision of something the user last wrote or exported, by its
// ID. It is remembered for each context: files are edited without it, and an
// edit that others made in between must not be lost unseen.
type bases map[string]uint32

// readBases reads what is remembered at a path. Memory that is not there, or
// cannot be read, protects nothing and hinders nothing.
func (a *app) readBases(path string) bases {
	known := bases{}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return known
	}
	if err != nil || json.Unmarshal(b, &known) != nil {
		a.warnf("%s cannot be read: changes of others are not noticed", path)
		return bases{}
	}
	return known
}

func (a *app) remember(path string, revisions map[string]uint32) {
	known := a.readBases(path)
	before := maps.Clone(known)
	maps.Copy(known, revisions)
	if maps.Equal(known, before) {
		return
	}
	b, err := json.MarshalIndent(known, "", "  ")
	if err == nil {
		err = contexts.WritePrivate(path, append(b, '\n'))
	}
	if err != nil {
		a.warnf("%v", err)
	}
}
