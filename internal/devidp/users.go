package devidp

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// User is somebody who can sign in.
type User struct {
	// Email is the address; the part before the @ is the login name.
	Email string
	// Unverified makes email_verified false.
	Unverified bool
	// Name is the full name.
	Name string
	// Role says in a few words who this is, for the sign-in page.
	Role string
	// Groups is the groups claim.
	Groups []string
	// AMR are the authentication methods (RFC 8176); "mfa" for a second factor.
	AMR []string
	// Claims are further claims of the access token.
	Claims map[string]any
}

// Login returns the login name.
func (u User) Login() string {
	name, _, _ := strings.Cut(u.Email, "@")
	return name
}

// Subject returns the sub of the user's tokens: derived from the address, so
// that it survives restarts, and opaque, as with real providers.
func (u User) Subject() string {
	sum := sha256.Sum256([]byte("devidp subject\x00" + u.Email))
	return hex.EncodeToString(sum[:16])
}

// ContosoUsers returns the people of contoso.test.
func ContosoUsers() []User {
	return []User{
		{Email: "alice@contoso.test", Name: "Alice Adams", Role: "administrator, publishes", AMR: []string{"pwd", "mfa"},
			Groups: []string{"all-staff@contoso.test", "finance@contoso.test", "board@contoso.test"}},
		{Email: "bob@contoso.test", Name: "Bob Brown", Role: "intern", AMR: []string{"pwd"},
			Groups: []string{"all-staff@contoso.test", "interns@contoso.test"}},
		{Email: "carla@contoso.test", Name: "Carla Cruz", Role: "key custodian", AMR: []string{"pwd", "mfa"},
			Groups: []string{"all-staff@contoso.test", "custodians@contoso.test"}},
		{Email: "dan@contoso.test", Name: "Dan Dorn", Role: "key custodian", AMR: []string{"pwd", "mfa"},
			Groups: []string{"all-staff@contoso.test", "custodians@contoso.test"}},
		{Email: "erin@contoso.test", Name: "Erin Ek", Role: "auditor", AMR: []string{"pwd", "mfa"},
			Groups: []string{"all-staff@contoso.test", "auditors@contoso.test"}},
		{Email: "grace@contoso.test", Name: "Grace Grant", Role: "second administrator", AMR: []string{"pwd", "mfa"},
			Groups: []string{"all-staff@contoso.test"}},
		{Email: "heidi@contoso.test", Name: "Heidi Holm", Role: "recovery officer", AMR: []string{"pwd", "mfa"},
			Groups: []string{"all-staff@contoso.test"}},
		{Email: "mallory@contoso.test", Name: "Mallory Moss", Role: "no rights on anything", AMR: []string{"pwd"},
			Groups: []string{"all-staff@contoso.test"}},
	}
}

// FabrikamUsers returns the people of fabrikam.test, another organisation.
func FabrikamUsers() []User {
	return []User{
		{Email: "dave@fabrikam.test", Name: "Dave Dunn", Role: "partner", AMR: []string{"pwd"},
			Groups: []string{"partners@fabrikam.test"}},
		{Email: "fay@fabrikam.test", Name: "Fay Fox", Role: "partner", AMR: []string{"pwd"}},
	}
}

// Logins returns the login names of the users, in their order.
func (p *Provider) Logins() []string {
	var names []string
	for _, u := range p.options.Users {
		names = append(names, u.Login())
	}
	return names
}

func (p *Provider) user(login string) (User, bool) { return p.store.userBy(User.Login, login) }
