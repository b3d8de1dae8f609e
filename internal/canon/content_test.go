package canon_test

import (
	"bytes"
	"testing"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// A commitment is of one key for one document in one suite.
func TestCommits(t *testing.T) {
	ck := vocab.SecretFrom(bytes.Repeat([]byte{1}, 32)) // test value
	other := vocab.SecretFrom(bytes.Repeat([]byte{2}, 32))
	tenant, content := vocab.TenantID{1}, vocab.ContentID{2}
	c := canon.Commitment(ck, tenant, content, canon.ContentSuite1)
	for name, tt := range map[string]struct {
		ck      *vocab.Secret
		tenant  vocab.TenantID
		content vocab.ContentID
		suite   uint16
		want    bool
	}{
		"itself":         {ck, tenant, content, 1, true},
		"another key":    {other, tenant, content, 1, false},
		"no key":         {nil, tenant, content, 1, false},
		"another tenant": {ck, vocab.TenantID{3}, content, 1, false},
		"another ID":     {ck, tenant, vocab.ContentID{3}, 1, false},
		"another suite":  {ck, tenant, content, 2, false},
	} {
		if got := canon.Commits(c, tt.ck, tt.tenant, tt.content, tt.suite); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if bytes.Equal(canon.StreamKey(ck).Reveal(), canon.MetaKey(ck).Reveal()) {
		t.Error("content and metadata share a key")
	}
}
