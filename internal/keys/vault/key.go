package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Key is a [keys.Custodian] on two keys of a [Connection]'s mount, named by
// exact paths.
type Key struct {
	c          *Connection
	id         vocab.CustodianID
	root, sign string
	closed     atomic.Bool
}

var _ keys.Custodian = (*Key)(nil)

// ID implements [keys.Custodian].
func (k *Key) ID() vocab.CustodianID { return k.id }

// Close implements [keys.Custodian], but for the login: that is the
// [Connection]'s, which other keys may share and which outlives them.
func (k *Key) Close() error {
	k.closed.Store(true)
	return nil
}

// call is [Connection.call], unless the key was closed.
func (k *Key) call(ctx context.Context, method, path string, body any) (*answer, error) {
	if k.closed.Load() {
		return nil, closed()
	}
	return k.c.call(ctx, method, path, body)
}

// expected is [Client.expected], unless the key was closed.
func (k *Key) expected(ctx context.Context) (*health, error) {
	if k.closed.Load() {
		return nil, closed()
	}
	return k.c.client.expected(ctx)
}

// request is one item of a batch. The encoder puts the base64 on.
type request struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Context    []byte `json:"context"`
	Reference  string `json:"reference"`
}

type batch struct {
	Items []request `json:"batch_input"`
	// Without it Vault answers 400 as soon as one item fails. Not sent with
	// rewrap, which does not know it and would warn.
	PartialFailure int `json:"partial_failure_response_code,omitempty"`
}

// batchCall runs one batch on the root key and returns a result for every
// item, whatever the status was.
func (k *Key) batchCall(ctx context.Context, op string, items []request) ([]batchItem, string, error) {
	b := batch{Items: items}
	if op != "rewrap" {
		b.PartialFailure = http.StatusOK
	}
	ans, err := k.call(ctx, http.MethodPost, k.c.cfg.Mount+"/"+op+"/"+k.root, b)
	if r, ok := errors.AsType[*refused](err); ok {
		// When every item failed the status is 400 and the results are there.
		if r.status == http.StatusBadRequest && len(r.answer.Errors) == 0 && len(r.answer.Data) > 0 {
			ans, err = r.answer, nil
		} else {
			return nil, "", r.err
		}
	}
	if err != nil {
		return nil, "", err
	}
	defer clear(ans.Data) // may hold plaintext
	if err := ans.unwarned(); err != nil {
		return nil, ans.RequestID, err
	}
	results, err := parseBatch(ans.Data, len(items))
	if err != nil {
		return nil, ans.RequestID, keys.Integrity(err)
	}
	return results, ans.RequestID, nil
}

// Wrap implements [keys.Custodian].
func (k *Key) Wrap(ctx context.Context, items []keys.WrapItem) ([]keys.WrapResult, error) {
	if err := keys.CheckBatch(len(items)); err != nil {
		return nil, err
	}
	reqs := make([]request, len(items))
	for i, it := range items {
		sum := it.Binding.Sum()
		reqs[i] = request{Plaintext: it.Binding.Payload(it.Secret), Context: sum[:], Reference: strconv.Itoa(i)}
	}
	defer func() {
		for _, r := range reqs {
			clear(r.Plaintext)
		}
	}()
	results, id, err := k.batchCall(ctx, "encrypt", reqs)
	if err != nil {
		return nil, err
	}
	return k.wraps(results, id), nil
}

// wraps turns results with ciphertexts into wraps.
func (k *Key) wraps(results []batchItem, id string) []keys.WrapResult {
	out := make([]keys.WrapResult, len(results))
	for i, r := range results {
		out[i].RequestID = id
		if r.Error != "" {
			out[i].Err = itemError(r.Error)
			continue
		}
		version, raw, err := parseVersioned(r.Ciphertext)
		if err == nil && len(raw) != wrappedSize {
			err = fmt.Errorf("ciphertext of %d bytes, want %d", len(raw), wrappedSize)
		}
		if err != nil {
			out[i].Err = keys.Integrity(err)
			continue
		}
		out[i].Wrap = license.Wrap{Custodian: k.id, L0Type: license.L0AES, L0Version: version, Ciphertext: raw}
	}
	return out
}

// wrappedSize is nonce 12, payload 64, tag 16: what an AES-GCM key makes. An
// RSA key would make something else.
const wrappedSize = 12 + keys.PayloadSize + 16

// opening checks wraps before they are sent. Items that cannot be ours are
// answered here and never reach Vault.
func (k *Key) opening(items []keys.UnwrapItem) (reqs []request, index []int, errs []error) {
	errs = make([]error, len(items))
	for i, it := range items {
		if errs[i] = keys.CheckWrap(it.Wrap, k.id, license.L0AES); errs[i] == nil && len(it.Wrap.Ciphertext) != wrappedSize {
			errs[i] = keys.Integrity(fmt.Errorf("wrap of %d bytes, want %d", len(it.Wrap.Ciphertext), wrappedSize))
		}
		if errs[i] != nil {
			continue
		}
		sum := it.Binding.Sum()
		reqs = append(reqs, request{
			Ciphertext: formatVersioned(it.Wrap.L0Version, it.Wrap.Ciphertext), Context: sum[:], Reference: strconv.Itoa(len(reqs)),
		})
		index = append(index, i)
	}
	return reqs, index, errs
}

// Unwrap implements [keys.Custodian].
func (k *Key) Unwrap(ctx context.Context, items []keys.UnwrapItem) ([]keys.UnwrapResult, error) {
	if err := keys.CheckBatch(len(items)); err != nil {
		return nil, err
	}
	reqs, index, errs := k.opening(items)
	out := make([]keys.UnwrapResult, len(items))
	for i, err := range errs {
		out[i].Err = err
	}
	if len(reqs) == 0 {
		return out, nil
	}
	results, id, err := k.batchCall(ctx, "decrypt", reqs)
	if err != nil {
		return nil, err
	}
	for j, r := range results {
		o := &out[index[j]]
		o.RequestID = id
		if r.Error != "" {
			o.Err = itemError(r.Error)
			clear(r.Plaintext)
			continue
		}
		o.Secret, o.Err = items[index[j]].Binding.OpenPayload(r.Plaintext)
	}
	return out, nil
}

// Rewrap implements [keys.Custodian]. The plaintext stays in Vault.
func (k *Key) Rewrap(ctx context.Context, items []keys.UnwrapItem) ([]keys.WrapResult, error) {
	if err := keys.CheckBatch(len(items)); err != nil {
		return nil, err
	}
	reqs, index, errs := k.opening(items)
	out := make([]keys.WrapResult, len(items))
	for i, err := range errs {
		out[i].Err = err
	}
	if len(reqs) == 0 {
		return out, nil
	}
	results, id, err := k.batchCall(ctx, "rewrap", reqs)
	if err != nil {
		return nil, err
	}
	for j, w := range k.wraps(results, id) {
		out[index[j]] = w
	}
	return out, nil
}

// Sign implements [keys.Custodian].
func (k *Key) Sign(ctx context.Context, version uint32, message []byte) (*keys.Signature, error) {
	body := struct {
		Input   []byte `json:"input"`
		Version uint32 `json:"key_version,omitempty"`
	}{message, version}
	ans, err := k.call(ctx, http.MethodPost, k.c.cfg.Mount+"/sign/"+k.sign, body)
	if err != nil {
		return nil, unrefused(err)
	}
	if err := ans.unwarned(); err != nil {
		return nil, err
	}
	got, raw, err := parseSignature(ans.Data)
	if err == nil && version != 0 && got != version {
		err = fmt.Errorf("asked version %d to sign, version %d did", version, got)
	}
	if err != nil {
		return nil, keys.Integrity(err)
	}
	return &keys.Signature{Version: got, Bytes: raw, RequestID: ans.RequestID}, nil
}

func parseSignature(data json.RawMessage) (uint32, []byte, error) {
	var d struct {
		Signature string `json:"signature"`
	}
	if err := decodeOne(data, &d); err != nil {
		return 0, nil, err
	}
	version, raw, err := parseVersioned(d.Signature)
	if err == nil && len(raw) != 64 {
		err = fmt.Errorf("signature of %d bytes", len(raw))
	}
	return version, raw, err
}

// Describe implements [keys.Custodian].
func (k *Key) Describe(ctx context.Context) (*keys.Facts, error) {
	h, err := k.expected(ctx)
	if err != nil {
		return nil, err
	}
	f := &keys.Facts{
		Custodian: k.id, Kind: keys.KindVault, Location: k.c.cfg.Address + " " + k.c.cfg.Mount,
		ClusterID: h.ClusterID, Version: h.Version, ReadAt: k.c.cfg.Now().UTC(),
	}
	for name, into := range map[string]*keys.KeyFacts{k.root: &f.Root, k.sign: &f.Sign} {
		ans, err := k.call(ctx, http.MethodGet, k.c.cfg.Mount+"/keys/"+name, nil)
		if err != nil {
			return nil, unrefused(err)
		}
		if err := ans.unwarned(); err != nil {
			return nil, err
		}
		got, err := parseKey(ans.Data)
		if err == nil && got.Name != name {
			err = fmt.Errorf("asked for key %q, got %q", name, got.Name)
		}
		if err != nil {
			return nil, keys.Integrity(err)
		}
		*into = *got
		f.RequestIDs = append(f.RequestIDs, ans.RequestID)
	}
	return f, nil
}

// Health implements [keys.Custodian].
func (k *Key) Health(ctx context.Context) keys.Health {
	started := k.c.cfg.Now()
	h, err := k.expected(ctx)
	out := keys.Health{Latency: k.c.cfg.Now().Sub(started)}
	if err != nil {
		out.Reason, out.Message = vocab.ReasonOf(err), err.Error()
		return out
	}
	out.ClusterID, out.Version = h.ClusterID, h.Version
	return out
}
