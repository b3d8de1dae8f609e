package vocab

import (
	"fmt"
)

// CustodyMode says how long content may still open after the custodian
// refuses. The numbers are part of the formats, and are ordered: a higher one
// is stricter.
type CustodyMode uint8

// Custody modes.
const (
	// CustodyCached keeps an unwrapped generation at most the tenant's TTL
	// and a number of uses.
	CustodyCached CustodyMode = 1
	// CustodyStrict gives each document a generation of its own, unwrapped
	// by the custodian at every open and never kept.
	CustodyStrict CustodyMode = 2
)

// String returns "cached" or "strict".
func (m CustodyMode) String() string {
	switch m {
	case CustodyCached:
		return "cached"
	case CustodyStrict:
		return "strict"
	}
	return fmt.Sprintf("CustodyMode(%d)", uint8(m))
}

// ParseCustodyMode reads "cached" or "strict".
func ParseCustodyMode(s string) (CustodyMode, error) {
	switch s {
	case "cached":
		return CustodyCached, nil
	case "strict":
		return CustodyStrict, nil
	}
	return 0, fmt.Errorf("%q is not a custody mode: write cached or strict", clip(s))
}

// Valid reports whether m is a known mode.
func (m CustodyMode) Valid() bool { return m == CustodyCached || m == CustodyStrict }
