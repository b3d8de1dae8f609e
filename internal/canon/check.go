package canon

import (
	"encoding/binary"
	"fmt"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxNesting is how deep maps and arrays may lie in each other.
const MaxNesting = 4

// CBOR major types of the dialect (RFC 8949 §3.1).
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
)

// Check reports whether b is exactly one item of the dialect in deterministic
// form, whatever its meaning. The error wraps [ErrMalformed].
func Check(b []byte) error {
	if len(b) > MaxSize {
		return malformed("%d bytes, more than %d", len(b), MaxSize)
	}
	rest, err := item(b, 0)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return malformed("%d bytes after the end", len(rest))
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// item checks the item b begins with, which lies inside depth containers, and
// returns what follows it.
func item(b []byte, depth int) ([]byte, error) {
	major, n, rest, err := head(b)
	if err != nil {
		return nil, err
	}
	switch major {
	case majorUint:
		return rest, nil
	case majorBytes, majorText:
		if n > uint64(len(rest)) {
			return nil, malformed("string longer than its object")
		}
		if major == majorText {
			if err := checkText(rest[:n]); err != nil {
				return nil, err
			}
		}
		return rest[n:], nil
	case majorArray, majorMap:
		if depth == MaxNesting {
			return nil, malformed("nested deeper than %d", MaxNesting)
		}
		// Every element is at least one byte, so a count beyond the rest
		// ends the loop early: no allocation depends on it.
		var last uint64
		for i := range n {
			if major == majorMap {
				kind, key, after, err := head(rest)
				if err != nil {
					return nil, err
				}
				if kind != majorUint {
					return nil, malformed("map key that is not an unsigned integer")
				}
				if i > 0 && key <= last {
					return nil, malformed("map keys out of order or repeated")
				}
				last, rest = key, after
			}
			if rest, err = item(rest, depth+1); err != nil {
				return nil, err
			}
		}
		return rest, nil
	}
	return nil, malformed("major type %d is not used", major)
}

// head reads an initial byte and its argument in shortest form.
func head(b []byte) (major byte, n uint64, rest []byte, err error) {
	if len(b) == 0 {
		return 0, 0, nil, malformed("cut short")
	}
	major, info := b[0]>>5, b[0]&0x1f
	if info < 24 {
		return major, uint64(info), b[1:], nil
	}
	if info > 27 {
		return 0, 0, nil, malformed("indefinite length or reserved form")
	}
	size := 1 << (info - 24)
	if len(b) < 1+size {
		return 0, 0, nil, malformed("cut short")
	}
	var wide [8]byte
	copy(wide[8-size:], b[1:1+size])
	n = binary.BigEndian.Uint64(wide[:])
	if size == 1 && n < 24 || size > 1 && n>>(size*4) == 0 {
		return 0, 0, nil, malformed("number not in shortest form")
	}
	return major, n, b[1+size:], nil
}

// CheckText says why a text cannot be part of anything that is encoded: it is
// not UTF-8, has control characters, or is not in Unicode normal form C.
func CheckText(s string) error { return checkText([]byte(s)) }

func checkText(b []byte) error {
	if !utf8.Valid(b) {
		return malformed("text is not UTF-8")
	}
	for _, r := range string(b) {
		if unicode.IsControl(r) {
			return malformed("control character in text")
		}
	}
	if !norm.NFC.IsNormal(b) {
		return malformed("text is not in Unicode normal form C")
	}
	return nil
}

// withoutIgnorable returns checked bytes without the map pairs whose key a
// reader may ignore, at any depth.
func withoutIgnorable(b []byte) []byte {
	out, _ := appendKnown(nil, b)
	return out
}

func appendKnown(out, b []byte) (appended, rest []byte) {
	major, n, rest, err := head(b)
	if err != nil {
		return out, nil // b was checked: cannot be
	}
	switch major {
	case majorBytes, majorText:
		rest = rest[n:]
		return append(out, b[:len(b)-len(rest)]...), rest
	case majorArray:
		out = append(out, b[:len(b)-len(rest)]...)
		for range n {
			out, rest = appendKnown(out, rest)
		}
		return out, rest
	case majorMap:
		var pairs []byte
		var kept uint64
		for range n {
			_, key, value, _ := head(rest)
			keyBytes := rest[:len(rest)-len(value)]
			if key >= FirstIgnorableKey {
				_, rest = appendKnown(nil, value)
				continue
			}
			kept++
			pairs = append(pairs, keyBytes...)
			pairs, rest = appendKnown(pairs, value)
		}
		return append(appendHead(out, majorMap, kept), pairs...), rest
	}
	return append(out, b[:len(b)-len(rest)]...), rest
}

// appendHead appends an initial byte and its argument in shortest form.
func appendHead(out []byte, major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return append(out, m|byte(n))
	case n < 1<<8:
		return append(out, m|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, m|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, m|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(out, m|27), n)
}
