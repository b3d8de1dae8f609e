// Package attack tries to take content from the service as its enemies would:
// with a protected file, a valid sign-in, a guest's tokens, another tenant's
// keys, the network, the data directory. Every attack goes through the real
// door of a real daemon, or through the real client, and each says which stable
// reason it must meet, that nothing was given out or changed, and, where only
// damage or forgery can be the cause, that the log holds an alarm which an
// auditor finds by the event the attacker was told.
//
// The attacks byte by byte on a single format are with the packages that read
// it: internal/license, internal/container, internal/identity, internal/audit.
// Faults of the machine are in test/faults.
//
// Out of scope, because this version does not have the subject: certificates
// for offline publishing and what can be done with a foreign one, licenses
// registered later by their publisher, backups taken and restored by the
// service, and RSA tenant keys, which are refused by kind.
package attack
