package server

import (
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

const (
	// maxRequest bounds one request, in bytes; gRPC's own default limit.
	maxRequest = 4 << 20
	// maxTemplateRequest bounds templates. It leaves room for what the answer
	// has more than the request, for clients take as much as servers.
	maxTemplateRequest = maxRequest - 8<<10
	// maxGroupRequest bounds groups. The answer also says what the edit changed.
	maxGroupRequest = 3 << 20
	// maxHeaders bounds the metadata of one call, in bytes: a token of the
	// largest size that is read, and room for what proxies add.
	maxHeaders = 64 << 10
	// maxPlainRequest bounds all other requests than batches, templates and groups.
	maxPlainRequest = 1 << 20
)

// checkShape bounds and validates a request.
func (d *door) checkShape(req proto.Message) error {
	limit := maxPlainRequest
	switch req.(type) {
	case *rmsv1.BatchAcquireRequest: // has a limit and a reason of its own
		limit = maxRequest
	case *rmsv1.CreateTemplateRequest, *rmsv1.UpdateTemplateRequest, *rmsv1.PreviewTemplateRequest:
		limit = maxTemplateRequest
	case *rmsv1.CreateGroupRequest, *rmsv1.UpdateGroupRequest:
		limit = maxGroupRequest
	}
	if n := proto.Size(req); n > limit {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the request has %d bytes; %d are allowed", n, limit)
	}
	if anyMessage(req.ProtoReflect(), hasUnknown) {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the request has fields this server does not know").
			WithNext("Use a client of the server's version or an older one")
	}
	if anyMessage(req.ProtoReflect(), hasOddText) {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "a text in the request has control characters or is not in Unicode normal form C").
			WithNext("Write it as one line of plain text")
	}
	if err := d.validate.Validate(req); err != nil {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "the request is not valid: %s", firstViolation(err))
	}
	return nil
}

// hasUnknown reports whether a message has fields this server does not know.
// Passing over one could widen what the caller means: a condition of a grant,
// say, that only a newer server has.
func hasUnknown(m protoreflect.Message) bool { return len(m.GetUnknown()) > 0 }

// hasOddText reports whether a message has text that no record can hold. What
// is only recorded, as the caller says it, is made to fit instead (package
// audit): nobody fails to open a document over it.
func hasOddText(m protoreflect.Message) (found bool) {
	switch m.Interface().(type) {
	case *rmsv1.AcquireRequest, *rmsv1.ClientInfo:
		return false
	}
	odd := func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		return f.Kind() == protoreflect.StringKind && canon.CheckText(v.String()) != nil
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				found = odd(f.MapKey(), k.Value()) || odd(f.MapValue(), v)
				return !found
			})
		case f.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				found = odd(f, v.List().Get(i))
			}
		default:
			found = odd(f, v)
		}
		return !found
	})
	return found
}

// anyMessage reports whether is holds for a message or one inside it.
func anyMessage(m protoreflect.Message, is func(protoreflect.Message) bool) bool {
	if is(m) {
		return true
	}
	found := false
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					found = anyMessage(v.Message(), is)
					return !found
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				found = anyMessage(v.List().Get(i).Message(), is)
			}
		default:
			found = anyMessage(v.Message(), is)
		}
		return !found
	})
	return found
}

// firstViolation names the first field that is wrong, without its value.
func firstViolation(err error) string {
	if v, ok := err.(*protovalidate.ValidationError); ok && len(v.Violations) > 0 { //nolint:errorlint // the library returns it unwrapped
		p := v.Violations[0].Proto
		return strings.TrimSpace(protovalidate.FieldPathString(p.GetField()) + " " + p.GetMessage())
	}
	return "its shape cannot be checked"
}

// cost is how many decisions a request asks for.
func cost(req proto.Message) int {
	if b, ok := req.(*rmsv1.BatchAcquireRequest); ok {
		return max(1, min(len(b.GetItems()), maxBatch))
	}
	return 1
}
