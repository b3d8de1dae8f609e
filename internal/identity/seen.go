package identity

import (
	"crypto/sha256"
	"sync"
)

// maxSeen bounds how many tokens are remembered for a key: 40 bytes each.
const maxSeen = 16 << 10

// seenTokens remembers tokens whose signature was good under one key, so that
// a caller's token costs one verification and not one for each call. It belongs
// to the key: a key that the issuer withdrew or replaced takes it along, and a
// refreshed key begins anew. Only the signature is remembered, which the bytes
// of the token and the key decide alone; times, audience, binding and trust
// are checked at every call. It holds hashes, no tokens.
type seenTokens struct {
	mu  sync.Mutex
	set map[[32]byte]struct{}
}

func (s *seenTokens) has(raw string) bool {
	h := sha256.Sum256([]byte(raw))
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.set[h]
	return ok
}

func (s *seenTokens) add(raw string) {
	h := sha256.Sum256([]byte(raw))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil || len(s.set) >= maxSeen {
		s.set = make(map[[32]byte]struct{})
	}
	s.set[h] = struct{}{}
}
