package record

import (
	"bytes"
	"encoding/binary"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// What decided must be readable as long as the event that tells of it. A
// template keeps its revisions; of licenses the policies are kept that an edit
// replaced, each under its own hash, which the events hold; of settings the
// earlier revisions. No key is kept with them: what is here opens nothing.

// keepPolicy keeps the policy of a license that is being replaced.
func keepPolicy(tx store.Tx, t vocab.TenantID, old, next *License) error {
	if bytes.Equal(old.Policy, next.Policy) {
		return nil
	}
	hash := license.PolicyHash(old.Policy)
	return tx.Put(tablePolicies, key(t, old.Content[:], hash[:]), old.Policy)
}

// GetPolicy returns the encoded policy with the given hash that a license has
// or had; nil if it never had one, as far as is known.
func GetPolicy(r store.Reader, t vocab.TenantID, c vocab.ContentID, hash [32]byte) ([]byte, error) {
	l, err := GetLicense(r, t, c)
	if err != nil {
		return nil, err
	}
	if l != nil && license.PolicyHash(l.Policy) == hash {
		return l.Policy, nil
	}
	b, ok, err := r.Get(tablePolicies, key(t, c[:], hash[:]))
	if err != nil || !ok {
		return nil, err
	}
	if license.PolicyHash(b) != hash {
		return nil, damaged(tablePolicies, nil)
	}
	return b, nil
}

// keepSettings keeps the settings that are being replaced. The defaults, which
// nobody wrote, need not be kept.
func keepSettings(tx store.Tx, t vocab.TenantID, next Settings) error {
	b, ok, err := tx.Get(tableSettings, key(t))
	if err != nil || !ok {
		return err
	}
	old, err := GetSettings(tx, t)
	if err != nil || old.Revision == next.Revision {
		return err
	}
	return tx.Put(tableOldSettings, key(t, u32(old.Revision)), b)
}

// GetSettingsRevision returns the settings as they were at a revision, and
// whether they are known; revision 0 are the defaults.
func GetSettingsRevision(r store.Reader, t vocab.TenantID, revision uint32) (Settings, bool, error) {
	now, err := GetSettings(r, t)
	switch {
	case err != nil:
		return Settings{}, false, err
	case now.Revision == revision:
		return now, true, nil
	case revision == 0:
		return DefaultSettings(), true, nil
	}
	var f settingsForm
	ok, err := get(r, tableOldSettings, key(t, u32(revision)), &f)
	if err != nil || !ok {
		return Settings{}, false, err
	}
	s, err := f.settings()
	if err == nil && s.Revision != revision {
		err = damaged(tableOldSettings, nil)
	}
	return s, err == nil, err
}

// history checks that earlier policies and settings can be read, and that no
// earlier settings are missing.
func (c *checker) history() error {
	for item, err := range c.r.Scan(tablePolicies, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != 64 {
			c.problem("%s has a key that cannot be", tablePolicies)
			continue
		}
		id := vocab.ContentID(item.Key[16:32])
		if hash := license.PolicyHash(item.Value); !bytes.Equal(hash[:], item.Key[32:]) {
			c.problem("an earlier policy of license %s is not what it was", id)
		}
		if _, there, err := c.r.Get(tableLicenses, item.Key[:32]); err != nil {
			return err
		} else if !there {
			c.problem("an earlier policy is of license %s, which is not there", id)
		}
	}
	now, err := GetSettings(c.r, c.t)
	if vocab.ReasonOf(err) == vocab.ReasonStoreDamaged {
		return nil // found with the small tables
	}
	if err != nil {
		return err
	}
	next := uint32(1)
	for item, err := range c.r.Scan(tableOldSettings, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != 20 {
			c.problem("%s has a key that cannot be", tableOldSettings)
			continue
		}
		n := binary.BigEndian.Uint32(item.Key[16:])
		if n != next {
			c.problem("revision %d of the settings is missing", next)
		}
		next = n + 1
		if n >= now.Revision {
			c.problem("the settings were put back: revision %d is there, %d is current", n, now.Revision)
		} else if _, _, err := GetSettingsRevision(c.r, c.t, n); err != nil {
			c.problem("revision %d of the settings: %v", n, err)
		}
	}
	if next < now.Revision {
		c.problem("revision %d of the settings is missing", next)
	}
	return nil
}
