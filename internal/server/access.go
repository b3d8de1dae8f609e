package server

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// accessTable reads who may call each method from the methods' own
// descriptors. It fails if a method has no access option, or one that makes no
// sense: a method nobody thought about must not be served.
func accessTable() (map[string]*rmsv1.Access, error) {
	table := map[string]*rmsv1.Access{}
	var problem error
	protoregistry.GlobalFiles.RangeFilesByPackage("rms.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				full := "/" + string(service.FullName()) + "/" + string(m.Name())
				a, err := accessOf(m)
				if err != nil {
					problem = fmt.Errorf("%s: %w", full, err)
					return false
				}
				table[full] = a
			}
		}
		return true
	})
	return table, problem
}

func accessOf(m protoreflect.MethodDescriptor) (*rmsv1.Access, error) {
	if !proto.HasExtension(m.Options(), rmsv1.E_Access) {
		return nil, fmt.Errorf("no access option")
	}
	a, ok := proto.GetExtension(m.Options(), rmsv1.E_Access).(*rmsv1.Access)
	if !ok || a.GetLevel() == rmsv1.Access_LEVEL_UNSPECIFIED {
		return nil, fmt.Errorf("access option without a level")
	}
	if rmsv1.Access_Level_name[int32(a.GetLevel())] == "" {
		return nil, fmt.Errorf("there is no such level as %d", a.GetLevel())
	}
	for _, r := range a.GetRoles() {
		if r == rmsv1.Role_ROLE_UNSPECIFIED || rmsv1.Role_name[int32(r)] == "" {
			return nil, fmt.Errorf("there is no such role as %d", r)
		}
	}
	withRoles := a.Level == rmsv1.Access_LEVEL_ROLE || a.Level == rmsv1.Access_LEVEL_OWNER
	if withRoles != (len(a.Roles) > 0) {
		return nil, fmt.Errorf("level %s and its roles do not fit together", a.Level)
	}
	return a, nil
}

// methodName is what events and logs call a method: without its package.
func methodName(full string) string {
	return strings.TrimPrefix(strings.TrimPrefix(full, "/"), "rms.v1.")
}

// rolesOf translates roles: the contract's ROLE_POLICY_ADMIN is policy-admin.
func rolesOf(roles []rmsv1.Role) []vocab.Role {
	out := make([]vocab.Role, len(roles))
	for i, r := range roles {
		out[i] = vocab.Role(strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", "-"))
	}
	return out
}

func roleNames(roles []rmsv1.Role) string {
	var names []string
	for _, r := range rolesOf(roles) {
		names = append(names, string(r))
	}
	return strings.Join(names, " or ")
}
