package server

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/policy"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// templateFor returns a template with grants for people whose addresses have
// size bytes.
func templateFor(grants, size int) *rmsv1.Template {
	t := &rmsv1.Template{}
	for i := range grants {
		address := fmt.Sprintf("%05d.", i)
		address += strings.Repeat("a", size-len(address)-len("@contoso.com")) + "@contoso.com"
		t.Grants = append(t.Grants, &rmsv1.Grant{
			To: "user:" + address, Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW, rmsv1.Right_RIGHT_PRINT, rmsv1.Right_RIGHT_OBJMODEL},
		})
	}
	return t
}

// As many grants as a template may have go through the door, as long as the
// addresses are not extraordinary.
func TestLargestTemplateFitsARequest(t *testing.T) {
	for size, fits := range map[int]bool{36: true, 64: true, 72: false} {
		n := proto.Size(&rmsv1.UpdateTemplateRequest{Template: templateFor(policy.MaxTemplateGrants, size)})
		t.Logf("%d grants, addresses of %d bytes: a request of %d bytes", policy.MaxTemplateGrants, size, n)
		if n <= maxTemplateRequest != fits {
			t.Errorf("addresses of %d bytes: fits %v, want %v", size, n <= maxTemplateRequest, fits)
		}
	}
}

func TestFitting(t *testing.T) {
	megabyte := templateFor(20_000, 36)
	huge := templateFor(policy.MaxTemplateGrants, 72)
	if n := proto.Size(megabyte); n < 900_000 || n > maxPageBytes/3 {
		t.Fatalf("the template has %d bytes", n)
	}
	for name, c := range map[string]struct {
		items []*rmsv1.Template
		want  int
	}{
		"none":            {nil, 0},
		"all":             {[]*rmsv1.Template{megabyte, megabyte, megabyte}, 3},
		"cut":             {[]*rmsv1.Template{megabyte, megabyte, megabyte, megabyte, megabyte}, 3},
		"one always goes": {[]*rmsv1.Template{huge, megabyte}, 1},
	} {
		if got := fitting(c.items); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
