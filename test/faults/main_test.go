// Package faults_test breaks a real rmsd, and the machine under it, and then
// compares what its callers had been told with what is left: the process is
// killed, the power is cut at any point between two writes, the disk refuses.
//
// Two things must hold whatever happens. What a caller was told has happened:
// its license, its event. And what a caller received is on record: the content
// keys that left are a subset of the events that say so.
package faults_test

import (
	"testing"

	"github.com/openrms/rms/test/rmsdtest"
)

func TestMain(m *testing.M) { rmsdtest.Main(m) }
