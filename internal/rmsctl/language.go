package rmsctl

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/policy"
)

// languageFlag gives a command the choice of the language of what people wrote
// in several.
func languageFlag(c *cobra.Command, lang *string) {
	c.Flags().StringVar(lang, "lang", "", "the language of names, such as de or pt-br (default: LC_ALL, LC_MESSAGES, LANG)")
}

// languageOf returns the language to show names in: the one asked for, or that
// of the environment, in the form of templates' language tags; "" if there is
// none.
func languageOf(asked string) (string, error) {
	if asked != "" {
		lang := strings.ToLower(strings.ReplaceAll(asked, "_", "-"))
		if !policy.ValidLanguage(lang) {
			return "", usagef("%q is not a language", asked).withNext("Write one like de or pt-br")
		}
		return lang, nil
	}
	// The first that is set counts, as POSIX says of locales (XBD 8.2).
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			return languageOfLocale(v), nil
		}
	}
	return "", nil
}

// languageOfLocale reads language[_territory][.codeset][@modifier].
func languageOfLocale(locale string) string {
	locale, _, _ = strings.Cut(locale, "@")
	locale, _, _ = strings.Cut(locale, ".")
	lang := strings.ToLower(strings.ReplaceAll(locale, "_", "-"))
	if !policy.ValidLanguage(lang) || lang == "posix" { // C and POSIX are no languages
		return ""
	}
	return lang
}

// inLanguage picks a text: in the language, in the same language less closely
// (pt-br, pt, pt-pt), in English, or the first by its tag.
func inLanguage(texts map[string]string, lang string) string {
	tags := slices.Sorted(maps.Keys(texts))
	for _, want := range []string{lang, "en"} {
		for part := want; part != ""; part = part[:max(0, strings.LastIndexByte(part, '-'))] {
			if text := texts[part]; text != "" {
				return text
			}
		}
		language, _, _ := strings.Cut(want, "-")
		for _, tag := range tags {
			if language != "" && strings.HasPrefix(tag, language+"-") {
				return texts[tag]
			}
		}
	}
	if len(tags) == 0 {
		return ""
	}
	return texts[tags[0]]
}
