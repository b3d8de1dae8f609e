package contexts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/vocab"
)

// FolderVariable names the environment variable that moves the folder.
const FolderVariable = "RMS_CONFIG_DIR"

// Folder is a folder of contexts. It need not exist before something is
// written. Processes may share it: files are replaced whole, and changes that
// read first are made under a lock.
type Folder struct{ path string }

// At returns the folder at path.
func At(path string) Folder { return Folder{path} }

// Default returns the folder of [FolderVariable], otherwise rmsctl in the
// user's folder for configuration.
func Default() (Folder, error) {
	if p := os.Getenv(FolderVariable); p != "" {
		return At(p), nil
	}
	p, err := os.UserConfigDir()
	if err != nil {
		return Folder{}, invalid("there is no folder for contexts: %v", err).
			WithNext("Set %s to a folder of yours", FolderVariable).Because(err)
	}
	return At(filepath.Join(p, "rmsctl")), nil
}

// Path returns where the folder is.
func (d Folder) Path() string { return d.path }

// SignInPath returns where the sign-in of a context is kept.
func (d Folder) SignInPath(name string) string { return d.in("tokens", name+".json") }

// CheckpointPath returns where the last good checkpoint of a context is kept.
func (d Folder) CheckpointPath(name string) string { return d.in("checkpoints", name) }

// TemplatesPath returns where a context keeps which revisions of templates its
// user last wrote or read as files.
func (d Folder) TemplatesPath(name string) string { return d.in("templates", name+".json") }

// GroupsPath is TemplatesPath for groups.
func (d Folder) GroupsPath(name string) string { return d.in("groups", name+".json") }

func (d Folder) contextPath(name string) string { return d.in("contexts", name+suffix) }

func (d Folder) in(parts ...string) string {
	return filepath.Join(append([]string{d.path}, parts...)...)
}

const suffix = ".yaml"

// Names lists the contexts in order; a folder that does not exist has none.
func (d Folder) Names() ([]string, error) {
	entries, err := os.ReadDir(d.in("contexts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, invalid("the contexts cannot be listed: %v", err).Because(err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && vocab.ValidSlug(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// All reads every context, in the order of their names.
func (d Folder) All() ([]*Context, error) {
	names, err := d.Names()
	if err != nil {
		return nil, err
	}
	all := make([]*Context, 0, len(names))
	for _, name := range names {
		c, err := d.Read(name)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// Read returns a context: RESOURCE_NOT_FOUND if there is none of that name,
// CONFIGURATION_INVALID if others could have written it or it does not parse.
func (d Folder) Read(name string) (*Context, error) {
	missing := vocab.Errorf(vocab.ReasonResourceNotFound, "there is no context %q", clip(name)).
		WithNext("See: rmsctl context list")
	if !vocab.ValidSlug(name) {
		return nil, missing
	}
	b, err := readPrivate(d.contextPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	c, err := Parse(name, b)
	if err != nil {
		return nil, err
	}
	c.folder = d.path
	return c, nil
}

// Write makes the context durable under its name. It replaces a context of
// that name.
func (d Folder) Write(c *Context) error {
	b, err := c.Encode()
	if err != nil {
		return err
	}
	if err := WritePrivate(d.contextPath(c.Name), b); err != nil {
		return err
	}
	c.folder = d.path
	return nil
}

// Update reads a context, lets fn change it and writes it back, one process
// at a time. fn's error leaves everything as it was.
func (d Folder) Update(name string, fn func(*Context) error) error {
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	c, err := d.Read(name)
	if err != nil {
		return err
	}
	if err := fn(c); err != nil {
		return err
	}
	return d.Write(c)
}

// Delete removes a context with its sign-in and what is remembered for it.
func (d Folder) Delete(name string) error {
	if _, err := os.Lstat(d.contextPath(name)); !vocab.ValidSlug(name) || errors.Is(err, fs.ErrNotExist) {
		return vocab.Errorf(vocab.ReasonResourceNotFound, "there is no context %q", clip(name)).
			WithNext("See: rmsctl context list")
	}
	paths := []string{d.SignInPath(name), d.CheckpointPath(name), d.TemplatesPath(name), d.GroupsPath(name), d.contextPath(name)}
	if current, err := d.Current(); err == nil && current == name {
		paths = append(paths, d.in("current"))
	}
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return invalid("context %s was not removed completely: %v", name, err).Because(err)
		}
	}
	return nil
}

// Current returns the name of the context used when none is named: the one
// chosen with Use, otherwise the only one there is, otherwise "".
func (d Folder) Current() (string, error) {
	b, err := readPrivate(d.in("current"))
	if err == nil {
		if name := strings.TrimSpace(string(b)); vocab.ValidSlug(name) {
			return name, nil
		}
		return "", invalid("%s does not name a context", d.in("current")).WithNext("Choose one: rmsctl context use NAME")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	names, err := d.Names()
	if err != nil || len(names) != 1 {
		return "", err
	}
	return names[0], nil
}

// Use makes a context the current one.
func (d Folder) Use(name string) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	if !slices.Contains(names, name) {
		return vocab.Errorf(vocab.ReasonResourceNotFound, "there is no context %q", clip(name)).
			WithNext("See: rmsctl context list")
	}
	return WritePrivate(d.in("current"), []byte(name+"\n"))
}

// readPrivate reads a bounded file that only its owner can write. A missing
// file is [fs.ErrNotExist].
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, invalid("%v", err).Because(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, invalid("%v", err).Because(err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o022 != 0 {
		return nil, invalid("%s could be written by others, so it is not trusted", path).
			WithNext("Look at it, then: chmod 600 %s", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, invalid("%v", err).Because(err)
	}
	if len(b) > MaxFile {
		return nil, invalid("%s is larger than %d bytes", path, MaxFile)
	}
	return b, nil
}

// WritePrivate replaces a file whole, durably, for its owner alone, and makes
// the folders above it as needed. A crash leaves the old file or the new one.
func WritePrivate(path string, b []byte) (err error) {
	fail := func(err error) error {
		return invalid("%s was not written: %v", path, err).Because(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(b); err != nil {
		return fail(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fail(err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fail(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fail(fmt.Errorf("syncing the folder: %w", err))
	}
	return nil
}
