// Package keys is the key hierarchy between a customer's root key and a
// content key: who holds the root ([Custodian]), the generations wrapped by it
// and how long they may stay unwrapped in memory ([Ring]), and the daemon's
// short-lived signing keys certified by it ([Chain]).
//
// # Levels
//
//	L0  tenant key    stays with the custodian; this package sees its version numbers, never its bytes
//	L1  generation    32 random bytes, stored only wrapped by L0, unwrapped for at most TTL and N uses
//	L2, L3, L4        license subkey, content key, stream: package license
//
// # Deny by default
//
// A custodian that refuses ends every use at once: what was unwrapped with its
// help is dropped and zeroed. One that cannot be reached ends it when the
// unwrapped copy's time is up, and there is no way to serve a stale one except
// the tenant's own outage grace, which never follows a refusal ([IsOutage],
// [IsRefusal]). Nothing here retries a call to a custodian by itself.
package keys
