// Package custody_test shows what the customer's hand on the key does to a
// running service: a real rmsd whose tenant key is in a real Vault.
package custody_test

import (
	"testing"

	"github.com/openrms/rms/test/rmsdtest"
)

func TestMain(m *testing.M) { rmsdtest.Main(m) }
