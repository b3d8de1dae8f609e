//go:build !rms_nosync_for_fault_test

package bolt

// noSync is false in every build that anyone should run.
const noSync = false
