package policy

import "github.com/openrms/rms/internal/vocab"

// Checks of whoever asks for content keys in the clear.
const (
	CheckClearKeys   CheckName = "clear-keys"  // the tenant gives them to anybody at all
	CheckService     CheckName = "service"     // the caller is a service
	CheckCertificate CheckName = "certificate" // the connection is authenticated by its client certificate
)

// ClearChecks says whether the caller may have content keys in the clear: they
// may if no check failed.
func ClearChecks(s Settings, id *vocab.Identity) []Check {
	check := func(name CheckName, passes bool) Check {
		if passes {
			return Check{Name: name, Outcome: Passed}
		}
		return Check{Name: name, Outcome: Failed, Reason: vocab.ReasonClearKeyNotAllowed}
	}
	return []Check{
		check(CheckClearKeys, s.ClearKeys == ClearKeysMTLS),
		check(CheckService, id != nil && id.Service != ""),
		check(CheckCertificate, id != nil && id.Certificate),
	}
}

// AllPassed reports whether none of the checks failed.
func AllPassed(checks []Check) bool {
	for _, c := range checks {
		if c.Outcome == Failed {
			return false
		}
	}
	return true
}
