// Package custody_test shows what the customer's hand on the key does to a
// running service: a real rmsd whose tenant key is in a real Vault.
package custody_test

import (
	"flag"
	"testing"

	"github.com/openrms/rms/test/rmsdtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	moreAtOnce()
	rmsdtest.Main(m)
}

// moreAtOnce lets more tests run at once than there are processors, unless
// whoever runs them said how many: what they do most is to wait until a TTL has
// passed.
func moreAtOnce() {
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		_ = flag.Set("test.parallel", "6")
	}
}
