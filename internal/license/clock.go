package license

import "time"

// maxMillis is the last millisecond of the year 9999.
const maxMillis = 253402300799999

// millis returns t in milliseconds since 1970 UTC, 0 for the zero time. It
// refuses what the formats cannot hold.
func millis(what, field string, t time.Time) (uint64, error) {
	if t.IsZero() {
		return 0, nil
	}
	ms := t.UnixMilli()
	if ms <= 0 || ms > maxMillis {
		return 0, malformed(what, "%s is not between 1970 and 9999", field)
	}
	return uint64(ms), nil
}

// instant is the inverse of millis.
func instant(what, field string, ms uint64) (time.Time, error) {
	if ms == 0 {
		return time.Time{}, nil
	}
	if ms > maxMillis {
		return time.Time{}, malformed(what, "%s is not between 1970 and 9999", field)
	}
	return time.UnixMilli(int64(ms)).UTC(), nil
}
