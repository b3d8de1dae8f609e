package faults_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// disk is what a trace did to the files of a directory, as a machine that may
// lose power must be assumed to have it: what was synced is there; of what was
// written since, any part may be, in any order.
//
// A directory is durable when it has been made; its entries are when it has
// been synced. Until then a prefix of its changes may be there: file systems
// keep those in order.
type disk struct {
	root  string
	files map[string]*file      // by path, as the process sees them
	dirs  map[string]*directory // by path
	fds   map[int64]*descriptor
	syncs map[*syscall]func() // of the calls under way: what they make durable
	err   error               // of the trace: something this model does not know
}

type file struct {
	durable []byte
	pending []*write
}

// write is one call that changes a file: a truncation if data is nil.
type write struct {
	offset int64
	data   []byte
	size   int64
	done   bool
}

type directory struct {
	durable map[string]*file
	pending []change
}

// change is a change of directory entries: all of it or nothing.
type change struct {
	add, remove string
	file        *file
}

type descriptor struct {
	path   string
	file   *file
	dir    *directory
	offset int64
}

func newDisk(root string) *disk {
	return &disk{
		root: root, files: map[string]*file{}, dirs: map[string]*directory{},
		fds: map[int64]*descriptor{}, syncs: map[*syscall]func(){},
	}
}

func (d *disk) fail(c *syscall, why string) {
	if d.err == nil {
		d.err = fmt.Errorf("the model of the disk: %s: %s", c.name, why)
	}
}

func (d *disk) dir(path string) *directory {
	if d.dirs[path] == nil {
		d.dirs[path] = &directory{durable: map[string]*file{}}
	}
	return d.dirs[path]
}

func (d *disk) inside(path string) bool {
	return path == d.root || strings.HasPrefix(path, d.root+"/")
}

// apply takes a step in and reports whether it concerns the disk.
func (d *disk) apply(s step) bool {
	c := s.syscall
	switch c.name {
	case "openat":
		if s.exit && !c.failed && c.args[0] == "AT_FDCWD" && d.inside(c.args[1]) {
			d.open(c)
			return true
		}
		if s.exit && !c.failed {
			delete(d.fds, c.result)
		}
	case "accept4":
		if s.exit && !c.failed {
			delete(d.fds, c.result)
		}
	case "close":
		if !s.exit {
			delete(d.fds, c.number(0))
		}
	case "renameat", "rename", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat":
		return !s.exit && d.changeEntries(c)
	case "open", "creat", "truncate", "io_uring_setup":
		d.fail(c, "not expected of a Go program")
	default:
		if len(c.args) == 0 {
			return false
		}
		n := c.number(0)
		if c.name == "mmap" && len(c.args) > 4 {
			n = c.number(4)
		}
		if fd := d.fds[n]; fd != nil {
			return d.onFile(s, fd)
		}
	}
	return false
}

func (d *disk) open(c *syscall) {
	path, flags := c.args[1], c.args[2]
	fd := &descriptor{path: path}
	d.fds[c.result] = fd
	f := d.files[path]
	switch {
	case f == nil && strings.Contains(flags, "O_CREAT"):
		f = &file{}
		d.files[path] = f
		parent := d.dir(filepath.Dir(path))
		parent.pending = append(parent.pending, change{add: filepath.Base(path), file: f})
	case f == nil:
		fd.dir = d.dir(path)
		return
	case strings.Contains(flags, "O_TRUNC"):
		f.pending = append(f.pending, &write{done: true})
	}
	if strings.Contains(flags, "O_APPEND") {
		d.fail(c, "append")
	}
	fd.file = f
}

// changeEntries takes changes of names in when they are asked for: from then on
// they may have happened.
func (d *disk) changeEntries(c *syscall) bool {
	var paths []string
	for _, a := range c.args {
		if strings.HasPrefix(a, "/") {
			paths = append(paths, a)
		}
	}
	if len(paths) == 0 || !d.inside(paths[0]) {
		return false
	}
	f, parent := d.files[paths[0]], d.dir(filepath.Dir(paths[0]))
	name := filepath.Base(paths[0])
	switch {
	case strings.HasPrefix(c.name, "mkdir"):
	case f == nil:
		return false // a name that is not there, or a socket
	case strings.HasPrefix(c.name, "unlink"):
		parent.pending = append(parent.pending, change{remove: name})
		delete(d.files, paths[0])
	case len(paths) != 2 || filepath.Dir(paths[0]) != filepath.Dir(paths[1]):
		d.fail(c, "across directories")
	case strings.HasPrefix(c.name, "rename"):
		parent.pending = append(parent.pending, change{add: filepath.Base(paths[1]), remove: name, file: f})
		d.files[paths[1]] = f
		delete(d.files, paths[0])
	default: // link
		parent.pending = append(parent.pending, change{add: filepath.Base(paths[1]), file: f})
		d.files[paths[1]] = f
	}
	return true
}

func (d *disk) onFile(s step, fd *descriptor) bool {
	c := s.syscall
	switch c.name {
	case "pwrite64", "write", "ftruncate":
		if fd.file == nil {
			d.fail(c, "writes a directory")
			return false
		}
		if s.exit {
			w := fd.file.pending[slices.IndexFunc(fd.file.pending, func(w *write) bool { return !w.done })]
			w.done = true
			if c.failed || w.data != nil && c.result != int64(len(w.data)) {
				d.fail(c, "it failed, or wrote less than it was given")
			}
			return true
		}
		if slices.ContainsFunc(fd.file.pending, func(w *write) bool { return !w.done }) {
			d.fail(c, "two writes of one file at the same time")
		}
		w := &write{}
		switch c.name {
		case "ftruncate":
			w.size = c.number(1)
		case "pwrite64":
			w.data, w.offset = []byte(c.args[1]), c.number(3)
		case "write":
			w.data, w.offset = []byte(c.args[1]), fd.offset
			fd.offset += int64(len(w.data))
		}
		if w.data != nil && int64(len(w.data)) != c.number(2) {
			d.fail(c, "its data is not all in the trace")
		}
		fd.file.pending = append(fd.file.pending, w)
	case "fsync", "fdatasync":
		if !s.exit {
			// What had been written when it began is durable when it ends.
			d.syncs[c] = d.covers(fd)
			return true
		}
		if !c.failed {
			d.syncs[c]()
		}
		delete(d.syncs, c)
	case "mmap":
		if !strings.Contains(c.args[2], "PROT_WRITE") {
			return false
		}
		d.fail(c, "it maps a file for writing")
	case "lseek":
		if c.number(1) != 0 {
			d.fail(c, "it moves in a file")
		}
		return false
	default:
		d.fail(c, "not expected on these files")
	}
	return true
}

func (d *disk) covers(fd *descriptor) func() {
	if dir := fd.dir; dir != nil {
		n := len(dir.pending)
		return func() {
			for _, ch := range dir.pending[:n] {
				ch.apply(dir.durable)
			}
			dir.pending = slices.Clone(dir.pending[n:])
		}
	}
	f := fd.file
	covered := map[*write]bool{}
	for _, w := range f.pending {
		covered[w] = w.done
	}
	return func() {
		var left []*write
		for _, w := range f.pending {
			if covered[w] {
				f.durable = w.apply(f.durable)
			} else {
				left = append(left, w)
			}
		}
		f.pending = left
	}
}

func (ch change) apply(names map[string]*file) {
	if ch.remove != "" {
		delete(names, ch.remove)
	}
	if ch.add != "" {
		names[ch.add] = ch.file
	}
}

func (w *write) apply(b []byte) []byte {
	size := w.size
	if w.data != nil {
		size = max(int64(len(b)), w.offset+int64(len(w.data)))
	}
	if size < int64(len(b)) {
		b = b[:size]
	}
	if size > int64(len(b)) {
		old := len(b)
		b = slices.Grow(b, int(size)-old)[:size]
		clear(b[old:])
	}
	copy(b[w.offset:], w.data)
	return b
}

// unsynced counts the writes that a power cut could take away now.
func (d *disk) unsynced() (n int) {
	for _, f := range d.files {
		n += len(f.pending)
	}
	return n
}

// survival says what of the unsynced a power cut leaves.
type survival int

const (
	nothing survival = iota // it is all gone
	half                    // each write is there with even odds
	torn                    // so, and of one write only some sectors, or some bytes
)

func (s survival) String() string {
	return [...]string{"nothing unsynced", "half of the unsynced", "a torn page"}[s]
}

// cut writes the directory as a power cut would leave it now to dir.
func (d *disk) cut(dir string, s survival, rng *rand.Rand) error {
	var tear *write
	if s == torn {
		var all []*write
		for _, f := range d.files {
			for _, w := range f.pending {
				if w.data != nil {
					all = append(all, w)
				}
			}
		}
		slices.SortFunc(all, func(a, b *write) int { return int(a.offset - b.offset) })
		if len(all) > 0 {
			tear = all[rng.IntN(len(all))]
			if rng.IntN(2) == 0 { // often the page that makes the others count
				tear = all[0]
			}
		}
	}
	for path, entries := range d.dirs {
		names := map[string]*file{}
		maps.Copy(names, entries.durable)
		if s != nothing {
			for _, ch := range entries.pending[:rng.IntN(len(entries.pending)+1)] {
				ch.apply(names)
			}
		}
		to := filepath.Join(dir, strings.TrimPrefix(path, d.root))
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		for name, f := range names {
			content := slices.Clone(f.durable)
			for _, w := range f.pending {
				switch {
				case w == tear:
					content = tearOf(w, content, rng).apply(content)
				case s != nothing && rng.IntN(2) == 0:
					content = w.apply(content)
				}
			}
			if err := writeSparse(filepath.Join(to, name), content); err != nil {
				return err
			}
		}
	}
	return nil
}

// tearOf returns what is left of a write that was cut short: some of its
// sectors, or its beginning to the byte.
func tearOf(w *write, content []byte, rng *rand.Rand) *write {
	end := w.offset + int64(len(w.data))
	old := make([]byte, len(w.data))
	if w.offset < int64(len(content)) {
		copy(old, content[w.offset:min(end, int64(len(content)))])
	}
	const sector = 512
	next := slices.Clone(w.data)
	if rng.IntN(2) == 0 {
		n := rng.IntN(min(len(next), 4096))
		copy(next[n:], old[n:])
		return &write{offset: w.offset, data: next}
	}
	for at := 0; at < len(next); at += sector {
		if rng.IntN(2) == 0 {
			copy(next[at:min(at+sector, len(next))], old[at:])
		}
	}
	return &write{offset: w.offset, data: next}
}

// writeSparse leaves holes where there is nothing: stores grow in big steps.
func writeSparse(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(len(content))); err != nil {
		return err
	}
	const page = 4096
	zero := make([]byte, page)
	for at := 0; at < len(content); at += page {
		p := content[at:min(at+page, len(content))]
		if bytes.Equal(p, zero[:len(p)]) {
			continue
		}
		if _, err := f.WriteAt(p, int64(at)); err != nil {
			return err
		}
	}
	return nil
}
