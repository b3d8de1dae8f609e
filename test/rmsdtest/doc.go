// Package rmsdtest runs the real rmsd as a process of its own for tests that
// do to it what cannot be done from inside: kill it, cut its power, take its
// disk or its custodian away. A [Site] is a data directory with configuration
// and test identities; a [Process] is one life of a daemon on it; a [Caller]
// speaks to it over real gRPC and keeps what it was told.
//
// Everything listens on loopback, and every process ends with its test.
package rmsdtest
