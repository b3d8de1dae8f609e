package tenant

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// destroyBasis is everything that a destruction rests on: the target as it
// stands, and all that depends on it. Its hash is part of what is approved, and
// is made again in the transaction that destroys (docs/formats.md §15).
type destroyBasis struct {
	Target string `cbor:"1,keyasint"` // its resource's name, with /versions/N of a version
	// Of a key or version: the key as it stands.
	Key       vocab.CustodianID `cbor:"2,keyasint"`
	State     uint8             `cbor:"3,keyasint"`
	Since     record.Millis     `cbor:"4,keyasint"`
	Available uint32            `cbor:"5,keyasint"` // the oldest version that the custodian has
	// Versions are those that go, the newest first.
	Versions []basisVersion `cbor:"6,keyasint"`
	// Generations are the one that goes, or those that the versions wrap.
	Generations []basisGeneration `cbor:"7,keyasint"`
	Backups     []basisBackup     `cbor:"8,keyasint"` // by ID
}

type basisVersion struct {
	Number  uint32          `cbor:"1,keyasint"`
	State   uint8           `cbor:"2,keyasint"`
	Since   record.Millis   `cbor:"3,keyasint"`
	Gone    record.Millis   `cbor:"4,keyasint"`
	Strict  uint64          `cbor:"5,keyasint"` // licenses with a generation of their own
	First   vocab.ContentID `cbor:"6,keyasint"`
	Last    vocab.ContentID `cbor:"7,keyasint"`
	Emptied record.Millis   `cbor:"8,keyasint"` // when the last that depended on it left
}

type basisGeneration struct {
	Number   uint32             `cbor:"1,keyasint"`
	ID       vocab.GenerationID `cbor:"2,keyasint"`
	State    uint8              `cbor:"3,keyasint"`
	Since    record.Millis      `cbor:"4,keyasint"`
	Key      vocab.CustodianID  `cbor:"5,keyasint"`
	Version  uint32             `cbor:"6,keyasint"`
	Licenses uint64             `cbor:"7,keyasint"`
	First    vocab.ContentID    `cbor:"8,keyasint"`
	Last     vocab.ContentID    `cbor:"9,keyasint"`
	Emptied  record.Millis      `cbor:"10,keyasint"`
}

type basisBackup struct {
	ID        string        `cbor:"1,keyasint"`
	KeptUntil record.Millis `cbor:"2,keyasint"`
}

// destroyBasis says what the destruction of a target rests on, and what is in its
// way.
func (inv *Inventory) destroyBasis(target KeyTarget, now time.Time) (*destroyBasis, Safety, error) {
	b := &destroyBasis{Target: target.resource()}
	if target.Generation > 0 {
		i := slices.IndexFunc(inv.Generations, func(g InventoryGeneration) bool { return g.Number == target.Generation })
		if i < 0 {
			return nil, Safety{}, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no such generation").WithNext("See rmsctl key inventory")
		}
		g := &inv.Generations[i]
		b.add(g)
		b.backups(inv.backupsWith(g.ID, now))
		return b, g.Safety, nil
	}
	k := inv.keys[target.Key]
	if k == nil {
		return nil, Safety{}, noKey()
	}
	b.Key, b.State, b.Since, b.Available = k.ID, k.State, k.Since, k.RootMin
	var safety *Safety
	for i := range inv.Versions {
		v := &inv.Versions[i]
		if v.Key != target.Key || target.Version > 0 && v.Number != target.Version {
			continue
		}
		safety = &v.Safety
		b.Versions = append(b.Versions, basisVersion{
			Number: v.Number, State: uint8(v.State), Since: v.Since, Gone: v.Gone, Strict: uint64(v.Strict), First: v.First, Last: v.Last, Emptied: v.Safety.left,
		})
		for j := range inv.Generations {
			if g := &inv.Generations[j]; g.Custodian == v.Custodian && g.Version == v.Number {
				b.add(g)
			}
		}
		b.backups(inv.backupsOf(keys.VersionID{Custodian: v.Custodian, Version: v.Number}, now))
	}
	switch {
	case target.Version == 0:
		return b, inv.judgeKey(target.Key, now), nil
	case safety == nil:
		return nil, Safety{}, vocab.Errorf(vocab.ReasonResourceNotFound, "the key has no version %d", target.Version).WithNext("See rmsctl key inventory")
	}
	b.Target = fmt.Sprintf("%s/versions/%d", b.Target, target.Version)
	return b, *safety, nil
}

func (b *destroyBasis) add(g *InventoryGeneration) {
	b.Generations = append(b.Generations, basisGeneration{
		Number: g.Number, ID: g.ID, State: uint8(g.State), Since: record.ToMillis(g.Since), Key: g.Custodian, Version: g.Version,
		Licenses: uint64(g.Licenses), First: g.First, Last: g.Last, Emptied: g.left,
	})
}

func (b *destroyBasis) backups(list []BackupNeeds) {
	for i := range list {
		next := basisBackup{list[i].ID, record.ToMillis(list[i].KeptUntil)}
		if !slices.Contains(b.Backups, next) {
			b.Backups = append(b.Backups, next)
		}
	}
	slices.SortFunc(b.Backups, func(x, y basisBackup) int { return strings.Compare(x.ID, y.ID) })
}

// hash is what stands for all of it in what is approved.
func (b *destroyBasis) hash() ([32]byte, error) {
	enc, err := canon.Marshal(b)
	if err != nil {
		return [32]byte{}, vocab.Errorf(vocab.ReasonInternal, "what a destruction rests on cannot be encoded").Because(err)
	}
	return canon.Hash(canon.D("rms/v1/destroy-basis", canon.Fields{1: enc})), nil
}

// lines say it to whoever approves.
func (b *destroyBasis) lines(d Destruction, s Safety) []string {
	var licenses, generations []string
	for _, v := range b.Versions {
		licenses = append(licenses, fmt.Sprintf("v%d: %s", v.Number, plural(int64(v.Strict), "strict license")))
	}
	for _, g := range b.Generations {
		generations = append(generations, fmt.Sprintf("g%d: %s", g.Number, plural(int64(g.Licenses), "license")))
	}
	out := []string{d.Target.String() + ", for ever"}
	if len(licenses) > 0 {
		out = append(out, listed(licenses))
	}
	if len(generations) > 0 {
		out = append(out, listed(generations))
	}
	for _, h := range s.Hindrances {
		out = append(out, "in spite of: "+h.Text)
	}
	if len(b.Backups) == 0 {
		out = append(out, "no backup needs it")
	}
	if s.Note != "" {
		out = append(out, s.Note)
	}
	if h, err := b.hash(); err == nil {
		out = append(out, "inventory "+hex.EncodeToString(h[:]))
	}
	return out
}
