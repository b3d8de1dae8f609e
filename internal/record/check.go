package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Check reads every record of a tenant and compares it with its indexes and
// counts. It reports each finding and returns how many records it read. The
// error is one that kept it from finishing.
func Check(r store.Reader, t vocab.TenantID, found func(error)) (int64, error) {
	c := &checker{r: r, t: t, found: found, counts: map[string]int64{}}
	for _, step := range []func() error{c.licenses, c.indexes, c.countRows, c.templates, c.slugs, c.uses, c.requests, c.progress, c.history, c.others} {
		if err := step(); err != nil {
			return c.records, err
		}
	}
	return c.records, nil
}

type checker struct {
	r       store.Reader
	t       vocab.TenantID
	found   func(error)
	records int64
	counts  map[string]int64 // what the count rows must be
}

func (c *checker) problem(format string, args ...any) {
	c.found(fmt.Errorf("tenant %s: %s", c.t, fmt.Sprintf(format, args...)))
}

// licenses checks that every license can be read and is in its indexes.
func (c *checker) licenses() error {
	for item, err := range c.r.Scan(tableLicenses, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		c.records++
		if len(item.Key) != 32 {
			c.problem("%s has a key that cannot be", tableLicenses)
			continue
		}
		id := vocab.ContentID(item.Key[16:])
		l, err := GetLicense(c.r, c.t, id)
		if err == nil {
			err = eachIndex(c.t, l, func(table store.Table, prefix []byte) error {
				c.counts[string(countKey(table, prefix))]++
				_, there, err := c.r.Get(table, append(bytes.Clone(prefix), id[:]...))
				if err == nil && !there {
					c.problem("license %s is missing from %s", id, table)
				}
				return err
			})
		}
		if err != nil {
			c.problem("license %s: %v", id, err)
		}
	}
	return nil
}

// indexes checks that every entry of an index leads to a license that belongs
// there.
func (c *checker) indexes() error {
	for _, table := range []store.Table{tableByOwner, tableByTemplate, tableByGeneration, tableByKeyVersion, tableByCustody} {
		for item, err := range c.r.Scan(table, store.Range{Prefix: key(c.t)}) {
			if err != nil {
				return err
			}
			if len(item.Key) < 32 {
				c.problem("%s has a key that cannot be", table)
				continue
			}
			id, belongs := vocab.ContentID(item.Key[len(item.Key)-16:]), false
			if l, err := GetLicense(c.r, c.t, id); err == nil && l != nil {
				err = eachIndex(c.t, l, func(of store.Table, prefix []byte) error {
					belongs = belongs || of == table && bytes.Equal(prefix, item.Key[:len(item.Key)-16])
					return nil
				})
				if err != nil {
					continue // found with the license
				}
			}
			if !belongs {
				c.problem("%s lists license %s, which does not belong there", table, id)
			}
		}
	}
	return nil
}

// countRows checks the counts against what the licenses add up to.
func (c *checker) countRows() error {
	for item, err := range c.r.Scan(tableCounts, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		if len(item.Value) != 8 {
			c.problem("a count cannot be read")
			continue
		}
		got, want := int64(binary.BigEndian.Uint64(item.Value)), c.counts[string(item.Key)]
		if got != want {
			c.problem("a count of %s says %d, the licenses are %d", countName(item.Key), got, want)
		}
		delete(c.counts, string(item.Key))
	}
	for k, n := range c.counts {
		c.problem("a count of %s is missing, the licenses are %d", countName([]byte(k)), n)
	}
	return nil
}

// countName is the index a count row is of.
func countName(k []byte) string {
	name, _, _ := bytes.Cut(k[16:], []byte{0})
	return string(name)
}

// templates checks that every head has all its revisions, and no newer ones.
func (c *checker) templates() error {
	heads := map[vocab.TemplateUID]*TemplateHead{} // nil: there, but cannot be read
	for item, err := range c.r.Scan(tableTemplates, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		c.records++
		if len(item.Key) != 32 {
			c.problem("%s has a key that cannot be", tableTemplates)
			continue
		}
		uid := vocab.TemplateUID(item.Key[16:])
		head, err := GetTemplate(c.r, c.t, uid)
		heads[uid] = head
		if err != nil {
			c.problem("template %s: %v", uid, err)
			continue
		}
		if found, err := FindTemplate(c.r, c.t, head.Slug); err != nil || found != uid {
			c.problem("the name %q does not lead to its template %s", head.Slug, uid)
		}
	}
	newest := map[vocab.TemplateUID]uint32{}
	for item, err := range c.r.Scan(tableRevisions, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != 36 {
			c.problem("%s has a key that cannot be", tableRevisions)
			continue
		}
		uid, n := vocab.TemplateUID(item.Key[16:32]), binary.BigEndian.Uint32(item.Key[32:])
		if _, known := heads[uid]; !known {
			c.problem("revision %d is of template %s, which is not there", n, uid)
			heads[uid] = nil
		}
		if n != newest[uid]+1 {
			c.problem("revision %d of template %s is missing", newest[uid]+1, uid)
		}
		newest[uid] = n
	}
	for uid, head := range heads {
		switch {
		case head == nil:
		case newest[uid] < head.Revision:
			c.problem("revision %d of template %q is missing", head.Revision, head.Slug)
		case newest[uid] > head.Revision:
			c.problem("template %q was put back: revision %d is there, %d is current", head.Slug, newest[uid], head.Revision)
		}
	}
	return nil
}

// slugs checks that every name leads to the template that bears it.
func (c *checker) slugs() error {
	for item, err := range c.r.Scan(tableSlugs, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		slug := string(item.Key[16:])
		var head *TemplateHead
		uid, err := FindTemplate(c.r, c.t, slug)
		if err == nil {
			head, err = GetTemplate(c.r, c.t, uid)
		}
		switch {
		case err != nil:
			c.problem("the name %q: %v", slug, err)
		case head == nil || head.Slug != slug:
			c.problem("the name %q leads to template %s, which does not bear it", slug, uid)
		}
	}
	return nil
}

// uses checks that every use license that was given out is of a license, is
// found by whose it is, and will be forgotten.
func (c *checker) uses() error {
	for item, err := range c.r.Scan(tableUses, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != useKey {
			c.problem("%s has a key that cannot be", tableUses)
			continue
		}
		id := vocab.ContentID(item.Key[16:32])
		if _, there, err := c.r.Get(tableLicenses, item.Key[:32]); err != nil {
			return err
		} else if !there {
			c.problem("a use license is of license %s, which is not there", id)
		}
		day := dayOf(binary.BigEndian.Uint64(item.Key[32:]))
		if _, there, err := c.r.Get(tableUsesByDay, key(c.t, u32(day), id[:])); err != nil {
			return err
		} else if !there {
			c.problem("a use license of license %s is missing from %s", id, tableUsesByDay)
		}
		u, err := decodeUse(item.Value)
		if err != nil {
			c.problem("a use license of license %s: %v", id, err)
		}
		for _, p := range u.Of {
			content, _, err := c.r.Get(tableUsesByPrincipal, byPrincipal(item.Key, p))
			if err != nil {
				return err
			}
			if !bytes.Equal(content, id[:]) {
				c.problem("a use license of license %s is missing from %s", id, tableUsesByPrincipal)
			}
		}
	}
	if err := c.usesByPrincipal(); err != nil {
		return err
	}
	for item, err := range c.r.Scan(tableUsesByDay, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != 36 {
			c.problem("%s has a key that cannot be", tableUsesByDay)
		}
	}
	return nil
}

// usesByPrincipal checks that every entry of the index leads to a use license of
// that principal.
func (c *checker) usesByPrincipal() error {
	for item, err := range c.r.Scan(tableUsesByPrincipal, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != useKey || len(item.Value) != 16 {
			c.problem("%s has a row that cannot be", tableUsesByPrincipal)
			continue
		}
		b, _, err := c.r.Get(tableUses, key(c.t, item.Value, item.Key[32:]))
		if err != nil {
			return err
		}
		belongs := func(p vocab.Principal) bool { return bytes.Equal(ownerKey(p), item.Key[16:32]) }
		if u, err := decodeUse(b); err == nil && !slices.ContainsFunc(u.Of, belongs) {
			c.problem("%s lists a use license of license %s, which does not belong there", tableUsesByPrincipal, vocab.ContentID(item.Value))
		}
	}
	return nil
}

// requests checks that every request can be read and will be forgotten.
func (c *checker) requests() error {
	for item, err := range c.r.Scan(tableRequests, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		var q Request
		if _, err := get(c.r, tableRequests, item.Key, &q); err != nil {
			c.problem("a request: %v", err)
			continue
		}
		if _, there, err := c.r.Get(tableRequestsByTime, key(c.t, u64(uint64(q.At)), item.Key[16:])); err != nil {
			return err
		} else if !there {
			c.problem("a request for license %s is missing from %s", q.Content, tableRequestsByTime)
		}
	}
	return nil
}

// progress checks that what is half done belongs to an operation that goes on.
func (c *checker) progress() error {
	for item, err := range c.r.Scan(tableProgress, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != 32 {
			c.problem("%s has a key that cannot be", tableProgress)
			continue
		}
		id := vocab.OperationID(item.Key[16:])
		if _, err := GetProgress(c.r, c.t, id); err != nil {
			c.problem("the progress of operation %s: %v", id, err)
		}
		s, err := GetResource(c.r, c.t, OperationName(id))
		if err != nil {
			continue // found with the resources
		}
		if s == nil {
			c.problem("there is progress of operation %s, which is not there", id)
		} else if o, err := operation.Decode(s.Body); err == nil && o.State.Ended() {
			c.problem("there is progress of operation %s, which has ended", id)
		}
	}
	return nil
}

// others checks that the small tables can be read.
func (c *checker) others() error {
	if _, err := GetSettings(c.r, c.t); err != nil {
		c.problem("settings: %v", err)
	}
	if err := c.keyUses(); err != nil {
		return err
	}
	return c.resources()
}

// resources checks that every resource can be read. Whether one is missing, the
// log knows.
func (c *checker) resources() error {
	if _, err := Epoch(c.r, c.t); err != nil {
		c.problem("epoch: %v", err)
	}
	for item, err := range c.r.Scan(tableResources, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		c.records++
		name := string(item.Key[16:])
		s, err := GetResource(c.r, c.t, name)
		if err == nil {
			err = s.check()
		}
		if err != nil {
			c.problem("%s: %v", name, err)
		}
	}
	return nil
}
