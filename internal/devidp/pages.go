package devidp

import (
	"html/template"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// page lists who one can be. No scripts, nothing from elsewhere.
var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title>
<style>body{font:16px/1.5 system-ui;max-width:34em;margin:3em auto;padding:0 1em}button{font:inherit;width:100%;text-align:left;margin:.2em 0;padding:.4em .7em}small{color:#666}</style>
<h1>{{.Title}}</h1><p>{{.Text}}</p>
{{with .Users}}<form method="post" action="{{$.Action}}"><input type="hidden" name="{{$.Field}}" value="{{$.Value}}">
{{range .}}<button name="user" value="{{.Login}}">{{.Email}} <small>{{.Role}}</small></button>{{end}}
{{if $.Deny}}<button name="deny" value="1">None of them: refuse</button>{{end}}</form>{{end}}
{{if .Ask}}<form method="get"><input name="user_code" placeholder="XXXX-XXXX" autofocus><button>Go on</button></form>{{end}}
</html>`))

type pageData struct {
	Title, Text, Action, Field, Value string
	Users                             []User
	Deny, Ask                         bool
}

const warning = "DEVELOPMENT: test users without passwords. Who are you?"

func show(w http.ResponseWriter, status int, d pageData) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_ = page.Execute(w, d) // the browser went away: nobody to tell
}

func (p *Provider) loginPage(w http.ResponseWriter, r *http.Request) {
	show(w, http.StatusOK, pageData{Title: "Sign in", Text: warning, Action: "/login", Field: "request",
		Value: r.URL.Query().Get("request"), Users: p.options.Users})
}

func (p *Provider) login(w http.ResponseWriter, r *http.Request) {
	id := r.PostFormValue("request")
	u, ok := p.user(r.PostFormValue("user"))
	if !ok || p.store.signIn(id, u) != nil {
		show(w, http.StatusBadRequest, pageData{Title: "Not signed in", Text: "This sign-in is over. Start it again."})
		return
	}
	callback := op.AuthCallbackURL(p.op)(op.ContextWithIssuer(r.Context(), p.issuer), id)
	http.Redirect(w, r, callback, http.StatusSeeOther)
}

func (p *Provider) devicePage(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Query().Get("user_code")
	if code == "" {
		show(w, http.StatusOK, pageData{Title: "Sign in a device", Text: "Which code does the device show?", Ask: true})
		return
	}
	show(w, http.StatusOK, pageData{Title: "Sign in device " + code, Text: warning, Action: "/device", Field: "user_code",
		Value: code, Users: p.options.Users, Deny: true})
}

func (p *Provider) device(w http.ResponseWriter, r *http.Request) {
	code := r.PostFormValue("user_code")
	var err error
	if r.PostFormValue("deny") != "" {
		err = p.DenyDevice(code)
	} else {
		err = p.ApproveDevice(code, r.PostFormValue("user"))
	}
	if err != nil {
		show(w, http.StatusBadRequest, pageData{Title: "Not signed in", Text: "There is no such code, or it is over. Start again on the device."})
		return
	}
	show(w, http.StatusOK, pageData{Title: "Done", Text: "You can close this page and go on at the device."})
}
