package server

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"

	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

const (
	defaultPage = 100
	tokenMAC    = 16
	maxCursor   = 270 // a principal's name
	// maxPageBytes ends a page early, so that templates of several megabytes and
	// many long ad hoc policies cannot make an answer larger than clients take.
	maxPageBytes = 3 << 20
)

// pages makes and reads page tokens. A token is bound to the caller and to the
// rest of the request, so that it cannot be used by another caller or to widen
// a filter. The key lives as long as the process: a token does not survive a
// restart.
type pages struct{ key []byte }

func newPages() *pages {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (Go 1.24)
	return &pages{key}
}

// size is the wanted number of items.
func pageSize(n int32) int {
	if n == 0 {
		return defaultPage
	}
	return int(n)
}

// fitting returns how many items from the start go into one answer: one at
// least, and more as long as they have maxPageBytes together.
func fitting[M proto.Message](items []M) (n int) {
	size := 0
	for i, m := range items {
		if size += proto.Size(m); size > maxPageBytes && i > 0 {
			return i
		}
	}
	return len(items)
}

// mac covers the cursor, the caller and the request without its token and
// size.
func (p *pages) mac(c *call, request proto.Message, cursor []byte) []byte {
	r := proto.Clone(request)
	m := r.ProtoReflect()
	for _, name := range []string{"page_token", "page_size"} {
		for i := range m.Descriptor().Fields().Len() {
			if f := m.Descriptor().Fields().Get(i); string(f.Name()) == name {
				m.Clear(f)
			}
		}
	}
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(r) // of a message that was just received
	who := canon.PrincipalID(c.caller.Issuer, c.caller.Subject)
	h := hmac.New(sha256.New, p.key)
	for _, part := range [][]byte{[]byte(c.method), who[:], cursor} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	h.Write(b)
	return h.Sum(nil)[:tokenMAC]
}

// next returns the token that leads to cursor; "" for an empty one.
func (p *pages) next(c *call, request proto.Message, cursor []byte) string {
	if len(cursor) == 0 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append(p.mac(c, request, cursor), cursor...))
}

// cursor returns where a token leads; nil for the first page.
func (p *pages) cursor(c *call, request interface {
	proto.Message
	GetPageToken() string
},
) ([]byte, error) {
	token := request.GetPageToken()
	if token == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) <= tokenMAC || len(b) > tokenMAC+maxCursor || !hmac.Equal(b[:tokenMAC], p.mac(c, request, b[tokenMAC:])) {
		return nil, vocab.Errorf(vocab.ReasonPageTokenInvalid, "the page token is not one of this listing").
			WithNext("Start from the first page; tokens end with the listing's filter, the caller and the server's restart")
	}
	return b[tokenMAC:], nil
}
