package rmsctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/openrms/rms/internal/vocab"
)

// Exit codes. They are part of the contract with scripts and never change
// their meaning.
const (
	exitOK           = 0
	exitInternal     = 1  // a defect, or an interruption
	exitUsage        = 2  // the command line or a file of yours is wrong
	exitRefused      = 3  // the server said no
	exitSignIn       = 4  // sign in first, or again
	exitNotFound     = 5  // what was named is not there
	exitConflict     = 6  // something else must happen first
	exitUnavailable  = 7  // try again
	exitDamaged      = 8  // a document, license or store is damaged or forged
	exitVerification = 9  // the log does not verify, or the policy is not what a suite wants
	exitWaits        = 10 // an operation waits for approval
)

// exits maps every reason to its exit code. A reason that is missing is a
// defect, which a test finds.
var exits = map[vocab.Reason]int{
	vocab.ReasonInternal: exitInternal,

	vocab.ReasonRequestInvalid:       exitUsage,
	vocab.ReasonPageTokenInvalid:     exitUsage,
	vocab.ReasonBatchTooLarge:        exitUsage,
	vocab.ReasonConfigurationInvalid: exitUsage,

	vocab.ReasonNoRights:              exitRefused,
	vocab.ReasonRightNotGranted:       exitRefused,
	vocab.ReasonGrantEnded:            exitRefused,
	vocab.ReasonLicenseExpired:        exitRefused,
	vocab.ReasonLicenseRevoked:        exitRefused,
	vocab.ReasonTemplateDeleted:       exitRefused,
	vocab.ReasonPrincipalDisabled:     exitRefused,
	vocab.ReasonGroupsIncomplete:      exitRefused,
	vocab.ReasonStrongerLoginRequired: exitRefused,
	vocab.ReasonNetworkNotAllowed:     exitRefused,
	vocab.ReasonNotAPublisher:         exitRefused,
	vocab.ReasonTemplateNotInScope:    exitRefused,
	vocab.ReasonRoleRequired:          exitRefused,
	vocab.ReasonSamePerson:            exitRefused,
	vocab.ReasonClearKeyNotAllowed:    exitRefused,
	vocab.ReasonCustodianRefused:      exitRefused,
	vocab.ReasonKeySuspended:          exitRefused,
	vocab.ReasonRecoveryInvalid:       exitRefused,
	vocab.ReasonTenantFrozen:          exitRefused,

	vocab.ReasonTokenMissing:         exitSignIn,
	vocab.ReasonTokenInvalid:         exitSignIn,
	vocab.ReasonTokenExpired:         exitSignIn,
	vocab.ReasonTokenTooOld:          exitSignIn,
	vocab.ReasonIssuerNotTrusted:     exitSignIn,
	vocab.ReasonAddressNotVerified:   exitSignIn,
	vocab.ReasonCertificateNotMapped: exitSignIn,
	vocab.ReasonServerNotConfigured:  exitSignIn,

	vocab.ReasonResourceNotFound: exitNotFound,

	vocab.ReasonLicenseUnknown:      exitConflict,
	vocab.ReasonTemplateArchived:    exitConflict,
	vocab.ReasonTemplateInUse:       exitConflict,
	vocab.ReasonInventoryChanged:    exitConflict,
	vocab.ReasonKeyInUse:            exitConflict,
	vocab.ReasonKeyState:            exitConflict,
	vocab.ReasonKeyAttributesUnsafe: exitConflict,
	vocab.ReasonCustodianChanged:    exitConflict,
	vocab.ReasonCustodianActs:       exitConflict,
	vocab.ReasonStoreNewer:          exitConflict,
	vocab.ReasonOperationState:      exitConflict,
	vocab.ReasonRotationUnclaimed:   exitConflict,
	vocab.ReasonTenantHeld:          exitConflict,
	vocab.ReasonEtagMismatch:        exitConflict,
	vocab.ReasonResourceExists:      exitConflict,
	vocab.ReasonContentIDTaken:      exitConflict,
	vocab.ReasonRequestIDReused:     exitConflict,
	vocab.ReasonOutputExists:        exitConflict,
	vocab.ReasonLicenseFormatNewer:  exitConflict,
	vocab.ReasonSuiteUnsupported:    exitConflict,

	vocab.ReasonCustodianUnreachable: exitUnavailable,
	vocab.ReasonCustodianSealed:      exitUnavailable,
	vocab.ReasonIdentityProviderDown: exitUnavailable,
	vocab.ReasonServerUnreachable:    exitUnavailable,
	vocab.ReasonStoreFull:            exitUnavailable,
	vocab.ReasonOverloaded:           exitUnavailable,
	vocab.ReasonRateLimited:          exitUnavailable,

	vocab.ReasonLicenseMalformed:   exitDamaged,
	vocab.ReasonLicenseSignature:   exitDamaged,
	vocab.ReasonLicenseMismatch:    exitDamaged,
	vocab.ReasonContainerMalformed: exitDamaged,
	vocab.ReasonContentChanged:     exitDamaged,
	vocab.ReasonTrustRootMismatch:  exitDamaged,
	vocab.ReasonUseLicenseRejected: exitDamaged,
	vocab.ReasonStoreDamaged:       exitDamaged,
	vocab.ReasonLogDamaged:         exitDamaged,
	vocab.ReasonCustodyIntegrity:   exitDamaged,

	vocab.ReasonApprovalRequired: exitWaits,
}

// exitError is an error that knows its exit code, whatever its reason.
type exitError struct {
	code int
	err  error
	next string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func (e *exitError) withNext(format string, args ...any) *exitError {
	e.next = fmt.Sprintf(format, args...)
	return e
}

// usagef is the error for a command line that cannot be meant.
func usagef(format string, args ...any) *exitError {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// failure is an error as it is printed.
type failure struct {
	Exit    int    `json:"exit"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message"`
	Next    string `json:"next,omitempty"`
	Contact string `json:"contact,omitempty"`
	Event   string `json:"event,omitempty"`
	// Operation is what waits for approval, if something does.
	Operation string `json:"operation,omitempty"`
}

// describe finds out what an error means to the user.
func describe(err error) failure {
	var f failure
	if e, ok := errors.AsType[*exitError](err); ok {
		f = failure{Exit: e.code, Message: e.err.Error(), Next: e.next}
	}
	switch e := explain(err); {
	case e != nil:
		f.Reason, f.Message, f.Contact = string(e.Reason), e.Message, e.Contact
		if f.Next == "" {
			f.Next = e.Next
		}
		if !e.Event.IsZero() {
			f.Event = e.Event.String()
		}
		if !e.Operation.IsZero() {
			f.Operation = e.Operation.String()
		}
		if f.Exit == 0 {
			f.Exit = exitInternal
			if code, ok := exits[e.Reason]; ok {
				f.Exit = code
			}
		}
	case f.Exit != 0:
	case errors.Is(err, fs.ErrNotExist):
		f = failure{Exit: exitNotFound, Message: err.Error()}
	case errors.Is(err, fs.ErrExist):
		f = failure{Exit: exitConflict, Message: err.Error()}
	case errors.Is(err, fs.ErrPermission):
		f = failure{Exit: exitUsage, Message: err.Error()}
	default:
		f = failure{Exit: exitInternal, Message: err.Error()}
	}
	if f.Next == "" && f.Exit == exitSignIn {
		f.Next = "Sign in: rmsctl login"
	}
	return f
}

// String is the line people see. It reads: what happened, why, what next,
// whom to ask.
func (f failure) String() string {
	var b strings.Builder
	switch f.Exit {
	case exitInternal, exitUsage, exitNotFound, exitSignIn:
	case exitUnavailable:
		b.WriteString("not available: ")
	case exitVerification:
		b.WriteString("verification failed: ")
	case exitWaits:
		b.WriteString("waits for approval: ")
	default:
		b.WriteString("refused: ")
	}
	b.WriteString(strings.TrimRight(f.Message, ". "))
	if f.Reason != "" {
		fmt.Fprintf(&b, " (%s)", f.Reason)
	}
	b.WriteString(".")
	if f.Next != "" && f.Next != "Ask "+f.Contact { // which follows anyway
		fmt.Fprintf(&b, " %s.", strings.TrimRight(f.Next, ". "))
	}
	switch {
	case f.Contact != "" && f.Event != "":
		fmt.Fprintf(&b, " Ask %s, quote event %s", f.Contact, f.Event)
	case f.Contact != "":
		fmt.Fprintf(&b, " Ask %s", f.Contact)
	case f.Event != "":
		fmt.Fprintf(&b, " Event %s", f.Event)
	}
	return strings.TrimSuffix(b.String(), ".")
}

// fail prints an error and returns the exit code.
func (a *app) fail(err error) int {
	f := describe(err)
	if a.format == formatJSON || a.format == formatYAML {
		b, _ := json.Marshal(map[string]failure{"error": f})
		fmt.Fprintf(a.stderr, "%s\n", b) // JSON is YAML, too
		return f.Exit
	}
	fmt.Fprintf(a.stderr, "rmsctl: %s\n", clean(f.String()))
	return f.Exit
}
