// Package contexts keeps what a user's client knows about the servers it may
// talk to: one file for each context, holding the address, the tenant, the
// signing roots pinned at login and where to sign in.
//
// Contexts are the only source of addresses and trust of a client. A document
// names its tenant; whether and where that tenant is asked is decided here.
//
// A folder looks like this, every file for its owner alone:
//
//	current              the name of the context used when none is named
//	contexts/NAME.yaml   a context, see [Context]
//	tokens/NAME.json     its sign-in, written by package login
//	checkpoints/NAME     the last checkpoint of its tenant's log seen to be good
//	templates/NAME.json  the revisions of templates last written or read as files
package contexts
