// Package live_test shows that an edit of policy is in force for the next
// decision on every connection: a real rmsd, 64 connections that ask for
// decisions all the time, and administrators who change meanwhile what the
// decisions rest on. What everybody was told, and when, is a history, and for
// that there must be an order in which one thing happens after the other.
package live_test

import (
	"testing"

	"github.com/openrms/rms/test/rmsdtest"
)

func TestMain(m *testing.M) { rmsdtest.Main(m) }
