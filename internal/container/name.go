package container

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	maxName      = 255 // bytes: the limit of the usual file systems
	maxExtension = 16  // bytes kept when a long name is cut
	noName       = "document"

	// DefaultType is the media type of content of no known type.
	DefaultType = "application/octet-stream"
)

// CleanName makes of any string a name that is safe to create as a file in a
// folder of the user's, on any system: the last element of a path (both
// separators count), in NFC, without control characters, invisible and
// direction-changing characters, without what Windows refuses or treats
// specially (<>:"|?* become _, a device name like CON gets a _ before it,
// trailing dots and spaces go), not hidden and no option (a leading dot or
// hyphen becomes _), at most 255 bytes with its extension kept. What has no
// name left is "document". CleanName of its own result changes nothing.
func CleanName(s string) string {
	s = norm.NFC.String(strings.ToValidUTF8(s, "_"))
	s = s[strings.LastIndexAny(s, `/\`)+1:]
	s = strings.Map(cleanRune, s)
	// Removing characters may leave a pair that composes.
	s = trim(norm.NFC.String(s))
	if s == "" {
		return noName
	}
	if s[0] == '.' || s[0] == '-' {
		s = "_" + s[1:]
	}
	if deviceName(s) {
		s = "_" + s
	}
	return cut(s)
}

func cleanRune(r rune) rune {
	switch {
	case r == '\u200c', r == '\u200d':
		return r // joiners: part of the spelling in Persian, Indic scripts and emoji
	case unicode.Is(unicode.Cf, r), unicode.Is(unicode.Cc, r), unicode.Is(unicode.Co, r),
		unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
		return -1
	case unicode.IsSpace(r):
		return ' '
	case strings.ContainsRune(`<>:"|?*`, r):
		return '_'
	}
	return r
}

func trim(s string) string {
	return strings.TrimLeft(strings.TrimRight(s, " ."), " ")
}

// deviceName reports whether Windows takes the name for a device, whatever its
// extension.
func deviceName(s string) bool {
	stem, _, _ := strings.Cut(s, ".")
	stem = strings.ToUpper(strings.TrimRight(stem, " "))
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	port, ok := strings.CutPrefix(stem, "COM")
	if !ok {
		port, ok = strings.CutPrefix(stem, "LPT")
	}
	return ok && utf8.RuneCountInString(port) == 1 && strings.ContainsAny(port, "0123456789¹²³")
}

// cut shortens a name to maxName bytes between characters.
func cut(s string) string {
	if len(s) <= maxName {
		return s
	}
	ext := path.Ext(s)
	if len(ext) > maxExtension {
		ext = ""
	}
	stem := s[:maxName-len(ext)]
	for !utf8.RuneStart(s[len(stem)]) {
		stem = stem[:len(stem)-1]
	}
	return trim(stem) + ext
}

// cleanType returns the media type in lower case without parameters, or
// [DefaultType] for what RFC 6838 §4.2 does not allow as one.
func cleanType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	s = strings.ToLower(strings.TrimSpace(s))
	kind, sub, ok := strings.Cut(s, "/")
	if !ok || !restrictedName(kind) || !restrictedName(sub) {
		return DefaultType
	}
	return s
}

// restrictedName is RFC 6838's restricted-name: up to 127 characters, the
// first a letter or digit.
func restrictedName(s string) bool {
	if s == "" || len(s) > 127 || strings.IndexByte("!#$&-^_.+", s[0]) >= 0 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("!#$&-^_.+", c) < 0 {
			return false
		}
	}
	return true
}
