package canon

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// MaxSize is the largest encoding Unmarshal looks at, in bytes: what the
// largest signed object, a template revision, may weigh. Formats set tighter
// limits of their own, before anything is parsed.
const MaxSize = 8 << 20

// FirstIgnorableKey is the first map key a reader may ignore when it does not
// know it. An unknown key below it is critical: the object is refused.
const FirstIgnorableKey = 0x8000

// Errors of [Unmarshal] and [Marshal]. Both are matched with errors.Is.
var (
	// ErrMalformed says that bytes are not the one deterministic encoding
	// of the wanted type.
	ErrMalformed = errors.New("not in deterministic form")
	// ErrUnknownKey says that a map has a key below [FirstIgnorableKey]
	// this version does not know: most likely the object is newer.
	ErrUnknownKey = errors.New("unknown critical field")
)

var (
	encMode = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
		TagsMd:        cbor.TagsForbidden,
		OmitEmpty:     cbor.OmitEmptyGoValue,
	}.EncMode())
	// decMode leaves unknown keys to the comparison in Unmarshal, which
	// knows the two kinds of them.
	decMode = must(decOptions(cbor.ExtraDecErrorNone).DecMode())
	// strictMode is used on the error path, to name an unknown key.
	strictMode = must(decOptions(cbor.ExtraDecErrorUnknownField).DecMode())
)

func decOptions(extra cbor.ExtraDecErrorCond) cbor.DecOptions {
	return cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		BignumTag:         cbor.BignumTagForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		IntDec:            cbor.IntDecConvertNone,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
		MaxNestedLevels:   MaxNesting,
		MaxArrayElements:  1 << 16,
		MaxMapPairs:       1 << 16,
		ExtraReturnErrors: extra,
	}
}

func must[M any](m M, err error) M {
	if err != nil {
		panic("internal error: CBOR options: " + err.Error())
	}
	return m
}

// Marshal returns the deterministic encoding of v. Structs carry tags like
// `cbor:"16,keyasint,omitempty"`; nil slices are empty. It fails for what the
// dialect has no form for: negative numbers, floats, booleans, null, map keys
// that are not unsigned, text that is not NFC or has control characters, and
// nesting deeper than [MaxNesting].
func Marshal(v any) ([]byte, error) {
	b, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if err := Check(b); err != nil {
		return nil, err
	}
	return b, nil
}

// Unmarshal reads b, the whole of which must be the one encoding that
// [Marshal] makes of the result, into the value v points to. Map keys from
// [FirstIgnorableKey] up are skipped when v does not know them.
//
// The error wraps [ErrMalformed] or [ErrUnknownKey]. *v is meaningless after
// an error.
func Unmarshal(b []byte, v any) error {
	if err := Check(b); err != nil {
		return err
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	// The library is lenient in places (a byte string of the wrong length
	// fits a Go array). Whatever was lost or bent on the way in does not
	// come out again.
	again, err := encMode.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if bytes.Equal(b, again) {
		return nil
	}
	known := withoutIgnorable(b)
	if bytes.Equal(known, withoutIgnorable(again)) {
		return nil
	}
	fresh := reflect.New(reflect.TypeOf(v).Elem()).Interface()
	if err, ok := errors.AsType[*cbor.UnknownFieldError](strictMode.Unmarshal(known, fresh)); ok {
		return fmt.Errorf("%w (%v)", ErrUnknownKey, err)
	}
	return fmt.Errorf("%w: a field has the wrong size, or is present although empty", ErrMalformed)
}
