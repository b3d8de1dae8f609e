package server

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// method describes a method with an access option; nil: with none.
func method(t *testing.T, a *rmsv1.Access) protoreflect.MethodDescriptor {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	if a != nil {
		proto.SetExtension(options, rmsv1.E_Access, a)
	}
	f, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("test.proto"), Package: new("test.v1"), Syntax: new("proto3"),
		Dependency: []string{"rms/v1/operator.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: new("TestService"),
			Method: []*descriptorpb.MethodDescriptorProto{{
				Name: new("Do"), InputType: new(".rms.v1.StatusRequest"), OutputType: new(".rms.v1.StatusResponse"),
				Options: options,
			}},
		}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return f.Services().Get(0).Methods().Get(0)
}

func TestAMethodNobodyThoughtAboutIsNotServed(t *testing.T) {
	auditor := []rmsv1.Role{rmsv1.Role_ROLE_AUDITOR}
	for _, c := range []struct {
		name   string
		access *rmsv1.Access
		want   string // in the error; empty: served
	}{
		{"no option", nil, "no access option"},
		{"an option without a level", &rmsv1.Access{}, "without a level"},
		{"an option without a level but acts", &rmsv1.Access{Acts: true}, "without a level"},
		{"roles without a level", &rmsv1.Access{Roles: auditor}, "without a level"},
		{"a role method without roles", &rmsv1.Access{Level: rmsv1.Access_LEVEL_ROLE}, "do not fit"},
		{"an owner method without roles", &rmsv1.Access{Level: rmsv1.Access_LEVEL_OWNER}, "do not fit"},
		{"a public method with roles", &rmsv1.Access{Level: rmsv1.Access_LEVEL_PUBLIC, Roles: auditor}, "do not fit"},
		{"a signed-in method with roles", &rmsv1.Access{Level: rmsv1.Access_LEVEL_SIGNED_IN, Roles: auditor}, "do not fit"},
		{"an operator method with roles", &rmsv1.Access{Level: rmsv1.Access_LEVEL_OPERATOR, Roles: auditor}, "do not fit"},
		{"a level of a newer version", &rmsv1.Access{Level: 99}, "no such level"},
		{"a role of a newer version", &rmsv1.Access{Level: rmsv1.Access_LEVEL_ROLE, Roles: []rmsv1.Role{99}}, "no such role"},
		{"the role of nobody", &rmsv1.Access{Level: rmsv1.Access_LEVEL_ROLE, Roles: []rmsv1.Role{0}}, "no such role"},
		{"a public method", &rmsv1.Access{Level: rmsv1.Access_LEVEL_PUBLIC}, ""},
		{"a signed-in method", &rmsv1.Access{Level: rmsv1.Access_LEVEL_SIGNED_IN, Acts: true}, ""},
		{"a role method", &rmsv1.Access{Level: rmsv1.Access_LEVEL_ROLE, Roles: auditor}, ""},
		{"an owner method", &rmsv1.Access{Level: rmsv1.Access_LEVEL_OWNER, Roles: auditor}, ""},
		{"an operator method", &rmsv1.Access{Level: rmsv1.Access_LEVEL_OPERATOR}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := accessOf(method(t, c.access))
			if c.want == "" {
				if err != nil || !proto.Equal(got, c.access) {
					t.Errorf("got %v (%v), want %v", got, err, c.access)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}
}

func TestEveryMethodHasARule(t *testing.T) {
	table, err := accessTable()
	if err != nil {
		t.Fatal(err)
	}
	methods := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("rms.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				m := f.Services().Get(i).Methods().Get(j)
				full := "/" + string(f.Services().Get(i).FullName()) + "/" + string(m.Name())
				methods++
				if table[full] == nil {
					t.Errorf("%s has no rule", full)
				}
			}
		}
		return true
	})
	if methods != len(table) || methods < 30 {
		t.Errorf("%d methods, %d rules", methods, len(table))
	}
	operator := func(full string) bool { return strings.HasPrefix(full, "/rms.v1.OperatorService/") }
	for full, a := range table {
		if operator(full) != (a.GetLevel() == rmsv1.Access_LEVEL_OPERATOR) {
			t.Errorf("%s has level %s: the operator's socket and the network must not mix", full, a.GetLevel())
		}
	}
}

// Every role of the contract is one of the service, by the same name.
func TestRolesHaveTheSameNames(t *testing.T) {
	values := rmsv1.Role(0).Descriptor().Values()
	var roles []rmsv1.Role
	for i := range values.Len() {
		if n := values.Get(i).Number(); n != 0 {
			roles = append(roles, rmsv1.Role(n))
		}
	}
	var got []string
	for _, r := range rolesOf(roles) {
		got = append(got, string(r))
	}
	want := []string{"tenant-admin", "policy-admin", "key-custodian", "auditor", "recovery-officer"}
	if !slices.Equal(got, want) {
		t.Errorf("the contract's roles are %q, the service's %q", got, want)
	}
}
