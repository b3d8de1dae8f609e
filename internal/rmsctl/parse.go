package rmsctl

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// maxDuration keeps sums of times far from overflow: a hundred years.
const maxDuration = 100 * 365 * 24 * time.Hour

// parseDuration reads a period as people and templates write it: "7d", "12h",
// "30m", "10s" or "0".
func parseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	bad := usagef("%q is not a period", s).withNext("Write it like 7d, 12h, 30m or 10s")
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || time.Duration(n) > maxDuration/(24*time.Hour) {
			return 0, bad
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxDuration {
		return 0, bad
	}
	return d, nil
}

// showDuration writes a period back, in days where that is exact.
func showDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == 0:
		return "0"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	}
	return d.String()
}

// parseInstant reads a time: +PERIOD from now on, or RFC 3339 with its zone.
func parseInstant(s string, now time.Time) (time.Time, error) {
	if period, ok := strings.CutPrefix(s, "+"); ok {
		d, err := parseDuration(period)
		if err != nil || d == 0 {
			return time.Time{}, usagef("%q is not a time", s).withNext("Write it like +30d or 2027-06-30T18:00:00+02:00")
		}
		return now.Add(d).UTC().Truncate(time.Millisecond), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, usagef("%q is not a time", s).withNext("Write it like +30d or 2027-06-30T18:00:00+02:00")
	}
	return t.UTC().Truncate(time.Millisecond), nil
}

// parseSince reads a time that has passed: a PERIOD ago, or RFC 3339.
func parseSince(s string, now time.Time) (time.Time, error) {
	if d, err := parseDuration(s); err == nil {
		return now.Add(-d).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, usagef("%q is not a time", s).withNext("Write it like 7d (ago) or 2026-11-01T00:00:00Z")
	}
	return t.UTC(), nil
}

// parsePrincipal reads a principal; an e-mail address alone is a user's.
func parsePrincipal(s string) (vocab.Principal, error) {
	if !strings.Contains(s, ":") && strings.Contains(s, "@") {
		s = "user:" + s
	}
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		return p, usagef("%v", err)
	}
	return p, nil
}

// parseRights reads a level, or rights joined with "+".
func parseRights(s string) (vocab.Rights, error) {
	level, err := policy.ParseLevel(s)
	if err == nil {
		return level.Rights(), nil
	}
	var rights vocab.Rights
	for name := range strings.SplitSeq(s, "+") {
		r, rightErr := vocab.ParseRight(name)
		if rightErr != nil {
			if strings.Contains(s, "+") || strings.ToUpper(s) == s {
				err = rightErr
			}
			return 0, usagef("%v", err)
		}
		rights |= vocab.RightsOf(r)
	}
	return rights, nil
}

// termsFlags say when what --to gives holds.
type termsFlags struct {
	until, login string
	networks     []string
}

func (f *termsFlags) register(c *cobra.Command, of string) {
	flags := c.Flags()
	flags.StringVar(&f.until, "until", "", of+"until when what --to gives holds, +30d or an RFC 3339 time")
	flags.StringVar(&f.login, "login", "", of+"mfa: what --to gives holds only after a sign-in with a second factor")
	flags.StringArrayVar(&f.networks, "network", nil, of+"what --to gives holds only from there, like 10.20.0.0/16 (may be repeated)")
}

// given reports whether there is any.
func (f *termsFlags) given() bool { return f.until != "" || f.login != "" || len(f.networks) > 0 }

// grants reads --to of an ad hoc policy: PRINCIPAL=RIGHTS, several separated by
// commas or given one by one.
func (f *termsFlags) grants(to []string, now time.Time) ([]policy.Grant, error) {
	var terms policy.Grant
	var err error
	if f.until != "" {
		if terms.Until, err = parseInstant(f.until, now); err != nil {
			return nil, err
		}
	}
	switch f.login {
	case "", "any":
	case "mfa":
		terms.Login = policy.LoginMFA
	default:
		return nil, usagef("%q is not a strength of login", f.login).withNext("Write mfa, or leave --login out")
	}
	for _, s := range splitList(f.networks) {
		n, err := policy.ParseNetwork(s)
		if err != nil {
			return nil, usagef("%v", err)
		}
		terms.Networks = append(terms.Networks, n)
	}
	terms.Networks = policy.SortedNetworks(terms.Networks)
	var grants []policy.Grant
	for _, v := range splitList(to) {
		i := strings.LastIndexByte(v, '=') // "=" is allowed in an address
		if i < 0 {
			return nil, usagef("--to %s does not say what they may do", v).
				withNext("Write --to %s=viewer (or reviewer, co-author, co-owner, or rights like VIEW+PRINT)", v)
		}
		g := terms
		if g.To, err = parsePrincipal(v[:i]); err != nil {
			return nil, err
		}
		if g.Rights, err = parseRights(v[i+1:]); err != nil {
			return nil, err
		}
		grants = append(grants, g)
	}
	return grants, nil
}

// parsePrincipals reads --to where everyone gets the same.
func parsePrincipals(values []string) ([]vocab.Principal, error) {
	var out []vocab.Principal
	for _, v := range splitList(values) {
		p, err := parsePrincipal(v)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func splitList(values []string) []string {
	var out []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// rightsOf reads the rights of an answer; unknown ones, of a newer server, are
// left out.
func rightsOf(list []rmsv1.Right) vocab.Rights {
	var rights vocab.Rights
	for _, r := range list {
		if right := vocab.Right(r - 1); r > 0 && right.Valid() {
			rights |= vocab.RightsOf(right)
		}
	}
	return rights
}

// rightsProto writes rights for the API, whose numbers are one higher.
func rightsProto(rights vocab.Rights) []rmsv1.Right {
	var out []rmsv1.Right
	for _, r := range rights.List() {
		out = append(out, rmsv1.Right(r)+1)
	}
	return out
}

// isFile says whether an argument that may be a file or an ID is a file.
func isFile(arg string) bool {
	_, err := os.Stat(arg) //nolint:gosec // a file that the user named
	return err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR)
}
