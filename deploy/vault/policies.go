// Package vaultpolicy holds the Vault policies this project ships, so that
// rmsctl can print them and tests use the very same text.
package vaultpolicy

import (
	_ "embed"
	"strings"
)

var (
	//go:embed rmsd.hcl
	rmsd string
	//go:embed rmsd-key.hcl
	rmsdKey string
	//go:embed custody-officer.hcl
	custodyOfficer string
	//go:embed destroyer.hcl
	destroyer string
)

func at(policy, mount string) string {
	return strings.ReplaceAll(policy, "MOUNT/", strings.Trim(mount, "/")+"/")
}

// Daemon is the policy of rmsd on a tenant's transit mount, with these root
// keys.
func Daemon(mount string, keys ...string) string {
	parts := []string{at(rmsd, mount)}
	for _, key := range keys {
		parts = append(parts, strings.ReplaceAll(at(rmsdKey, mount), "/KEY\"", "/"+key+"\""))
	}
	return strings.Join(parts, "\n")
}

// CustodyOfficer is the policy of the people who make and rotate keys, and may
// empty the policy named, that of rmsd's role.
func CustodyOfficer(mount, daemonPolicy string) string {
	return strings.ReplaceAll(at(custodyOfficer, mount), "/POLICY\"", "/"+daemonPolicy+"\"")
}

// Destroyer is the policy of the short-lived token that destroys keys.
func Destroyer(mount string) string { return at(destroyer, mount) }
