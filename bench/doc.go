// Package bench measures a whole service over real gRPC: rmsd as it is shipped,
// a process of its own, on loopback TLS, with its audit log and durable writes,
// its limits set high. Everything is in its benchmarks:
//
//	go test -run '^$' -bench . ./bench
//
// Each case runs for -benchtime (a second unless said otherwise) and all of
// them for a minute or so. Where an unmodified Vault is at hand (VAULT_BIN,
// vault on PATH, or the one the tests built), strict custody is measured on it
// too; else those cases are skipped.
//
// [BenchmarkScale] compares much that does not match with little of it, in
// turns. [BenchmarkLicenses] measures a store with as many licenses as the flag
// -licenses says, which it makes first:
//
//	go test -run '^$' -bench Licenses ./bench -licenses 1000000
//
// [BenchmarkReseal] seals that many licenses anew and measures openings
// meanwhile; [BenchmarkRewrap] moves 1,000 generations on a real Vault.
//
// Absolute numbers say something of the machine; the ratios at the end, of one
// run, say something of the service. docs/performance.md has both.
package bench
