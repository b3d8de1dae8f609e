package record

import (
	"bytes"
	"slices"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Tenant is what the store knows of a tenant. Its name, domains and
// custodian's address are in the operator's file.
type Tenant struct {
	ID      vocab.TenantID `cbor:"1,keyasint"`
	Created Millis         `cbor:"2,keyasint"`
}

// GetTenant returns the tenant of a name, or nil.
func GetTenant(r store.Reader, name string) (*Tenant, error) {
	t := new(Tenant)
	ok, err := get(r, tableTenants, []byte(name), t)
	if err != nil || !ok {
		return nil, err
	}
	return t, nil
}

// PutTenant writes a tenant.
func PutTenant(tx store.Tx, name string, t *Tenant) error {
	return put(tx, tableTenants, []byte(name), t)
}

// ListTenants returns every tenant the store knows, by name.
func ListTenants(r store.Reader) (map[string]Tenant, error) {
	out := map[string]Tenant{}
	for item, err := range r.Scan(tableTenants, store.Range{}) {
		if err != nil {
			return nil, err
		}
		t, err := GetTenant(r, string(item.Key))
		if err != nil {
			return nil, err
		}
		out[string(item.Key)] = *t
	}
	return out, nil
}

// Settings are a tenant's settings with their revision: those decisions read,
// and those the service itself reads.
type Settings struct {
	policy.Settings
	// CacheTTL is how long an unwrapped generation is kept.
	CacheTTL time.Duration
	// OutageGrace is how much longer while the custodian cannot be reached.
	OutageGrace time.Duration
	// AllowX25519 allows X25519 recipient keys beside X-Wing.
	AllowX25519 bool
	// TokenAgeMax caps the age of tokens; 0: as the provider says.
	TokenAgeMax time.Duration
	// Revision grows with every change, from 0 for the defaults.
	Revision uint32
	// LastEvent is the event of the last change; zero for the defaults.
	LastEvent vocab.EventID
}

// Bounds of the cache, which docs/custody.md explains.
const (
	MinCacheTTL     = 10 * time.Second
	MaxCacheTTL     = time.Hour
	DefaultCacheTTL = 5 * time.Minute
	MaxOutageGrace  = 24 * time.Hour
)

// DefaultSettings are the settings of a new tenant.
func DefaultSettings() Settings {
	return Settings{Settings: policy.DefaultSettings(), CacheTTL: DefaultCacheTTL}
}

// settingsForm is the stored form: durations in milliseconds, offline maxima
// plus one so that "none" is apart from zero.
type settingsForm struct {
	Revision           uint32   `cbor:"1,keyasint"`
	MaxOffline         uint64   `cbor:"2,keyasint"`
	GuestMaxOffline    uint64   `cbor:"3,keyasint"` // 0: as MaxOffline, else milliseconds + 1
	IssuerOpensRevoked uint8    `cbor:"4,keyasint"`
	GuestDomains       []string `cbor:"5,keyasint"`
	Publishers         []string `cbor:"6,keyasint"`
	ClearKeys          uint8    `cbor:"7,keyasint"`
	Custody            uint8    `cbor:"8,keyasint"`
	CacheTTL           uint64   `cbor:"9,keyasint"`
	OutageGrace        uint64   `cbor:"10,keyasint"`
	AllowX25519        uint8    `cbor:"11,keyasint"`
	TokenAgeMax        uint64   `cbor:"12,keyasint"`

	LastEvent vocab.EventID `cbor:"13,keyasint"`
}

// GetSettings returns a tenant's settings, the defaults if none were written.
func GetSettings(r store.Reader, t vocab.TenantID) (Settings, error) {
	var f settingsForm
	ok, err := get(r, tableSettings, key(t), &f)
	if err != nil {
		return Settings{}, err
	}
	if !ok {
		return DefaultSettings(), nil
	}
	return f.settings()
}

// settings reads the stored form.
func (f *settingsForm) settings() (Settings, error) {
	ms := func(v uint64) time.Duration { return time.Duration(v) * time.Millisecond }
	s := Settings{
		Settings: policy.Settings{
			MaxOffline: ms(f.MaxOffline), GuestMaxOffline: policy.OfflineMax,
			IssuerOpensRevoked: f.IssuerOpensRevoked == 1, GuestDomains: f.GuestDomains,
			ClearKeys: policy.ClearKeys(f.ClearKeys), Custody: vocab.CustodyMode(f.Custody),
		},
		CacheTTL: ms(f.CacheTTL), OutageGrace: ms(f.OutageGrace),
		AllowX25519: f.AllowX25519 == 1, TokenAgeMax: ms(f.TokenAgeMax), Revision: f.Revision,
		LastEvent: f.LastEvent,
	}
	if f.GuestMaxOffline > 0 {
		s.GuestMaxOffline = ms(f.GuestMaxOffline - 1)
	}
	for _, p := range f.Publishers {
		pr, err := vocab.ParsePrincipal(p)
		if err != nil {
			return Settings{}, damaged(tableSettings, err)
		}
		s.Publishers = append(s.Publishers, pr)
	}
	if !s.Custody.Valid() {
		return Settings{}, damaged(tableSettings, nil)
	}
	return s, nil
}

// PutSettings writes a tenant's settings and keeps those that were there.
func PutSettings(tx store.Tx, t vocab.TenantID, s Settings) error {
	if err := keepSettings(tx, t, s); err != nil {
		return err
	}
	return put(tx, tableSettings, key(t), s.form())
}

// State is the hash of the settings as they are stored, which the event that
// wrote them holds too.
func (s Settings) State() ([32]byte, error) { return stateOf(tableSettings, s.form()) }

func (s Settings) form() *settingsForm {
	ms := func(d time.Duration) uint64 { return uint64(max(d, 0).Milliseconds()) }
	f := &settingsForm{
		Revision: s.Revision, MaxOffline: ms(s.MaxOffline), IssuerOpensRevoked: bit(s.IssuerOpensRevoked),
		GuestDomains: s.GuestDomains, ClearKeys: uint8(s.ClearKeys), Custody: uint8(s.Custody),
		CacheTTL: ms(s.CacheTTL), OutageGrace: ms(s.OutageGrace), AllowX25519: bit(s.AllowX25519), TokenAgeMax: ms(s.TokenAgeMax),
		LastEvent: s.LastEvent,
	}
	if s.GuestMaxOffline >= 0 {
		f.GuestMaxOffline = ms(s.GuestMaxOffline) + 1
	}
	for _, p := range s.Publishers {
		f.Publishers = append(f.Publishers, p.String())
	}
	return f
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// GetBundle returns the tenant's newest trust bundle, or nil.
func GetBundle(r store.Reader, t vocab.TenantID) ([]byte, error) {
	b, ok, err := r.Get(tableBundles, key(t))
	if err != nil || !ok {
		return nil, err
	}
	return b, nil
}

// PutBundle writes the tenant's newest trust bundle.
func PutBundle(tx store.Tx, t vocab.TenantID, envelope []byte) error {
	return tx.Put(tableBundles, key(t), envelope)
}

// PutTransition keeps a trust bundle with which the tenant went to another
// current root.
func PutTransition(tx store.Tx, t vocab.TenantID, seq uint64, envelope []byte) error {
	return tx.Put(tableTransitions, key(t, u64(seq)), envelope)
}

// ListTransitions returns the newest of the bundles that [PutTransition] kept,
// at most limit, oldest first.
func ListTransitions(r store.Reader, t vocab.TenantID, limit int) (out [][]byte, err error) {
	for item, err := range r.Scan(tableTransitions, store.Range{Prefix: key(t), Reverse: true}) {
		if err != nil {
			return nil, err
		}
		if len(out) == limit {
			break
		}
		out = append(out, bytes.Clone(item.Value))
	}
	slices.Reverse(out)
	return out, nil
}
