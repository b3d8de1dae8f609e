package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Group is a group of the tenant's directory.
type Group struct {
	Address string
	record.Group
	Written
	// Within are the groups that its members are in by being in it, sorted: the
	// first MaxNamed of them.
	Within []string
}

// Written says when, by whom and as which revision a resource was written.
type Written struct {
	Revision uint32
	Time     time.Time
	Author   string // as a person names them
}

// written reads who wrote a resource out of its event.
func (t *Tenant) written(r store.Reader, s *record.Resource) (Written, error) {
	e, err := audit.Find(r, t.id, s.LastEvent)
	if err != nil {
		return Written{}, err
	}
	return Written{Revision: s.Revision, Time: s.Updated.Time(), Author: e.Event.Principal.Name}, nil
}

// MembershipChange is a principal that joins or leaves a group by an edit, with
// all the groups it is in afterwards and was not before, and the reverse.
type MembershipChange struct {
	Principal     vocab.Principal
	Joins, Leaves []string
}

// GroupChange is a group after an edit, and what the edit changed.
type GroupChange struct {
	Group
	// Changes are the members that joined, then those that left, in order: the
	// first of them if they, or the groups they are in by that, are very many.
	Changes []MembershipChange
	// Total is how many joined or left.
	Total int
}

// Bounds of an answer, so that no client has to take one of any length.
const (
	// MaxNamed is how many groups are named where others are told to be in them.
	MaxNamed = 1_000
	// maxChanges is how many changes of an edit are told, maxChangeBytes how long
	// their names may be together.
	maxChanges     = 1_000
	maxChangeBytes = 512 << 10
	// maxPageBytes ends a page early.
	maxPageBytes = 2 << 20
)

// length is how long names are together.
func length(names []string) (n int) {
	for _, s := range names {
		n += len(s)
	}
	return n
}

// page bounds what goes into one page of a listing.
type page struct {
	limit, items, bytes int
	more                bool // something is left for the next page
}

// fits reports whether an item of a length goes into the page; the first does.
func (p *page) fits(bytes int) bool {
	if p.items == p.limit || p.items > 0 && p.bytes+bytes > maxPageBytes {
		p.more = true
		return false
	}
	p.items++
	p.bytes += bytes
	return true
}

// GetGroup returns a group.
func (t *Tenant) GetGroup(ctx context.Context, address string) (out *Group, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		out, err = t.group(r, address)
		return err
	})
	return out, err
}

// group reads and verifies a group.
func (t *Tenant) group(r store.Reader, address string) (*Group, error) {
	s, err := t.resource(r, record.PrefixGroups+address)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, noGroup(address)
	}
	return t.readGroup(r, s)
}

func (t *Tenant) readGroup(r store.Reader, s *record.Resource) (*Group, error) {
	g, err := record.DecodeGroup(s.Body)
	if err != nil {
		return nil, err
	}
	by, err := t.written(r, s)
	if err != nil {
		return nil, err
	}
	return &Group{Address: s.ID(), Group: *g, Written: by, Within: named(t.within(directory.Group(s.ID())))}, nil
}

// within returns every group that a principal is in.
func (t *Tenant) within(p vocab.Principal) []string {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	return t.live.directory.Groups([]vocab.Principal{p})
}

// named returns the first groups of a list.
func named(groups []string) []string { return groups[:min(len(groups), MaxNamed)] }

func noGroup(address string) error {
	return vocab.Errorf(vocab.ReasonResourceNotFound, "there is no group %s in the tenant's directory", address).WithNext("List the groups")
}

// ListGroups returns up to limit groups after an address, by address, and
// whether there are more; of a member if one is given, those it is in directly.
// It returns fewer if their members are very many.
func (t *Tenant) ListGroups(ctx context.Context, member vocab.Principal, after string, limit int) (out []*Group, more bool, err error) {
	p := page{limit: limit}
	add := func(r store.Reader, s *record.Resource) (bool, error) {
		g, err := t.group(r, s.ID())
		if err != nil || !p.fits(len(s.Body)+length(g.Within)) {
			return false, err
		}
		out = append(out, g)
		return true, nil
	}
	err = t.store.View(ctx, func(r store.Reader) error {
		if member.IsZero() {
			return eachThere(r, t.id, record.PrefixGroups, after, func(s *record.Resource) (bool, error) { return add(r, s) })
		}
		for _, address := range t.directGroups(member) {
			if address <= after {
				continue
			}
			s, err := record.GetResource(r, t.id, record.PrefixGroups+address)
			if err != nil {
				return err
			}
			if s == nil || s.Gone != 0 {
				continue // it was deleted meanwhile
			}
			if goOn, err := add(r, s); err != nil || !goOn {
				return err
			}
		}
		return nil
	})
	return out, p.more, err
}

func (t *Tenant) directGroups(p vocab.Principal) []string {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	return slices.Clone(t.live.directory.DirectGroups(p))
}

// eachThere calls fn with the resources under a prefix that are not deleted,
// after one of them, until it returns false.
func eachThere(r store.Reader, t vocab.TenantID, prefix, after string, fn func(*record.Resource) (bool, error)) error {
	if after != "" {
		after = prefix + after
	}
	return record.ListResources(r, t, prefix, after, func(s *record.Resource) (bool, error) {
		if s.Gone != 0 {
			return true, nil
		}
		return fn(s)
	})
}

// WriteGroup creates a group, or writes it whole. want is the revision the
// caller's edit is based on: 0 creates, and anyRevision overwrites whatever is
// there. With dryRun everything is checked and nothing written. On return the
// members are in force for every decision that begins.
func (t *Tenant) WriteGroup(ctx context.Context, c Call, address string, next record.Group, want uint32, anyRevision, dryRun bool) (*GroupChange, vocab.EventID, error) {
	next.Members = slices.Clone(next.Members)
	slices.SortFunc(next.Members, vocab.Principal.Compare)
	creates := want == 0 && !anyRevision
	return t.editGroup(ctx, c, address, dryRun, func(now *Group) (*record.Group, error) {
		switch {
		case creates && now != nil:
			return nil, vocab.Errorf(vocab.ReasonResourceExists, "there is a group %s already", address).WithNext("Update it, or choose another address")
		case creates:
		case now == nil:
			return nil, noGroup(address)
		case !anyRevision && now.Revision != want:
			return nil, conflict("group", now.Author, now.Revision, want)
		}
		if !policy.PlainText(next.Description, policy.MaxText) {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the description is too long or not plain text in normal form (NFC)")
		}
		return &next, nil
	})
}

// DeleteGroup leaves a tombstone. Where the group is named, in templates or as a
// member of others, nobody is in it any more but whom an identity provider
// vouches for.
func (t *Tenant) DeleteGroup(ctx context.Context, c Call, address string, want uint32, anyRevision, dryRun bool) (*GroupChange, vocab.EventID, error) {
	return t.editGroup(ctx, c, address, dryRun, func(now *Group) (*record.Group, error) {
		switch {
		case now == nil:
			return nil, noGroup(address)
		case !anyRevision && now.Revision != want:
			return nil, conflict("group", now.Author, now.Revision, want)
		}
		return nil, nil
	})
}

// editGroup is the way of every change to a group: edit returns it as it shall
// be, nil to delete it, from what it is, nil if there is none.
func (t *Tenant) editGroup(ctx context.Context, c Call, address string, dryRun bool, edit func(now *Group) (*record.Group, error)) (*GroupChange, vocab.EventID, error) {
	var out *GroupChange
	change := func(r store.Reader, s *record.Resource, e *audit.Event) ([]byte, error) {
		var now *Group
		var before record.Group
		if s != nil {
			var err error
			if now, err = t.readGroup(r, s); err != nil {
				return nil, err
			}
			before = now.Group
		}
		next, err := edit(now)
		if err != nil {
			return nil, err
		}
		after := record.Group{}
		if next != nil {
			after = *next
		}
		joined, left := directory.Diff(before.Members, after.Members)
		if err := t.mayRegroup(c.Caller, directory.Edit{Address: address, Members: after.Members}, joined, left); err != nil {
			return nil, err
		}
		out = &GroupChange{Group: Group{Address: address, Group: after}, Total: len(joined) + len(left)}
		out.Changes = t.membershipChanges(directory.Edit{Address: address, Members: after.Members}, joined, left)
		e.Detail = groupDetail(now == nil, next == nil, joined, left)
		if next == nil {
			return nil, nil
		}
		return next.Encode()
	}
	s, event, err := t.changeResourceOr(ctx, c, audit.KindGroupChanged, record.PrefixGroups+address, change, dryRun)
	if err != nil {
		return nil, vocab.EventID{}, err
	}
	out.Written = Written{Revision: s.Revision, Time: s.Updated.Time(), Author: c.Caller.Name()}
	out.Within = named(t.within(directory.Group(address)))
	return out, event, nil
}

// mayRegroup decides whether the caller may make an edit of a group.
func (t *Tenant) mayRegroup(caller *vocab.Identity, e directory.Edit, joined, left []vocab.Principal) error {
	t.live.mu.RLock()
	err := t.live.directory.CheckGroup(e)
	t.live.mu.RUnlock()
	if err != nil {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the group %s cannot be so: %s", e.Address, err)
	}
	if len(joined)+len(left) == 0 {
		return nil
	}
	w := weight{joined: t.joinsBy(caller, e, joined)}
	if roles := t.rolesOfGroup(e.Address); len(roles) > 0 {
		// Whoever joins or leaves such a group is given a role or loses it,
		// and roles are the tenant-admins' to give.
		if !t.HoldsRole(caller, vocab.RoleTenantAdmin) {
			return vocab.Errorf(vocab.ReasonRoleRequired, "the members of %s hold the role %s: changing them needs the role tenant-admin", e.Address, enumerate(roles)).
				WithNext("Ask a tenant-admin")
		}
		if len(joined) > 0 {
			w.roles = roles
		}
		if slices.Contains(roles, vocab.RoleTenantAdmin) {
			admins, _ := t.holders(vocab.RoleTenantAdmin)
			if err := t.someoneAdministers(caller, admins, e); err != nil {
				return err
			}
		}
	}
	return alone(w)
}

// joinsBy returns the groups the caller would be in by an edit, and is not in
// now. If the provider held back groups it may be in any, so that it would join
// whatever another group joins.
func (t *Tenant) joinsBy(caller *vocab.Identity, e directory.Edit, joined []vocab.Principal) []string {
	known := policy.KnownAs(caller, t.settings.Load().GuestDomains)
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	d := &t.live.directory
	before := d.Groups(known)
	out := slices.DeleteFunc(d.GroupsAfter(e, known), func(g string) bool {
		return slices.Contains(before, g) || slices.Contains(caller.Groups, g)
	})
	ofGroup := func(p vocab.Principal) bool { return p.Kind == vocab.KindGroup }
	if len(out) == 0 && caller.GroupsIncomplete && slices.ContainsFunc(joined, ofGroup) {
		out = []string{e.Address}
	}
	return out
}

// rolesOfGroup returns the roles that whoever is in a group holds by that.
func (t *Tenant) rolesOfGroup(address string) (out []vocab.Role) {
	by := append([]string{address}, t.within(directory.Group(address))...)
	for _, role := range vocab.Roles() {
		holders, _ := t.holders(role)
		if slices.ContainsFunc(by, func(g string) bool { return slices.Contains(holders, directory.Group(g)) }) {
			out = append(out, role)
		}
	}
	return out
}

// membershipChanges tells what an edit that is not made yet changes.
func (t *Tenant) membershipChanges(e directory.Edit, joined, left []vocab.Principal) (out []MembershipChange) {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	d, bytes := &t.live.directory, 0
	for _, p := range slices.Concat(joined, left) {
		known := []vocab.Principal{p}
		before, after := d.Groups(known), d.GroupsAfter(e, known)
		c := MembershipChange{Principal: p, Joins: without(after, before), Leaves: without(before, after)}
		bytes += len(p.Value) + length(c.Joins) + length(c.Leaves)
		if len(out) == maxChanges || bytes > maxChangeBytes {
			break
		}
		out = append(out, c)
	}
	return out
}

// without returns what is only in the first of two sorted lists.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
		_, found := slices.BinarySearch(other, s)
		return found
	})
}

// groupDetail says in the event what happened to a group.
func groupDetail(created, deleted bool, joined, left []vocab.Principal) string {
	var parts []string
	switch {
	case created:
		parts = append(parts, "created")
	case deleted:
		parts = append(parts, "deleted")
	case len(joined)+len(left) == 0:
		parts = append(parts, "described anew")
	}
	for _, list := range []struct {
		word string
		who  []vocab.Principal
	}{{"joined", joined}, {"left", left}} {
		if n := len(list.who); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s: %s", n, list.word, enumerate(list.who)))
		}
	}
	return strings.Join(parts, "; ")
}

// enumerate lists up to ten things for people.
func enumerate[T any](list []T) string {
	const most = 10
	var parts []string
	for _, v := range list[:min(len(list), most)] {
		parts = append(parts, fmt.Sprint(v))
	}
	s := strings.Join(parts, ", ")
	if n := len(list) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}
