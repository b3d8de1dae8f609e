//go:build rms_nosync_for_fault_test

package bolt

// noSync is true only in the build that the power-cut test must catch losing
// acknowledged writes: a test that cannot fail shows nothing.
const noSync = true
