package license

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// TemplateRevision is one signed revision of a template.
type TemplateRevision struct {
	Tenant      vocab.TenantID
	Certificate *Certificate
	// Template is its content; Template.Time is issued_at.
	Template *policy.Template

	envelope *Envelope
	verified bool
}

// Raw returns the signed bytes. The caller must not change them.
func (r *TemplateRevision) Raw() []byte { return r.envelope.raw }

type templateHeader struct {
	common
	templateFields
	Certificate []byte `cbor:"4,keyasint"`
}

// templateFields is what a revision says, whoever signs it and when.
type templateFields struct {
	UID          vocab.TemplateUID `cbor:"160,keyasint"`
	Revision     uint32            `cbor:"161,keyasint"`
	Slug         string            `cbor:"162,keyasint"`
	Names        [][2]string       `cbor:"163,keyasint,omitempty"`
	Descriptions [][2]string       `cbor:"164,keyasint,omitempty"`
	State        policy.State      `cbor:"165,keyasint"`
	Grants       []grantFields     `cbor:"166,keyasint,omitempty"`
	ExpiryAt     uint64            `cbor:"167,keyasint,omitempty"`
	ExpiryAfter  uint64            `cbor:"168,keyasint,omitempty"`
	Offline      uint64            `cbor:"169,keyasint,omitempty"`
	Longest      uint64            `cbor:"170,keyasint,omitempty"`
	Select       []string          `cbor:"171,keyasint,omitempty"`
	Contact      string            `cbor:"172,keyasint,omitempty"`
	Custody      vocab.CustodyMode `cbor:"173,keyasint,omitempty"`
	Author       string            `cbor:"174,keyasint,omitempty"`
	Comment      string            `cbor:"175,keyasint,omitempty"`
}

const (
	whatTemplate = "template revision"
	// maxDraft bounds a revision that is not signed yet, in bytes: what keeps
	// it while it waits adds who asks, and who approved.
	maxDraft = MaxTemplateEnvelope - 256<<10
)

// SignTemplate signs a revision with a daemon key whose certificate allows
// templates. Select is sorted; everything else is kept as it is.
func SignTemplate(ctx context.Context, signer Signer, cert *Certificate, t *policy.Template) (*TemplateRevision, error) {
	if err := cert.mayIssue(UsageTemplate, signer, cert.Tenant, t.Time); err != nil {
		return nil, err
	}
	head, err := newCommon(KindTemplate, cert.Tenant, t.Time)
	if err != nil {
		return nil, err
	}
	fields, err := toTemplateFields(t)
	if err != nil {
		return nil, err
	}
	h := &templateHeader{common: head, templateFields: *fields, Certificate: cert.Raw()}
	b, err := encodeHeader(KindTemplate, h)
	if err != nil {
		return nil, err
	}
	e, err := seal(ctx, KindTemplate, b, nil, signer)
	if err != nil {
		return nil, err
	}
	return ParseTemplate(e.raw)
}

// EncodeTemplate returns the canonical bytes of a revision that is not signed
// yet: what waits for somebody's approval. Its time is left out; signing gives
// it one. It refuses what [SignTemplate] would.
func EncodeTemplate(t *policy.Template) ([]byte, error) {
	fields, err := toTemplateFields(t)
	if err != nil {
		return nil, err
	}
	b, err := canon.Marshal(fields)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a text in this template has control characters or is not in Unicode normal form C").Because(err)
	}
	if len(b) > maxDraft {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "this template is %d bytes, more than %d", len(b), maxDraft).
			WithNext("Use groups in place of single people")
	}
	return b, nil
}

// DecodeTemplate reads what [EncodeTemplate] wrote, and nothing else.
func DecodeTemplate(b []byte) (*policy.Template, error) {
	if len(b) > maxDraft {
		return nil, malformed(whatTemplate, "%d bytes, more than %d", len(b), maxDraft)
	}
	var f templateFields
	if err := canon.Unmarshal(b, &f); err != nil {
		return nil, decoding(whatTemplate, err)
	}
	return f.template()
}

// toTemplateFields returns the fields of a revision that can be read back.
func toTemplateFields(t *policy.Template) (*templateFields, error) {
	h := &templateFields{
		UID: t.UID, Revision: t.Revision, Slug: t.Slug,
		Names: toPairs(t.Names), Descriptions: toPairs(t.Descriptions), State: t.State,
		Contact: t.Contact, Custody: t.Custody, Author: t.Author, Comment: t.Comment,
	}
	var err error
	for _, p := range t.Select {
		h.Select = append(h.Select, p.String())
	}
	slices.Sort(h.Select)
	h.Select = slices.Compact(h.Select)
	if h.Grants, err = toGrants(whatTemplate, t.Grants); err != nil {
		return nil, err
	}
	if h.Offline, h.Longest, err = toOffline(whatTemplate, t.Offline); err != nil {
		return nil, err
	}
	switch t.Expiry.Kind {
	case policy.ExpiryNever:
	case policy.ExpiryOnDate:
		h.ExpiryAt, err = millis(whatTemplate, "expiry", t.Expiry.At)
		if err == nil && h.ExpiryAt == 0 {
			err = malformed(whatTemplate, "expiry without date")
		}
	case policy.ExpiryAfter:
		var longest uint64
		h.ExpiryAfter, longest, err = toOffline(whatTemplate, t.Expiry.After)
		if err == nil && (longest != 0 || h.ExpiryAfter == 0) {
			err = malformed(whatTemplate, "expiry without period")
		}
	default:
		err = malformed(whatTemplate, "unknown kind of expiry")
	}
	if err == nil {
		_, err = h.template()
	}
	return h, err
}

// ParseTemplate reads a revision and verifies nothing.
func ParseTemplate(b []byte) (*TemplateRevision, error) {
	var h templateHeader
	e, err := open(b, KindTemplate, &h, &h.common)
	if err != nil {
		return nil, err
	}
	t, err := h.template()
	if err != nil {
		return nil, err
	}
	t.Time = h.issued()
	cert, err := ParseCertificate(h.Certificate)
	if err != nil {
		return nil, err
	}
	return &TemplateRevision{Tenant: h.Tenant, Certificate: cert, Template: t, envelope: e}, nil
}

// template checks the fields and returns their meaning.
func (h *templateFields) template() (*policy.Template, error) {
	t := &policy.Template{
		UID: h.UID, Slug: h.Slug, Revision: h.Revision, State: h.State, Contact: h.Contact,
		Custody: h.Custody, Author: h.Author, Comment: h.Comment,
	}
	switch {
	case h.UID.IsZero() || h.Revision == 0:
		return nil, malformed(whatTemplate, "no identity")
	case !vocab.ValidSlug(h.Slug):
		return nil, malformed(whatTemplate, "bad name")
	case h.State < policy.StatePublished || h.State > policy.StateDeleted:
		return nil, malformed(whatTemplate, "unknown state")
	case h.Custody != 0 && !h.Custody.Valid():
		return nil, malformed(whatTemplate, "unknown custody mode")
	case max(len(h.Contact), len(h.Author), len(h.Comment)) > maxText:
		return nil, malformed(whatTemplate, "a text is too long")
	case h.ExpiryAt != 0 && h.ExpiryAfter != 0:
		return nil, malformed(whatTemplate, "two kinds of expiry")
	case h.ExpiryAfter > uint64(maxOffline/time.Millisecond):
		return nil, malformed(whatTemplate, "bad expiry")
	case len(h.Select) > MaxGrants || !sortedUnique(h.Select, cmp.Compare[string]):
		return nil, malformed(whatTemplate, "bad list of who may choose it")
	}
	var err error
	if h.ExpiryAt != 0 {
		t.Expiry.Kind = policy.ExpiryOnDate
		if t.Expiry.At, err = instant(whatTemplate, "expiry", h.ExpiryAt); err != nil {
			return nil, err
		}
	}
	if h.ExpiryAfter != 0 {
		t.Expiry = policy.Expiry{Kind: policy.ExpiryAfter, After: time.Duration(h.ExpiryAfter) * time.Millisecond}
	}
	if t.Offline, err = fromOffline(whatTemplate, h.Offline, h.Longest); err != nil {
		return nil, err
	}
	if t.Grants, err = fromGrants(whatTemplate, h.Grants, policy.MaxTemplateGrants); err != nil {
		return nil, err
	}
	for _, s := range h.Select {
		p, err := principal(whatTemplate, s)
		if err != nil {
			return nil, err
		}
		t.Select = append(t.Select, p)
	}
	if t.Names, err = fromPairs(h.Names); err != nil {
		return nil, err
	}
	t.Descriptions, err = fromPairs(h.Descriptions)
	return t, err
}

// toPairs and fromPairs carry a map from language tag to text, sorted by tag:
// map keys are numbers in our dialect.
func toPairs(m map[string]string) [][2]string {
	var out [][2]string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, [2]string{k, m[k]})
	}
	return out
}

func fromPairs(pairs [][2]string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	if len(pairs) > maxMap || !sortedUnique(pairs, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) }) {
		return nil, malformed(whatTemplate, "bad list of languages")
	}
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		if p[0] == "" || len(p[0]) > 35 || len(p[1]) > maxText {
			return nil, malformed(whatTemplate, "bad language or text")
		}
		m[p[0]] = p[1]
	}
	return m, nil
}
