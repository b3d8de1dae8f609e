package rmsctl

import "testing"

func TestNamesInALanguage(t *testing.T) {
	names := map[string]string{"en": "Finance", "de": "Finanzen", "pt-br": "Finanças BR", "zh-hant": "財務", "nb": "Økonomi"}
	for lang, want := range map[string]string{
		"":            "Finance",
		"en":          "Finance",
		"en-gb":       "Finance",
		"de":          "Finanzen",
		"de-at":       "Finanzen",
		"pt-br":       "Finanças BR",
		"pt":          "Finanças BR", // another Portuguese is nearer than English
		"pt-pt":       "Finanças BR",
		"zh-hant-tw":  "財務",
		"zh":          "財務",
		"n":           "Finance", // not a prefix of letters, a whole subtag
		"fr":          "Finance",
		"fr-fr-x-any": "Finance",
	} {
		if got := inLanguage(names, lang); got != want {
			t.Errorf("%s: %s, want %s", lang, got, want)
		}
	}
	for _, c := range []struct {
		names map[string]string
		lang  string
		want  string
	}{
		{map[string]string{"fr": "b", "de": "a"}, "", "a"},
		{map[string]string{"fr": "b", "en-us": "c"}, "de", "c"},
		{nil, "de", ""},
	} {
		if got := inLanguage(c.names, c.lang); got != c.want {
			t.Errorf("%v in %q: %q, want %q", c.names, c.lang, got, c.want)
		}
	}
}

func TestLanguageOfTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		all, messages, lang, asked string
		want                       string
	}{
		{lang: "de_AT.UTF-8", want: "de-at"},
		{lang: "de_DE@euro", want: "de-de"},
		{lang: "en_US.UTF-8", messages: "de_DE.UTF-8", want: "de-de"},
		{lang: "en_US.UTF-8", messages: "de_DE.UTF-8", all: "fr_FR.UTF-8", want: "fr-fr"},
		{lang: "de_DE.UTF-8", all: "C.UTF-8", want: ""}, // C is a choice, too
		{lang: "de_DE.UTF-8", messages: "POSIX", want: ""},
		{lang: "de_DE.UTF-8", asked: "pt_BR", want: "pt-br"},
		{lang: "de_DE.UTF-8", asked: "zh-Hant", want: "zh-hant"},
		{want: ""},
		{lang: "../../etc", want: ""},
	} {
		t.Setenv("LC_ALL", c.all)
		t.Setenv("LC_MESSAGES", c.messages)
		t.Setenv("LANG", c.lang)
		if got, err := languageOf(c.asked); err != nil || got != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	if _, err := languageOf("German please"); describe(err).Exit != exitUsage {
		t.Errorf("no language: %v", err)
	}
}
