// Package embedded is the custodian for those who have no Vault: a key ring in
// a file beside the daemon.
//
// It keeps the formats, the checks and the commitments of any custodian, and
// gives up what only a second party can give: whoever has the key ring and its
// key file has the tenant's keys, and nobody can switch the tenant off from
// outside. `rmsd dev` and small installations use it; moving to Vault later
// is registering and activating another custodian.
//
// # File
//
//	"rms-keyring\x00\x00\x00\x00\x01" 16 ‖ GCM(KDF(file key, ∅, D("rms/v1/keyring", {})), aad = first 16 bytes, ring)
//
// where ring is the deterministic CBOR of [ring]. The file key is 32 random
// bytes in a file of its own, on another volume or delivered by the service
// manager, so that a backup of the data directory alone opens nothing. There is
// no passphrase: a daemon that starts unattended would need it in a file as
// well, and then 32 random bytes are stronger and need no slow derivation.
// Both files must not be readable by group or others.
package embedded
