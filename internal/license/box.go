package license

import "bytes"

// Box returns the sealed content key: 60 bytes, which open with the key that
// [RecipientKey.OpenUL] derives.
func (u *UseLicense) Box() []byte { return bytes.Clone(u.envelope.Box) }
