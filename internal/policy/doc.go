// Package policy says who may do what with protected content. It holds the
// words of a policy (grants, templates, ad hoc policies, tenant settings), the
// permission levels, and the two decisions of the service: [Evaluate], whether
// a caller may exercise a right on a license, and [MayPublish], whether a
// caller may protect content. A [RevocationIndex] finds the rules that revoke
// many licenses at once.
//
// Everything here is pure: no I/O, no clock, no randomness. The same input
// gives the same decision for ever, so a recorded decision can be replayed.
// Nothing here panics, and no malformed input is ever read as a permission.
//
// Rules, the order of reasons and where we follow or leave Azure RMS are in
// docs/policy.md. All times are UTC with millisecond precision, as the formats
// store them.
package policy
