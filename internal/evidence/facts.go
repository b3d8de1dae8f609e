package evidence

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// Facts are what the custodian of a registered key said of it when the evidence
// was made. The IDs of its requests find the reads in the custodian's own log.
type Facts struct {
	Key       string            `cbor:"1,keyasint"` // its name
	ID        vocab.CustodianID `cbor:"2,keyasint"`
	Kind      string            `cbor:"3,keyasint"`           // vault, embedded
	Location  string            `cbor:"4,keyasint,omitempty"` // address and mount
	Cluster   string            `cbor:"5,keyasint,omitempty"`
	Version   string            `cbor:"6,keyasint,omitempty"` // of the custodian's software
	ReadAt    record.Millis     `cbor:"7,keyasint,omitempty"` // by our clock; 0: it could not be read
	Requests  []string          `cbor:"8,keyasint,omitempty"`
	Root      *KeyFacts         `cbor:"9,keyasint,omitempty"`
	Sign      *KeyFacts         `cbor:"10,keyasint,omitempty"`
	Fault     string            `cbor:"11,keyasint,omitempty"` // what is wrong with it: a reason
	FaultText string            `cbor:"12,keyasint,omitempty"`
}

// Attributes of a key, one bit each.
const (
	Derived         = 1 << 0
	Convergent      = 1 << 1
	Exportable      = 1 << 2
	PlaintextBackup = 1 << 3
	DeletionAllowed = 1 << 4
	Imported        = 1 << 5
	BackedUp        = 1 << 6
	Restored        = 1 << 7

	allAttributes = 1<<8 - 1
	// leaks are the attributes by which a key may have left its custodian.
	leaks = Exportable | PlaintextBackup | BackedUp | Restored
)

// KeyFacts are the attributes of one of the two keys.
type KeyFacts struct {
	Name          string        `cbor:"1,keyasint"`
	Type          string        `cbor:"2,keyasint"`
	Attributes    uint32        `cbor:"3,keyasint,omitempty"`
	Latest        uint32        `cbor:"4,keyasint"`
	MinDecryption uint32        `cbor:"5,keyasint,omitempty"`
	MinEncryption uint32        `cbor:"6,keyasint,omitempty"`
	MinAvailable  uint32        `cbor:"7,keyasint,omitempty"`
	AutoRotate    record.Millis `cbor:"8,keyasint,omitempty"`
	Versions      []Version     `cbor:"9,keyasint,omitempty"`
}

// Version is a version of a key as its custodian lists it.
type Version struct {
	Number    uint32        `cbor:"1,keyasint"`
	Created   record.Millis `cbor:"2,keyasint,omitempty"`
	PublicKey []byte        `cbor:"3,keyasint,omitempty"` // of the signing key
}

// FactsOf are the facts of a registered key, as far as its custodian said them:
// f may be nil, and fault is what is wrong with it, if something is.
func FactsOf(name string, k *record.TenantKey, location string, f *keys.Facts, fault error) Facts {
	out := Facts{Key: name, ID: k.ID, Kind: k.Kind, Location: text(location)}
	if fault != nil {
		out.Fault, out.FaultText = string(vocab.ReasonOf(fault)), text(fault.Error())
	}
	if f == nil {
		return out
	}
	out.Cluster, out.Version, out.ReadAt = text(f.ClusterID), text(f.Version), record.ToMillis(f.ReadAt)
	for _, id := range f.RequestIDs {
		out.Requests = append(out.Requests, text(id))
	}
	out.Root, out.Sign = keyFacts(&f.Root), keyFacts(&f.Sign)
	return out
}

func keyFacts(k *keys.KeyFacts) *KeyFacts {
	out := &KeyFacts{
		Name: text(k.Name), Type: text(k.Type), Latest: k.Latest, MinDecryption: k.MinDecryption, MinEncryption: k.MinEncryption,
		MinAvailable: k.MinAvailable, AutoRotate: record.Millis(max(k.AutoRotate.Milliseconds(), 0)),
	}
	for bit, set := range map[uint32]bool{
		Derived: k.Derived, Convergent: k.Convergent, Exportable: k.Exportable, PlaintextBackup: k.PlaintextBackup,
		DeletionAllowed: k.DeletionAllowed, Imported: k.Imported, BackedUp: k.BackedUp, Restored: k.Restored,
	} {
		if set {
			out.Attributes |= bit
		}
	}
	for _, v := range k.Versions {
		out.Versions = append(out.Versions, Version{v.Version, record.ToMillis(v.Created), v.PublicKey})
	}
	return out
}

// text makes what a custodian said fit for the encoding.
func text(s string) string {
	const most = 1024
	s = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cc, r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return norm.NFC.String(s)
}
